"""Rows of the reply policy: each key checked, each fault a sentence with row and key, one's own rows first."""

import re
from pathlib import Path
from typing import Any

import pytest

from service.errors import ConfigurationError
from service.mail.lifecycle import Event
from service.mail.outcome import UNTIL_RESET, Action, Phase, Scope, judge_reply
from service.mail.reply import make_reply
from service.relay.config import load_relays, relay_from
from service.relay.policy import builtin_rules, parse_rules, policy_for, rule_tables
from service.settings import load

GOOD: dict[str, Any] = {"name": "mine", "codes": ["450"], "scope": "relay", "action": "RATE", "pause": ["5m"]}


def test_the_rows_of_policy_toml_can_be_read_and_each_tells_why() -> None:
    assert len({rule.name for rule in builtin_rules()}) == len(builtin_rules()) >= 29
    assert all(table["why"] for table in rule_tables())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"colour": 1}, r"rule 1 \(mine\): unknown key colour; known are name"),
        ({"name": None}, r"rule 1 \(without a name\): needs `name`"),
        ({"action": None}, r"\(mine\): needs `action`"),
        ({"name": "Not a name"}, "name: must be made of lower-case letters"),
        ({"action": "PANIC"}, "action: 'PANIC' is none of RATE, AUTH"),
        ({"action": "SENT"}, "action: 'SENT' is none of"),
        ({"scope": "world"}, "scope: 'world' is none of recipient"),
        ({"scope": "message"}, "scope: RATE is for relay"),
        ({"text": "("}, "text: is no regular expression"),
        ({"text": "5.7.1"}, r"text: a dot stands for any character: write \\\."),
        ({"unless": "a.b"}, "unless: a dot stands"),
        ({"text": 5}, "text: must be a string"),
        ({"codes": "450"}, "codes: must be a list of strings"),
        ({"codes": []}, "codes: must be a list of strings"),
        ({"codes": ["45"]}, "codes: '45' is no reply code"),
        ({"codes": ["4z0"]}, "codes: '4z0' is no reply code"),
        ({"codes": ["354"]}, "codes: '354' is no reply code"),
        ({"enhanced": ["5.1"]}, "enhanced: '5.1' is no enhanced code"),
        ({"phases": ["lunch"]}, "phases: 'lunch' is none of connect"),
        ({"presets": ["aol"]}, "presets: 'aol' is none of 163"),
        ({"pause": ["soon"]}, "pause: must be a duration"),
        ({"pause": ["0s"]}, "pause: must be longer"),
        ({"pause": None}, "pause: RATE needs it"),
        ({"wait": "5m"}, "wait: has no meaning with RATE"),
        ({"alert": "yes"}, "alert: must be a whole number"),
        ({"learn": "manners"}, "learn: 'manners' is none of"),
        ({"suppress": True}, "suppress: needs PERM"),
        ({"suppress": 1}, "suppress: must be true or false"),
        ({"at_expiry": "PERM"}, "at_expiry: needs TEMP"),
        ({"codes": None}, "codes: one of codes, enhanced and text must be given"),
        ({"action": "PERM", "scope": "message"}, "pause: has no meaning with PERM"),
        ({"action": "TEMP", "scope": "message", "pause": None, "times": 3}, "times: needs TEMP and `then`"),
        ({"action": "TEMP", "scope": "message", "pause": None, "then": "PERM"}, "then: needs `times`"),
        ({"action": "RECONN", "scope": "connection", "then": "AUTH", "pause": None}, "pause: RECONN needs it"),
        (
            {"action": "RECONN", "scope": "connection", "then": "PERM", "pause": None},
            "then: has no meaning with RECONN",
        ),
        ({"told_wait": "5m"}, "told_wait: needs TEMP"),
        ({"action": "ELSEWHERE", "scope": "message", "pause": None}, "then: ELSEWHERE needs it"),
        ({"action": "ELSEWHERE", "scope": "relay", "pause": None, "then": "PERM"}, "scope: ELSEWHERE is for message"),
        ({"action": "ELSEWHERE", "scope": "message", "then": "AUTH"}, "then: has no meaning with ELSEWHERE"),
        (
            {"action": "TEMP", "scope": "message", "pause": None, "times": 1, "then": "FAILED"},
            "then: has no meaning with TEMP",
        ),
        ({"pause_max": "1h", "pause": None, "action": "PERM", "scope": "message"}, "pause_max: needs `pause`"),
        (
            {"action": "PERM", "scope": "recipient", "pause": None, "suppress": True, "phases": ["rcpt"]},
            "suppress: needs PERM",
        ),
    ],
)
def test_a_bad_row_is_refused_by_row_and_key(change: dict[str, Any], sentence: str) -> None:
    table = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ConfigurationError, match=sentence):
        parse_rules([table], "test")


