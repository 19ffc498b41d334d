"""The manifests under deploy/kubernetes: Kubernetes would take them, and they fit the service and each other."""

import copy
import tomllib
from pathlib import PurePosixPath
from typing import Any

import jsonschema
import pytest

from service import cli
from service.api.table import OPERATIONS
from service.errors import ConfigurationError
from service.relay.config import load_relays
from service.settings import PREFIX, Settings
from tests.support.kustomize import load, merged, suffix
from tests.support.manifests import (
    KUBERNETES,
    KUSTOMIZATIONS,
    VERSIONS,
    check_shape,
    container,
    environment,
    mounts,
    of_kind,
    pod_spec,
    rendered,
    secrets,
    selected,
    workloads,
)

SECRETS = {each["metadata"]["name"]: each["stringData"] for each in load(KUBERNETES / "examples" / "secrets.yaml")}
PATHS = {each.path for each in OPERATIONS}
MIGRATES = 60  # seconds for which a start waits for another process that changes the schema
MARGIN = 20  # seconds between what a process may take to stop and SIGKILL

every_kustomization = pytest.mark.parametrize("name", KUSTOMIZATIONS)
every_workload = pytest.mark.parametrize(
    ("name", "workload"),
    [(name, each) for name in KUSTOMIZATIONS for each in workloads(rendered(name)).values()],
    ids=lambda each: each if isinstance(each, str) else each["metadata"]["name"],
)
every_service = pytest.mark.parametrize(
    ("name", "workload"),
    [(name, each) for name in KUSTOMIZATIONS for each in of_kind(rendered(name), "Deployment").values()],
    ids=lambda each: each if isinstance(each, str) else each["metadata"]["name"],
)


