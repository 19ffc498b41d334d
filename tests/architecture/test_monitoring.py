"""Alerts, the scaling of senders and the board ask for metrics that there are, with labels and values that they have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.api.table import OPERATIONS
from service.errors import PostroomError
from service.mail.lifecycle import Event, State
from service.spool.values import PRIORITIES
from tests.support.kustomize import Document
from tests.support.manifests import of_kind, rendered, scraped
from tests.support.promql import FOREIGN, exported, grouped, missed, parse, selectors

ROOT = Path(__file__).resolve().parents[2]
BOARD = json.loads((ROOT / "deploy" / "grafana" / "postroom.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for group in of_kind(rendered("overlays/full"), "PrometheusRule")["postroom"]["spec"]["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
(TRIGGER,) = of_kind(rendered("overlays/full"), "ScaledObject")["postroom-sender"]["spec"]["triggers"]


def codes(error: type[PostroomError] = PostroomError) -> set[str]:
    """The codes of all errors."""
    return {error.code} | {code for each in error.__subclasses__() for code in codes(each)}


KNOWN = {
    "event": {each.value for each in Event},
    "state": {each.value for each in State},
    "priority": {str(each) for each in PRIORITIES.values()},
    "route": {each.path for each in OPERATIONS},
    "code": codes(),
    "component": {"api", "sender"},
    "sends": {"true"},
}

every_expression = pytest.mark.parametrize(
    "expression",
    [rule["expr"] for rule in RULES]
    + [TRIGGER["metadata"]["query"]]
    + [target["expr"] for panel in PANELS for target in panel["targets"]],
)


@every_expression
def test_every_expression_parses_and_asks_for_metrics_and_labels_that_there_are(expression: str) -> None:
    metrics, asked = exported(), list(selectors(expression))
    assert asked
    for each in asked:
        assert each.name in metrics, f"{each.name} is no metric of service/telemetry.py"
        assert {label for label, _, _ in each.matchers} <= metrics[each.name][1] | FOREIGN
    assert grouped(expression) <= set.union(*(metrics[each.name][1] for each in asked)) | FOREIGN


@every_expression
def test_every_value_of_a_label_is_one_that_the_service_gives_it(expression: str) -> None:
    for asked in selectors(expression):
        for label, _, value in asked.matchers:
            if label in KNOWN and not value.startswith("$"):
                assert set(value.split("|")) <= KNOWN[label], f"{asked.name}: {label} is never {value}"


@every_expression
def test_every_metric_that_is_asked_for_is_set_somewhere(expression: str) -> None:
    metrics = exported()
    code = "".join(
        each.read_text(encoding="utf-8") for each in (ROOT / "service").rglob("*.py") if each.name != "telemetry.py"
    )
    # the log's own counter is counted where the log is written
    own = (ROOT / "service/telemetry.py").read_text(encoding="utf-8")
    for asked in selectors(expression):
        attribute = metrics[asked.name][0]
        counted = re.search(rf"metrics\.{attribute}\b", code) or re.search(rf"\b_{attribute}\.inc\(", own)
        assert counted, f"{asked.name} is declared, and nothing counts it"


def test_senders_are_added_for_late_mail_that_a_relay_may_take_now() -> None:
    """A quota that is used up shuts no relay, so being open is not enough."""
    assert {each.name for each in selectors(TRIGGER["metadata"]["query"])} == {
        "postroom_queue_age_seconds",
        "postroom_relay_open",
        "postroom_relay_quota_left",
    }


def alerts_without(documents: tuple[Document, ...], *gone: str) -> set[str]:
    """The alerts on absence that fire when the pods of some workloads are not there."""
    there = [labels for name, shown in scraped(documents).items() if name not in gone for labels in shown]
    return {
        rule["alert"]
        for rule in RULES
        for asked in missed(rule["expr"])
        if not any(all(labels.get(label) == value for label, _, value in asked.matchers) for labels in there)
    }


def test_whoever_is_missing_is_missed_though_others_are_there() -> None:
    base, single = rendered("base"), rendered("overlays/single")
    assert alerts_without(base) == alerts_without(single) == set()
    assert alerts_without(base, "postroom-sender") == {"PostroomSendersAbsent"}
    assert alerts_without(base, "postroom-api") == {"PostroomAbsent"}
    assert alerts_without(single, "postroom-api") == {"PostroomAbsent", "PostroomSendersAbsent"}


def test_a_wrong_expression_and_a_wrong_name_are_seen() -> None:
    with pytest.raises(ValueError):
        parse("sum(rate(postroom_replies_total[5m])")
    assert "postroom_replies" not in exported()
    assert [each.name for each in selectors("max(a) * rate(b{c='d'}[5m]) unless b offset 1h")] == ["a", "b", "b"]


def test_probes_and_scrapes_neither_hide_failed_requests_nor_look_like_them() -> None:
    """They are nearly all that a quiet service is asked, and a pod that drains answers them with 503."""
    (rule,) = [rule for rule in RULES if rule["alert"] == "PostroomServerErrors"]
    probes = {each.path for each in OPERATIONS if each.tag == "Operation"}
    for asked in selectors(rule["expr"]):
        (without,) = [value for label, how, value in asked.matchers if (label, how) == ("route", "!~")]
        assert set(without.split("|")) == probes


def test_every_alert_says_how_bad_it_is_what_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 12
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} == set(rule["annotations"])


def test_an_alert_shows_only_labels_that_its_expression_keeps() -> None:
    for rule in RULES:
        shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert shown <= grouped(rule["expr"]), rule["alert"]


def test_the_queue_is_taken_by_its_maximum_because_every_process_reports_the_whole_of_it() -> None:
    expressions = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]
    for expression in (each for each in expressions if re.search(r"postroom_(recipients|queue_age_seconds)\b", each)):
        assert expression.startswith("max"), expression


def test_the_names_of_paths_and_commands_in_the_alerts_are_real() -> None:
    text = " ".join(word for rule in RULES for word in rule["annotations"].values())
    named = {path.rstrip(".").partition("?")[0] for path in re.findall(r"(?:GET|POST) (/[^\s;,]*)", text)}
    templates = {re.sub(r"\{[^}]+\}", "{}", each.path) for each in OPERATIONS}
    assert named
    assert {re.sub(r"\{[^}]+\}", "{}", each) for each in named} <= templates


def test_the_board_has_a_place_for_every_panel() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


def test_the_board_names_no_data_source_of_its_own() -> None:
    def sources(node: Any) -> list[Any]:
        if isinstance(node, dict):
            here = [node["datasource"]] if "datasource" in node else []
            return here + [each for value in node.values() for each in sources(value)]
        return [each for value in node for each in sources(value)] if isinstance(node, list) else []

    assert sources(BOARD)
    assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in sources(BOARD))
    names = [each["name"] for each in BOARD["templating"]["list"]]
    assert names == ["datasource", "namespace"]


def test_every_metric_that_the_service_sets_is_on_the_board_or_in_an_alert() -> None:
    """What is worth counting is worth looking at; the few that only an own question needs are named here."""
    asked = {
        exported()[each.name][0]
        for expression in [rule["expr"] for rule in RULES]
        + [target["expr"] for panel in PANELS for target in panel["targets"]]
        for each in selectors(expression)
    }
    unasked = {attribute for attribute, _ in exported().values()} - asked
    assert unasked <= {"relay_health", "relays_reloads"}
