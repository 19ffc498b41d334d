"""The documents under deploy/kubernetes, rendered, and how tests look things up in them."""

import functools
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from tests.support.kustomize import Document, containers, pod, render

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
KUSTOMIZATIONS = ("base", "overlays/full", "overlays/single")
VERSIONS = ("1.31", "1.37")  # the oldest that the manifests are for, and the newest whose schemas are known

_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}


def _thing(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


def _resource(spec: dict[str, Any]) -> dict[str, Any]:
    return _thing("apiVersion kind metadata spec", apiVersion=_TEXT, kind=_TEXT, metadata={"type": "object"}, spec=spec)


_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}
_RULE = _thing(
    "alert expr labels annotations", alert=_TEXT, expr=_TEXT, labels=_TEXTS, annotations=_TEXTS, **{"for": _DURATION}
)
_ENDPOINT = _thing(
    "port path",
    port=_TEXT,
    path=_TEXT,
    interval=_DURATION,
    scrapeTimeout=_DURATION,
    relabelings=_list(
        {
            "anyOf": [
                _thing("sourceLabels targetLabel", sourceLabels=_list(_TEXT), targetLabel=_TEXT),
                _thing("replacement targetLabel", replacement=_TEXT, targetLabel=_TEXT),
            ]
        }
    ),
)
_TRIGGER = _thing(
    "type metadata", type={"const": "prometheus"}, metricType={"enum": ["AverageValue", "Value"]}, metadata=_TEXTS
)
# What these manifests use of custom resources; Kubernetes itself has no schemas for them.
_CUSTOM: dict[tuple[str, str], dict[str, Any]] = {
    ("monitoring.coreos.com/v1", "PrometheusRule"): _resource(
        _thing("groups", groups=_list(_thing("name rules", name=_TEXT, rules=_list(_RULE))))
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _resource(
        _thing("selector endpoints", selector=_thing("matchLabels", matchLabels=_TEXTS), endpoints=_list(_ENDPOINT))
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): _resource(
        _thing(
            "scaleTargetRef triggers",
            scaleTargetRef=_thing("name", name=_TEXT),
            minReplicaCount={"type": "integer"},
            maxReplicaCount={"type": "integer"},
            pollingInterval={"type": "integer"},
            cooldownPeriod={"type": "integer"},
            fallback=_thing(
                "failureThreshold replicas", failureThreshold={"type": "integer"}, replicas={"type": "integer"}
            ),
            triggers=_list(_TRIGGER),
        )
    ),
}


def check_shape(document: Document, version: str) -> None:
    """Raises ValidationError when Kubernetes would refuse the document, or drop a field of it."""
    custom = _CUSTOM.get((document["apiVersion"], document["kind"]))
    if custom is not None:
        jsonschema.validate(document, custom)
    else:
        kubernetes_validate.validate(document, version, strict=True)


@functools.cache
def rendered(name: str) -> tuple[Document, ...]:
    """The documents of one of KUSTOMIZATIONS. They are shared: not to be changed."""
    return tuple(render(KUBERNETES / name))


def of_kind(documents: tuple[Document, ...], kind: str) -> dict[str, Document]:
    """Those of a kind, by name."""
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


def workloads(documents: tuple[Document, ...]) -> dict[str, Document]:
    """Those that make pods, by name."""
    return {each["metadata"]["name"]: each for each in documents if pod(each) is not None}


def pod_spec(workload: Document) -> Document:
    """What its pods are."""
    return workload["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container(workload: Document) -> Document:
    """The one container of its pods."""
    (only,) = containers(workload)
    return only


def environment(documents: tuple[Document, ...], workload: Document) -> dict[str, str]:
    """What its container is started with: ConfigMaps, then `env`, which wins."""
    maps, given = of_kind(documents, "ConfigMap"), container(workload)
    values: dict[str, str] = {}
    for source in given.get("envFrom", ()):
        values |= maps[source["configMapRef"]["name"]]["data"]
    return values | {each["name"]: each["value"] for each in given.get("env", ())}


def mounts(workload: Document) -> dict[str, Document]:
    """Its volumes, by the path where they are mounted."""
    volumes = {each["name"]: each for each in pod_spec(workload)["volumes"]}
    return {each["mountPath"]: volumes[each["name"]] for each in container(workload)["volumeMounts"]}


def secrets(workload: Document) -> set[str]:
    """The names of the secrets that its pods can read."""
    return {each["secret"]["secretName"] for each in pod_spec(workload)["volumes"] if "secret" in each}


def selected(documents: tuple[Document, ...], labels: dict[str, str]) -> set[str]:
    """The names of the workloads whose pods have all of these labels."""
    found = workloads(documents).items()
    return {name for name, each in found if labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()}


def scraped(documents: tuple[Document, ...]) -> dict[str, list[dict[str, str]]]:
    """The labels that the ServiceMonitor gives to what the pods of each workload show, at each of their ports."""
    monitoring = rendered("overlays/full")
    endpoints = of_kind(monitoring, "ServiceMonitor")["postroom"]["spec"]["endpoints"]
    service = of_kind(monitoring, "Service")["postroom-metrics"]["spec"]
    leads = {each["name"]: each["targetPort"] for each in service["ports"]}
    found = {}
    for name, workload in workloads(documents).items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        if service["selector"].items() <= labels.items():
            ports = {each["name"] for each in container(workload)["ports"]}
            found[name] = [_given(each, labels) for each in endpoints if leads[each["port"]] in ports]
    return found


def _given(endpoint: dict[str, Any], of_pod: dict[str, str]) -> dict[str, str]:
    met = {f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}": value for key, value in of_pod.items()}
    given = {
        each["targetLabel"]: each.get("replacement") or met.get(each["sourceLabels"][0])
        for each in endpoint["relabelings"]
    }
    return {label: value for label, value in given.items() if value is not None}
