"""docs/kubernetes.md and docs/container.md: what they tell an operator to write renders, and what they name is there."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import cli
from service.apart import sender_port
from service.settings import Settings
from tests.support.kustomize import Document, identity, render
from tests.support.manifests import (
    KUBERNETES,
    VERSIONS,
    check_shape,
    container,
    environment,
    mounts,
    of_kind,
    pod_spec,
    rendered,
    scraped,
    secrets,
    workloads,
)

ROOT = KUBERNETES.parents[1]
PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
CONTAINER_PAGE = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
MINE, DKIM, APART = re.findall(r"^ *```yaml\n(.*?)^ *```", PAGE, re.S | re.M)
COMMANDS = "".join(re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.S | re.M)).replace("\\\n", " ")


def dedented(block: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(block)
    return loaded


def written(folder: Path, *kustomizations: dict[str, Any]) -> Path:
    """A copy of deploy/kubernetes with an overlay `mine`, as the page tells to make it."""
    shutil.copytree(KUBERNETES, folder / "kubernetes")
    mine = folder / "kubernetes" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(
        yaml.safe_dump({key: each[key] for each in kustomizations for key in each})
    )
    (mine / "relays.toml").write_text('[relays.ses]\nurl = "smtps://user@email-smtp.eu-west-1.amazonaws.com"\n')
    return mine


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return written(tmp_path, dedented(MINE), dedented(DKIM))


@pytest.fixture
def documents(mine: Path) -> tuple[Document, ...]:
    return tuple(render(mine))


def test_the_kustomization_of_the_page_sets_image_namespace_settings_and_relays(
    documents: tuple[Document, ...],
) -> None:
    assert {each["metadata"]["namespace"] for each in documents} == {"postroom"}
    for workload in workloads(documents).values():
        assert container(workload)["image"] == "registry.example.com/postroom@sha256:" + "1" * 64
    api = workloads(documents)["postroom-api"]
    given = environment(documents, api)
    assert given["POSTROOM_TIMEZONE"] == "Asia/Shanghai"
    assert given["POSTROOM_PORT"] == "8000"
    relays = of_kind(documents, "ConfigMap")[mounts(api)["/etc/postroom"]["configMap"]["name"]]
    assert "relays.ses" in relays["data"]["relays.toml"]
    before = {name for kind, name in names(rendered("base")) if kind == "ConfigMap"}
    assert not before & set(of_kind(documents, "ConfigMap"))


def names(documents: tuple[Document, ...]) -> set[tuple[str, str]]:
    return {identity(each)[1:] for each in documents}


def test_the_dkim_keys_of_the_page_are_in_sender_pods_alone(documents: tuple[Document, ...]) -> None:
    sender = workloads(documents)["postroom-sender"]
    assert environment(documents, sender)["POSTROOM_DKIM_FILE"].startswith("/run/secrets/postroom/dkim/")
    assert mounts(sender)["/run/secrets/postroom/dkim"]["secret"]["defaultMode"] == 0o440
    assert {name for name, each in workloads(documents).items() if "postroom-dkim" in secrets(each)} == {
        "postroom-sender"
    }


def test_two_processes_in_the_one_pod_are_both_scraped_at_the_ports_where_they_answer(tmp_path: Path) -> None:
    overlay = {
        "resources": ["../single"],
        "components": ["../../components/monitoring", "../../components/networkpolicy"],
    }
    documents = tuple(render(written(tmp_path, dedented(MINE), overlay, dedented(APART))))
    (pod,) = [each for name, each in workloads(documents).items() if name == "postroom-api"]
    settings = Settings(role="apart", port=int(environment(documents, pod)["POSTROOM_PORT"]))
    ports = {each["name"]: each["containerPort"] for each in container(pod)["ports"]}
    assert ports == {"http": settings.port, "sender": sender_port(settings)}
    assert container(pod)["args"] == ["serve", "--role", "apart"]
    metrics = {
        each["name"]: each["targetPort"] for each in of_kind(documents, "Service")["postroom-metrics"]["spec"]["ports"]
    }
    endpoints = of_kind(documents, "ServiceMonitor")["postroom"]["spec"]["endpoints"]
    assert sorted(ports[metrics[each["port"]]] for each in endpoints) == [8000, 8001]
    (inward,) = of_kind(documents, "NetworkPolicy")["postroom-monitoring"]["spec"]["ingress"]
    assert {each["port"] for each in inward["ports"]} == set(ports)
    shown = [each.get("component") for each in scraped(documents)["postroom-api"]]
    assert shown == ["api", "sender"], "alerts and the board tell them apart"


def test_the_commands_of_the_page_name_what_there_is() -> None:
    known = {(kind.lower(), name) for kind, name in names(rendered("overlays/full"))}
    named = set(re.findall(r"\b(deployment|job|service)/([\w-]+)", COMMANDS))
    named |= set(re.findall(r"\b(scaledobject|job) ([\w-]+)", COMMANDS))
    assert named <= known
    assert {("deployment", "postroom-api"), ("deployment", "postroom-sender"), ("job", "postroom-migrate")} <= named
    assert re.findall(r"port-forward service/postroom (\d+):(\d+)", COMMANDS) == [("8000", "80")]


def test_the_commands_of_the_page_that_postroom_runs_are_commands_of_postroom() -> None:
    commands = re.findall(r"-- postroom (.+?)(?: > \S+)?(?: +#.*)?$", COMMANDS, re.M)
    commands += re.findall(r"'postroom (.+)'$", COMMANDS, re.M)
    commands += re.findall(r"docker run --rm \S+ (.+?) > ", COMMANDS)
    assert len(commands) >= 10
    for command in commands:
        cli._parser().parse_args(shlex.split(command))


@pytest.mark.parametrize("end", ["Complete", "Failed"])
def test_the_wait_for_the_job_ends_with_the_job_however_that_ends(end: str, tmp_path: Path) -> None:
    (wait,) = set(re.findall(r"^ *(until .*; done)$", COMMANDS, re.M))
    fake = tmp_path / "kubectl"
    fake.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n'
        f'[ "$(wc -l < {tmp_path}/asked)" -lt 3 ] || echo "SuccessCriteriaMet {end}"\n'
    )
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    wait = wait.replace("sleep 2", "sleep 0")
    told = subprocess.run(["sh", "-c", wait], env=environment, check=True, timeout=60, capture_output=True, text=True)
    assert end in told.stdout
    assert (tmp_path / "asked").read_text().splitlines()[0].startswith("get job/postroom-migrate -o jsonpath=")


def volume_pod() -> dict[str, Any]:
    """The pod that the page makes with the image of the deployment."""
    (change,) = re.findall(r'sed "(.*?)" (\S+) \| kubectl apply -f -', COMMANDS)
    script = change[0].replace("$image", "registry.example.com/postroom@sha256:" + "1" * 64)
    made = subprocess.run(["sed", script, ROOT / change[1]], check=True, timeout=60, capture_output=True, text=True)
    loaded: dict[str, Any] = yaml.safe_load(made.stdout)
    return loaded


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_that_has_the_volume_of_single_is_one_that_kubernetes_takes(version: str) -> None:
    check_shape(volume_pod(), version)


def test_the_pod_that_has_the_volume_of_single_is_confined_as_the_others_and_found_by_no_selector() -> None:
    pod, single = volume_pod(), rendered("overlays/single")
    (run,) = pod["spec"]["containers"]
    assert run["image"] == "registry.example.com/postroom@sha256:" + "1" * 64
    assert run["securityContext"] == container(workloads(single)["postroom-api"])["securityContext"]
    others = pod_spec(workloads(single)["postroom-api"])["securityContext"]
    assert pod["spec"]["securityContext"] == others
    store = {each["name"]: each for each in pod["spec"]["volumes"]}["store"]
    assert store["persistentVolumeClaim"]["claimName"] in of_kind(single, "PersistentVolumeClaim")
    assert {each["name"]: each["mountPath"] for each in run["volumeMounts"]}["store"] == "/srv/postroom/var"
    own = environment(single, workloads(single)["postroom-api"])
    assert {each["name"]: each["value"] for each in run["env"]} == {
        "POSTROOM_DATABASE_URL": own["POSTROOM_DATABASE_URL"]
    }
    others = [each for each in rendered("overlays/full") if each["metadata"]["name"] != "postroom-ground"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] not in str(others)


def test_the_secrets_of_the_page_are_those_that_pods_mount() -> None:
    made = dict(re.findall(r"^ *kubectl create secret generic ([\w-]+) --from-file=(\w+)=", COMMANDS, re.M))
    (database, relays, bootstrap) = (made[f"postroom-{each}"] for each in ("database", "relays", "bootstrap"))
    assert set(made) == set().union(*(secrets(each) for each in workloads(rendered("base")).values()))
    given = environment(rendered("base"), workloads(rendered("base"))["postroom-api"])
    assert given["POSTROOM_DATABASE_URL_FILE"].endswith(f"/{database}")
    assert given["POSTROOM_BOOTSTRAP_KEY_FILE"].endswith(f"/{bootstrap}")
    assert f'/relays/{relays}"' in (KUBERNETES / "base" / "relays.toml").read_text(encoding="utf-8")


def test_what_is_applied_before_the_job_is_all_that_the_job_needs() -> None:
    (selector,) = set(re.findall(r"-l '(.*?)'", COMMANDS))
    components = set(re.findall(r"in \((.*?)\)", selector)[0].split(", "))
    first = names(
        tuple(each for each in rendered("base")
              if each["metadata"]["labels"]["app.kubernetes.io/component"] in components)
    )  # fmt: skip
    assert {("Job", "postroom-migrate"), ("ServiceAccount", "postroom")} <= first
    assert {kind for kind, _ in first} == {"Job", "ServiceAccount", "ConfigMap"}


def test_every_alert_is_in_the_table_with_its_severity() -> None:
    rules = of_kind(rendered("overlays/full"), "PrometheusRule")["postroom"]["spec"]["groups"]
    told = dict(re.findall(r"^\| `(Postroom\w+)` \| (\w+) \|", PAGE, re.M))
    assert told == {rule["alert"]: rule["labels"]["severity"] for group in rules for rule in group["rules"]}


@pytest.mark.parametrize("page", [PAGE, CONTAINER_PAGE], ids=["kubernetes.md", "container.md"])
def test_files_and_settings_that_a_page_names_are_there(page: str) -> None:
    files = {
        each.rstrip(".") for each in re.findall(r"(?:deploy|components|overlays)/[\w./-]+", page) if "/mine" not in each
    }
    assert all((ROOT / each).exists() or (KUBERNETES / each).exists() for each in files), files
    settings = {each.rstrip("_") for each in re.findall(r"POSTROOM_(\w+)", page)}
    assert {each.lower() for each in settings} <= set(Settings.model_fields)


def test_the_first_run_of_the_container_mounts_the_files_that_its_settings_name() -> None:
    (command,) = re.findall(r"^docker run --detach.*?^docker exec", CONTAINER_PAGE, re.S | re.M)
    mounted = dict(
        reversed(each.split(":")[:2]) for each in re.findall(r'--volume "?(\S+?)"? ', command.replace("\\\n", " "))
    )
    given = dict(each.split("=") for each in re.findall(r"--env (\S+)", command))
    assert set(given.values()) <= set(mounted)
    assert mounted["/srv/postroom/var"] == "postroom"
    assert f"secrets/{Path(given['POSTROOM_RELAY_URL_FILE']).name}" in mounted[given["POSTROOM_RELAY_URL_FILE"]]
    wait = int(re.findall(r"--stop-timeout (\d+)", command)[0])
    assert wait >= Settings.model_fields["drain_delay"].default + Settings.model_fields["drain_grace"].default + 10