@pytest.mark.parametrize("tables", [{"name": "mine"}, "x", ["x"]])
def test_rules_are_tables(tables: object) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("must be tables: [[rules]]")):
        parse_rules(tables, "test")


def test_patterns_of_codes_and_steps_of_pauses_are_worked_out_at_load() -> None:
    (rule,) = parse_rules(
        [{**GOOD, "codes": ["55z", "421"], "enhanced": ["5.6.*", "*.2.2", ""], "pause": ["5m", "20m"], "pause_max": "1h"}], "test"
    )  # fmt: skip
    assert rule.codes == {421, *range(550, 560)}
    assert rule.enhanced is not None
    found = [code for code in ("5.6.0", "5.6.12", "4.2.2", "", "5.16.1", "5x6x1") if rule.enhanced.fullmatch(code)]
    assert found == ["5.6.0", "5.6.12", "4.2.2", ""]
    assert rule.verdict.pauses == (300, 1200, 2400, 3600)
    (rule,) = parse_rules([{**GOOD, "action": "QUOTA", "pause": ["5m", "reset"]}], "test")
    assert rule.verdict.pauses == (300, UNTIL_RESET)


def test_the_steps_are_those_of_the_providers() -> None:
    pauses = {rule.name: rule.verdict.pauses for rule in builtin_rules()}
    assert pauses["rate-frequency"] == (300, 3600, UNTIL_RESET), "QQ: minute, hour, day"
    assert (pauses["rate-ses"][0], pauses["rate-ses"][-1]) == (1, 600)
    assert pauses["rate-netease-count"][0] == 900
    assert pauses["auth-throttle"][0] >= 1800
    assert pauses["auth-refused"] == pauses["auth-lost"] == (60, 600, 1200, 1800)


FILE = """
[[rules]]
name = "house-style"
codes = ["550"]
text = "not on tuesdays"
scope = "message"
action = "TEMP"
wait = "24h"

[relays.own]
url = "smtps://u:p@mail.example.com"

[[relays.own.rules]]
name = "own-first"
codes = ["550"]
text = "not on tuesdays, closed"
scope = "relay"
action = "RATE"
pause = ["1h"]

[relays.other]
url = "smtps://u:p@mail.example.net"
timezone = "Europe/Berlin"
"""


def test_ones_own_rows_stand_in_front_for_all_relays_or_for_one(tmp_path: Path) -> None:
    file = tmp_path / "relays.toml"
    file.write_text(FILE)
    own, other = load_relays(load(relays_file=file))
    reply = make_reply(550, ["Not on Tuesdays, closed"])
    assert judge_reply(own.policy, Phase.DOT, reply).kind == "own-first"
    assert judge_reply(other.policy, Phase.DOT, reply).kind == "house-style"
    assert judge_reply(policy_for(""), Phase.DOT, reply).kind == "permanent"
    assert other.timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rules]]\nname='a'\n", r"relays\.toml: rule 1 \(a\): needs `scope`"),
        ("[[relays.r.rules]]\nname='a'\n", r"relays\.r: rule 1 \(a\): needs `scope`"),
        ("[rules]\nname='a'\n", "rules: must be tables"),
        ("[more]\n", r"perhaps \[\[rules\]\], and only these"),
        ("[relays.r.timezone]\n", "timezone"),
    ],
)
def test_a_fault_in_ones_own_rows_stops_the_start(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "relays.toml").write_text(f"[relays.r]\nurl='smtps://h.example'\n{text}")
    with pytest.raises(ConfigurationError, match=words):
        load_relays(load(relays_file=tmp_path / "relays.toml"))


def test_the_example_of_the_docs_can_be_loaded(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "relays.md").read_text(encoding="utf-8")
    (example,) = [found for found in re.findall(r"```toml\n(.*?)```", page, re.S) if "[[rules]]" in found]
    (tmp_path / "relays.toml").write_text(f"{example}\n[relays.netease]\nurl='smtps://u:p@smtp.163.com'\n")
    (config,) = load_relays(load(relays_file=tmp_path / "relays.toml"))
    assert [rule.name for rule in config.policy.rules[:2]] == ["slow-mailboxes", "nightly-maintenance"]


def test_the_rules_of_a_relay_are_no_option_of_its_url() -> None:
    with pytest.raises(ConfigurationError, match="unknown option rules"):
        relay_from("r", {"url": "smtps://h.example?rules=x"}, "test")


def test_ones_own_row_can_not_blame_a_message_before_mail() -> None:
    (rule,) = parse_rules([{"name": "a", "codes": ["5yz"], "scope": "message", "action": "PERM"}], "test")
    verdict = judge_reply(policy_for("", [rule]), Phase.AUTH, make_reply(535, ["no"]))
    assert (verdict.event, verdict.scope, verdict.action) == (Event.NOT_STARTED, Scope.RELAY, Action.AUTH)