# --- what Kubernetes would say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@every_kustomization
def test_every_document_has_the_shape_that_kubernetes_wants(name: str, version: str) -> None:
    for document in rendered(name):
        check_shape(document, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_example_secrets_have_the_shape_that_kubernetes_wants(version: str) -> None:
    for document in load(KUBERNETES / "examples" / "secrets.yaml"):
        check_shape(document, version)


@pytest.mark.parametrize("kind", ["Deployment", "ScaledObject", "ServiceMonitor", "PrometheusRule"])
def test_a_misspelt_field_is_seen(kind: str) -> None:
    document = copy.deepcopy(next(each for each in rendered("overlays/full") if each["kind"] == kind))
    document["spec"]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        check_shape(document, VERSIONS[-1])


def test_a_strategic_merge_deletes_replaces_and_adds() -> None:
    target = {
        "a": 1,
        "b": {"c": 2, "d": 3},
        "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
        "args": ["x"],
    }
    change = {"a": None, "b": {"c": None, "e": 4}, "args": ["y"],
              "env": [{"name": "X", "$patch": "delete"}, {"name": "Y", "value": "3"}, {"name": "Z", "value": "4"}]}  # fmt: skip
    assert merged(target, change) == {
        "b": {"d": 3, "e": 4},
        "env": [{"name": "Y", "value": "3"}, {"name": "Z", "value": "4"}],
        "args": ["y"],
    }


def test_another_setting_gives_a_config_map_another_name() -> None:
    document = {"metadata": {"name": "a"}, "data": {"X": "1"}}
    assert suffix(document) != suffix({"metadata": {"name": "a"}, "data": {"X": "2"}})


@every_kustomization
def test_no_secret_is_applied_with_a_kustomization(name: str) -> None:
    assert of_kind(rendered(name), "Secret") == {}


# --- the pods ---------------------------------------------------------------------------------------------------------


@every_workload
def test_pods_keep_to_the_restricted_pod_security_standard(name: str, workload: dict[str, Any]) -> None:
    pods, confined = pod_spec(workload)["securityContext"], container(workload)["securityContext"]
    assert pods["runAsNonRoot"] is True
    assert pods["runAsUser"] == pods["runAsGroup"] == 10001
    assert pods["seccompProfile"] == {"type": "RuntimeDefault"}
    assert confined == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
    assert all(set(each) - {"name"} <= allowed for each in pod_spec(workload)["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod_spec(workload))


@every_workload
def test_pods_get_no_token_and_no_service_links(name: str, workload: dict[str, Any]) -> None:
    assert pod_spec(workload)["automountServiceAccountToken"] is False
    assert pod_spec(workload)["enableServiceLinks"] is False
    assert of_kind(rendered(name), "ServiceAccount")["postroom"]["automountServiceAccountToken"] is False


@every_workload
def test_images_are_named_by_digest(name: str, workload: dict[str, Any]) -> None:
    assert container(workload)["image"] == "postroom@sha256:" + "0" * 64


@every_workload
def test_what_a_container_runs_is_a_command_of_postroom(name: str, workload: dict[str, Any]) -> None:
    assert "command" not in container(workload)  # the image's entry point is `postroom`
    cli._parser().parse_args(container(workload)["args"])


@every_workload
def test_every_container_asks_for_cpu_and_memory_and_has_a_limit_on_memory_alone(
    name: str, workload: dict[str, Any]
) -> None:
    resources = container(workload)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


def test_relay_secrets_are_in_sender_pods_alone() -> None:
    found = {name: secrets(each) for name, each in workloads(rendered("overlays/full")).items()}
    assert found == {
        "postroom-api": {"postroom-database", "postroom-bootstrap"},
        "postroom-sender": {"postroom-database", "postroom-relays"},
        "postroom-migrate": {"postroom-database"},
    }
    (single,) = workloads(rendered("overlays/single")).values()
    assert secrets(single) == {"postroom-bootstrap", "postroom-relays"}


@every_workload
def test_no_secret_comes_by_the_environment(name: str, workload: dict[str, Any]) -> None:
    given = container(workload)
    assert all(set(each) == {"name", "value"} for each in given.get("env", ()))
    assert all(set(each) == {"configMapRef"} for each in given.get("envFrom", ()))


@every_workload
def test_a_mounted_secret_can_be_read_by_the_group_of_the_pod_and_by_nobody_else(
    name: str, workload: dict[str, Any]
) -> None:
    assert pod_spec(workload)["securityContext"]["fsGroup"] == 10001
    assert all(each["secret"]["defaultMode"] == 0o440 for each in pod_spec(workload)["volumes"] if "secret" in each)


# --- settings ---------------------------------------------------------------------------------------------------------


@every_workload
def test_every_setting_is_one_that_there_is_with_a_value_that_it_takes(name: str, workload: dict[str, Any]) -> None:
    given = environment(rendered(name), workload)
    names = {key.removeprefix(PREFIX).lower(): value for key, value in given.items() if key.startswith(PREFIX)}
    assert set(names) <= set(Settings.model_fields)
    assert len(names) == len(given)
    Settings(**names)  # type: ignore[arg-type]


@every_workload
def test_every_file_that_a_setting_names_is_mounted(name: str, workload: dict[str, Any]) -> None:
    documents, found = rendered(name), mounts(workload)
    files = {key: value for key, value in environment(documents, workload).items() if key.endswith("_FILE")}
    assert files
    for key, value in files.items():
        folder, file = str(PurePosixPath(value).parent), PurePosixPath(value).name
        volume = found[folder]
        held = SECRETS[volume["secret"]["secretName"]] if "secret" in volume else config_of(documents, volume)
        assert file in held, f"{key} names {file}, which {volume} has not"


def config_of(documents: tuple[dict[str, Any], ...], volume: dict[str, Any]) -> dict[str, str]:
    data: dict[str, str] = of_kind(documents, "ConfigMap")[volume["configMap"]["name"]]["data"]
    return data


def test_every_secret_of_the_example_is_mounted_somewhere() -> None:
    assert set().union(*(secrets(each) for each in workloads(rendered("base")).values())) == set(SECRETS)


def test_every_secret_file_of_the_relays_is_mounted_where_mail_is_sent_and_not_where_it_is_accepted() -> None:
    relays = tomllib.loads((KUBERNETES / "base" / "relays.toml").read_text(encoding="utf-8"))["relays"]
    api, sender = (workloads(rendered("base"))[each] for each in ("postroom-api", "postroom-sender"))
    for relay in relays.values():
        path = PurePosixPath(relay["secret_file"])
        volume = mounts(sender)[str(path.parent)]
        assert path.name in SECRETS[volume["secret"]["secretName"]]
        assert str(path.parent) not in mounts(api)


def test_the_relays_file_is_enough_for_an_api_pod_and_not_for_a_sender() -> None:
    file = KUBERNETES / "base" / "relays.toml"
    (relay,) = load_relays(Settings(role="api", relays_file=file))
    assert relay.rule.must_equal_login
    assert relay.secret.get_secret_value() == ""
    with pytest.raises(ConfigurationError, match="netease: secret_file"):
        load_relays(Settings(role="sender", relays_file=file))


# --- ports, probes, the end of a pod ----------------------------------------------------------------------------------


@every_service
def test_the_container_listens_where_its_port_says(name: str, workload: dict[str, Any]) -> None:
    (port,) = container(workload)["ports"]
    assert port == {"name": "http", "containerPort": int(environment(rendered(name), workload)["POSTROOM_PORT"])}


@every_service
def test_probes_ask_what_the_service_answers(name: str, workload: dict[str, Any]) -> None:
    probes = {each: container(workload)[f"{each}Probe"]["httpGet"] for each in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    assert {"/healthz", "/readyz"} <= PATHS


@every_service
def test_a_pod_may_wait_for_its_database_and_for_a_migration_before_it_is_started_anew(
    name: str, workload: dict[str, Any]
) -> None:
    probe, settings = container(workload)["startupProbe"], Settings()
    waits = settings.database_wait + settings.database_connect_timeout + MIGRATES
    assert probe["periodSeconds"] * probe["failureThreshold"] >= waits


@every_kustomization
def test_services_lead_to_pods_that_serve(name: str) -> None:
    documents = rendered(name)
    for service in of_kind(documents, "Service").values():
        found = selected(documents, service["spec"]["selector"])
        assert found
        assert "postroom-migrate" not in found
        ports = {port["name"] for each in found for port in container(workloads(documents)[each])["ports"]}
        asked = {each["targetPort"] for each in service["spec"]["ports"]}
        assert asked - ports <= ({"sender"} if service["metadata"]["name"] == "postroom-metrics" else set()), (
            "of `apart`"
        )
        assert asked & ports


def test_clients_reach_api_pods_alone_and_the_monitoring_reaches_both() -> None:
    documents = rendered("overlays/full")
    services = of_kind(documents, "Service")
    assert selected(documents, services["postroom"]["spec"]["selector"]) == {"postroom-api"}
    assert selected(documents, services["postroom-metrics"]["spec"]["selector"]) == {"postroom-api", "postroom-sender"}


@every_service
def test_a_pod_has_time_to_drain_before_it_is_killed(name: str, workload: dict[str, Any]) -> None:
    settings = Settings(
        **{
            key.removeprefix(PREFIX).lower(): value  # type: ignore[arg-type]
            for key, value in environment(rendered(name), workload).items()
        }
    )
    needed = settings.drain_delay + settings.drain_grace + MARGIN
    assert pod_spec(workload)["terminationGracePeriodSeconds"] >= needed
    assert "lifecycle" not in container(workload)  # the service waits by itself; a preStop hook would add to that


@every_service
def test_pods_of_one_kind_prefer_to_be_apart(name: str, workload: dict[str, Any]) -> None:
    if workload["spec"].get("replicas") == 1:
        assert "topologySpreadConstraints" not in pod_spec(workload)
        return
    constraints = pod_spec(workload)["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in constraints} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    for each in constraints:
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
        assert selected(rendered(name), each["labelSelector"]["matchLabels"]) == {workload["metadata"]["name"]}


@every_service
def test_a_deployment_selects_its_own_pods_alone(name: str, workload: dict[str, Any]) -> None:
    assert selected(rendered(name), workload["spec"]["selector"]["matchLabels"]) == {workload["metadata"]["name"]}
