"""What `kubectl kustomize` makes of the kustomizations under deploy/, as far as they use it.

A key that is not known here is an error, never skipped. `python -m tests.support.kustomize` compares all of deploy/ with
what kubectl makes of it, where that is installed. Documented at kubectl.docs.kubernetes.io, "The Kustomization File", and
for patches in Kubernetes' "Strategic Merge Patch".
"""

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

# what identifies an item of a list, by the field that holds the list (x-kubernetes-patch-merge-key of Kubernetes' OpenAPI document)
MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}
_KNOWN = {
    "apiVersion",
    "kind",
    "resources",
    "components",
    "configMapGenerator",
    "generatorOptions",
    "images",
    "patches",
    "namespace",
}


def render(folder: Path) -> list[Document]:
    """All documents of a kustomization, as they would be applied."""
    documents = _accumulate(folder, [])
    renamed = {}
    for document in documents:
        if document.pop("_generated", False):
            name = document["metadata"]["name"]
            renamed[name] = document["metadata"]["name"] = f"{name}-{suffix(document)}"
    for document in documents:
        _rename(document, renamed)
    return documents


def load(file: Path) -> list[Document]:
    """The documents of one file."""
    return [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document is not None]


def _accumulate(folder: Path, documents: list[Document]) -> list[Document]:
    """`documents` and those of `folder`, changed as its kustomization says. A component changes what was there before it."""
    (kustomization,) = load(folder / "kustomization.yaml")
    assert set(kustomization) <= _KNOWN, (
        f"{folder}: {set(kustomization) - _KNOWN} is not known to tests/support/kustomize.py"
    )
    documents = list(documents)
    for resource in kustomization.get("resources", ()):
        path = folder / resource
        documents += _accumulate(path, []) if path.is_dir() else load(path)
    for made, behavior in _config_maps(folder, kustomization):
        documents = [*documents, made] if behavior == "create" else _with_data(documents, made, behavior)
    for component in kustomization.get("components", ()):
        documents = _accumulate(folder / component, documents)
    for patch in kustomization.get("patches", ()):
        for change in _changes(folder, patch):
            documents = _patched(documents, change)
    for image in kustomization.get("images", ()):
        _set_image(documents, image)
    for document in documents:
        if "namespace" in kustomization:
            document["metadata"]["namespace"] = kustomization["namespace"]
    return documents


# --- ConfigMaps -------------------------------------------------------------------------------------------------------


def _config_maps(folder: Path, kustomization: Mapping[str, Any]) -> list[tuple[Document, str]]:
    options = kustomization.get("generatorOptions", {})
    assert set(options) <= {"labels"}
    generators = kustomization.get("configMapGenerator", ())
    return [(_config_map(folder, each, options), each.get("behavior", "create")) for each in generators]


def _with_data(documents: Iterable[Document], made: Document, behavior: str) -> list[Document]:
    """The data is the new one, or is added; what else was said of the ConfigMap stays."""
    documents = list(documents)
    (target,) = (each for each in documents if identity(each) == identity(made))
    kept = target["data"] if behavior == "merge" else {}
    documents[documents.index(target)] = {**target, "data": {**kept, **made["data"]}}
    return documents


