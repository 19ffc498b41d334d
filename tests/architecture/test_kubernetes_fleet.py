"""The manifests under deploy/kubernetes: how many pods there are, who may evict them, and who may talk to whom."""

import re
from pathlib import PurePosixPath
from typing import Any

import pytest

from service.relay.config import load_relays
from service.settings import Settings
from tests.support.manifests import (
    KUBERNETES,
    container,
    environment,
    mounts,
    of_kind,
    pod_spec,
    rendered,
    selected,
    workloads,
)

# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base", "overlays/full"])
def test_what_an_autoscaler_counts_has_no_number_of_its_own(name: str) -> None:
    documents = rendered(name)
    scaled = {each["spec"]["scaleTargetRef"]["name"]
              for kind in ("HorizontalPodAutoscaler", "ScaledObject") for each in of_kind(documents, kind).values()}  # fmt: skip
    assert scaled == ({"postroom-api"} if name == "base" else {"postroom-api", "postroom-sender"})
    for each, deployment in of_kind(documents, "Deployment").items():
        assert ("replicas" in deployment["spec"]) == (each not in scaled)


def test_senders_together_open_no_more_sessions_than_the_preset_allows() -> None:
    sender = workloads(rendered("base"))["postroom-sender"]
    assert sender["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    (relay,) = load_relays(Settings(role="api", relays_file=KUBERNETES / "base" / "relays.toml"))
    scaled = of_kind(rendered("overlays/full"), "ScaledObject")["postroom-sender"]["spec"]["maxReplicaCount"]
    for senders in (sender["spec"]["replicas"], scaled):
        assert senders * relay.max_connections <= relay.preset.max_connections


@pytest.mark.parametrize("name", ["base", "overlays/full"])
def test_an_eviction_takes_one_pod_of_each_kind_at_a_time(name: str) -> None:
    budgets = of_kind(rendered(name), "PodDisruptionBudget")
    assert {
        each: selected(rendered(name), budget["spec"]["selector"]["matchLabels"]) for each, budget in budgets.items()
    } == {
        "postroom-api": {"postroom-api"},
        "postroom-sender": {"postroom-sender"},
    }
    assert all(each["spec"]["maxUnavailable"] == 1 for each in budgets.values())


def test_the_single_pod_is_never_two_and_keeps_its_store_on_its_volume() -> None:
    documents = rendered("overlays/single")
    ((name, only),) = workloads(documents).items()
    assert (name, only["spec"]["replicas"], only["spec"]["strategy"]) == ("postroom-api", 1, {"type": "Recreate"})
    assert container(only)["args"] == ["serve", "--role", "all"]
    (claim,) = of_kind(documents, "PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    file = PurePosixPath(environment(documents, only)["POSTROOM_DATABASE_URL"].removeprefix("sqlite:///"))
    assert mounts(only)[str(file.parent)]["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Job"} & {each["kind"] for each in documents}


def test_the_job_of_the_schema_ends_by_itself() -> None:
    job = of_kind(rendered("base"), "Job")["postroom-migrate"]
    assert job["spec"]["activeDeadlineSeconds"] > 0
    assert pod_spec(job)["restartPolicy"] == "Never"


# --- the network ------------------------------------------------------------------------------------------------------


def policies() -> dict[str, dict[str, Any]]:
    return of_kind(rendered("overlays/full"), "NetworkPolicy")


def test_every_pod_is_under_the_policy_that_refuses_what_no_other_allows() -> None:
    ground = policies()["postroom-ground"]["spec"]
    (expression,) = ground["podSelector"]["matchExpressions"]
    names = {
        each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        for each in workloads(rendered("base")).values()
    }
    names.add("postroom-volume")  # of examples/volume.yaml
    assert (expression["key"], set(expression["values"])) == ("app.kubernetes.io/name", names)
    assert ground["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in ground


def test_only_senders_reach_relays_on_the_ports_that_the_relays_have() -> None:
    outward = {name: each["spec"] for name, each in policies().items() if "egress" in each["spec"]}
    assert set(outward) == {"postroom-ground", "postroom-relays", "postroom-traces"}
    relays = outward["postroom-relays"]
    assert selected(rendered("overlays/full"), relays["podSelector"]["matchLabels"]) == {"postroom-sender"}
    allowed = {port["port"] for rule in relays["egress"] for port in rule["ports"]}
    configured = load_relays(Settings(role="api", relays_file=KUBERNETES / "base" / "relays.toml"))
    assert {each.port for each in configured} <= allowed
    for name in ("postroom-ground", "postroom-traces"):
        assert not allowed & {port["port"] for rule in outward[name]["egress"] for port in rule["ports"]}


def test_traces_of_both_roles_reach_the_collector_that_the_page_names_and_nobody_else() -> None:
    spec = policies()["postroom-traces"]["spec"]
    assert selected(rendered("overlays/full"), spec["podSelector"]["matchLabels"]) == {
        "postroom-api",
        "postroom-sender",
    }
    (rule,) = spec["egress"]
    page = (KUBERNETES.parents[1] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    ((namespace, port),) = re.findall(r"POSTROOM_OTEL_ENDPOINT=http://\w+\.(\w+):(\d+)`", page)
    assert rule["ports"] == [{"port": int(port), "protocol": "TCP"}]
    assert rule["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]


@pytest.mark.parametrize("name", ["base", "overlays/full", "overlays/single"])
def test_the_pods_that_have_the_secrets_of_relays_are_those_that_reach_relays(name: str) -> None:
    """The component may be added to any of them."""
    labels = policies()["postroom-relays"]["spec"]["podSelector"]["matchLabels"]
    send = {
        each for each, made in workloads(rendered(name)).items() if "relay-secrets" in str(pod_spec(made)["volumes"])
    }
    assert send
    assert selected(rendered(name), labels) == send


def test_what_comes_in_comes_to_the_port_that_is_served() -> None:
    inward = [each["spec"] for each in policies().values() if "ingress" in each["spec"]]
    assert len(inward) == 2
    for spec in inward:
        for each in selected(rendered("overlays/full"), spec["podSelector"]["matchLabels"]):
            (port,) = container(workloads(rendered("overlays/full"))[each])["ports"]
            allowed = {rule["port"] for ingress in spec["ingress"] for rule in ingress["ports"]}
            scrapes = spec == policies()["postroom-monitoring"]["spec"]
            assert allowed == {port["name"], *({"sender"} if scrapes else ())}, (
                "the second port of `apart` is scraped alone"
            )