def _config_map(folder: Path, generator: Mapping[str, Any], options: Mapping[str, Any]) -> Document:
    assert set(generator) <= {"name", "envs", "files", "literals", "behavior"}, generator
    assert generator.get("behavior", "create") in {"create", "replace", "merge"}
    lines = list(generator.get("literals", ()))
    for file in generator.get("envs", ()):
        text = (folder / file).read_text(encoding="utf-8")
        lines += [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    data = dict(line.split("=", 1) for line in lines)
    data |= {Path(file).name: (folder / file).read_text(encoding="utf-8") for file in generator.get("files", ())}
    metadata = {"name": generator["name"], **copy.deepcopy(dict(options))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "_generated": True}


def suffix(document: Document) -> str:
    """kustomize's mark of a ConfigMap's content: ten letters of a SHA-256 that can spell nothing."""
    content = {"data": document["data"], "kind": "ConfigMap", "name": ""}  # kustomize hashes no name
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")  # as Go's encoding/json does
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(str.maketrans("013ae", "ghkmt"))


def _rename(node: object, renamed: Mapping[str, str]) -> None:
    """References to ConfigMaps follow their names."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"configMap", "configMapRef", "configMapKeyRef"} and value.get("name") in renamed:
                value["name"] = renamed[value["name"]]
            _rename(value, renamed)
    elif isinstance(node, list):
        for item in node:
            _rename(item, renamed)


# --- patches ----------------------------------------------------------------------------------------------------------


def _changes(folder: Path, patch: Mapping[str, Any]) -> list[Document]:
    assert set(patch) in ({"path"}, {"patch"}), patch
    return load(folder / patch["path"]) if "path" in patch else list(yaml.safe_load_all(patch["patch"]))


def identity(document: Document) -> tuple[str, str, str]:
    """What a document is known by."""
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def _patched(documents: Iterable[Document], change: Document) -> list[Document]:
    documents = list(documents)
    (target,) = (document for document in documents if identity(document) == identity(change))
    if change.get("$patch") == "delete":
        documents.remove(target)
    else:
        documents[documents.index(target)] = merged(target, change)
    return documents


def merged(target: Document, change: Document) -> Document:
    """A strategic merge: null deletes, mappings merge, and so do lists whose items have a key of their own."""
    result = copy.deepcopy(target)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key, {}), value)
        elif isinstance(value, list) and key in MERGE_KEYS:
            result[key] = _merged_list(result.get(key, []), value, MERGE_KEYS[key])
        else:
            result[key] = copy.deepcopy(value)
    return result


def _merged_list(items: list[Document], changes: list[Document], by: str) -> list[Document]:
    found = {item[by]: item for item in items}
    for change in changes:
        if change.get("$patch") == "delete":
            del found[change[by]]
        else:
            found[change[by]] = merged(found.get(change[by], {}), change)
    return list(found.values())


# --- images -----------------------------------------------------------------------------------------------------------


def _set_image(documents: Iterable[Document], image: Mapping[str, str]) -> None:
    assert set(image) == {"name", "newName", "digest"}, image
    for container in (each for document in documents for each in containers(document)):
        if container["image"].partition("@")[0] == image["name"]:
            container["image"] = f"{image['newName']}@{image['digest']}"


def pod(document: Document) -> Document | None:
    """The template of the pods that a document makes, if it makes any."""
    template: Document | None = document.get("spec", {}).get("template")
    return template if document["kind"] in {"Deployment", "Job"} else None


def containers(document: Document) -> list[Document]:
    """The containers of those pods."""
    template = pod(document)
    return [] if template is None else template["spec"].get("initContainers", []) + template["spec"]["containers"]


# --- the same by kubectl ----------------------------------------------------------------------------------------------


def comparable(documents: Iterable[Document]) -> dict[tuple[str, str, str], Any]:
    """By identity, with lists sorted whose order means nothing."""
    return {identity(each): _ordered(each) for each in documents}


def _ordered(node: Any, key: str = "") -> Any:
    if isinstance(node, dict):
        return {each: _ordered(value, each) for each, value in node.items()}
    if not isinstance(node, list):
        return node
    items, by = [_ordered(each) for each in node], MERGE_KEYS.get(key)
    keyed = by is not None and all(isinstance(each, dict) and by in each for each in items)
    return sorted(items, key=lambda each: str(each[by])) if keyed else items


def by_kubectl(folder: Path) -> dict[tuple[str, str, str], Any]:
    """What kubectl makes of a kustomization, comparable."""
    made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, check=True, text=True, timeout=60)
    return comparable(yaml.safe_load_all(made.stdout))


if __name__ == "__main__":
    deploy = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
    different = [
        str(each.parent.relative_to(deploy))
        for each in sorted(deploy.rglob("kustomization.yaml"))
        if each.parent.parent.name != "components" and by_kubectl(each.parent) != comparable(render(each.parent))
    ]
    sys.exit(f"kubectl makes something else of {', '.join(different)}" if different else 0)
