"""Reads the rows of the reply policy: those of policy.toml, and the user's own before them.

A row is checked strictly, key by key; each fault is a ConfigurationError that names the row and the key. What rows mean
is mail/outcome.py's; this file only turns data into them, once, at the start.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from service.errors import ConfigurationError
from service.mail.lifecycle import Event
from service.mail.outcome import Action, Lesson, Phase, Policy, Rule, Scope, Verdict, doubling
from service.relay import rule_values as value
from service.relay.presets import load_presets

_RESTS = (Action.RATE, Action.AUTH, Action.CONFIG, Action.QUOTA)
_SCOPES: dict[Action, frozenset[Scope]] = {
    **dict.fromkeys(_RESTS, frozenset({Scope.RELAY})),
    **dict.fromkeys((Action.PERM, Action.TEMP, Action.FAILED), frozenset({Scope.RECIPIENT, Scope.MESSAGE})),
    Action.RECONN: frozenset({Scope.CONNECTION}),
    Action.SPLIT: frozenset({Scope.MESSAGE}),
    Action.ELSEWHERE: frozenset({Scope.MESSAGE}),
}
_EVENTS = {Action.PERM: Event.REFUSED, Action.FAILED: Event.FAULT}


_PHASES = [each.value for each in Phase]
_KEYS: dict[str, Callable[[object], Any]] = {
    "name": value.name,
    "class": value.name,
    "why": value.text,
    "phases": value.several_of(lambda: _PHASES),
    "codes": value.codes,
    "enhanced": value.enhanced,
    "text": value.regex,
    "unless": value.regex,
    "presets": value.several_of(lambda: list(load_presets())),
    "scope": value.one_of([each.value for each in Scope if each is not Scope.NONE]),
    "action": value.one_of([each.value for each in _SCOPES]),
    "wait": value.seconds,
    "told_wait": value.seconds,
    "times": value.count,
    "then": value.one_of([Action.PERM.value, Action.AUTH.value, Action.FAILED.value]),
    "at_expiry": value.one_of([Action.PERM.value]),
    "pause": value.pauses,
    "pause_max": value.seconds,
    "learn": value.one_of([each.value for each in Lesson]),
    "suppress": value.flag,
    "alert": value.alert,
}
_NEEDED = ("name", "scope", "action")


def parse_rules(tables: object, where: str) -> tuple[Rule, ...]:
    """The rows of a list of tables, in order. Raises ConfigurationError, which begins with `where`."""
    if not isinstance(tables, list) or not all(isinstance(each, Mapping) for each in tables):
        raise ConfigurationError(f"{where}: rules: must be tables: [[rules]]")
    return tuple(_rule(table, f"{where}: rule {number}", where) for number, table in enumerate(tables, 1))


def _rule(table: Mapping[str, Any], row: str, where: str) -> Rule:
    row = f"{row} ({table.get('name', 'without a name')})"
    if unknown := sorted(set(table) - set(_KEYS)):
        raise ConfigurationError(f"{row}: unknown key {', '.join(unknown)}; known are {', '.join(_KEYS)}")
    if missing := [key for key in _NEEDED if key not in table]:
        raise ConfigurationError(f"{row}: needs `{missing[0]}`")
    values: dict[str, Any] = {}
    for key, given in table.items():
        try:
            values[key] = _KEYS[key](given)
        except value.Refused as refused:
            raise ConfigurationError(f"{row}: {key}: {refused}") from None
    for key, refusal in _contradictions(values):
        raise ConfigurationError(f"{row}: {key}: {refusal}")
    return Rule(
        name=values["name"],
        verdict=_verdict(values),
        phases=frozenset(Phase(each) for each in values.get("phases", ())),
        codes=values.get("codes", frozenset()),
        enhanced=values.get("enhanced"),
        text=values.get("text"),
        unless=values.get("unless"),
        presets=values.get("presets", frozenset()),
        why=values.get("why", ""),
    )


def _contradictions(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What does not fit together, as (key, sentence)."""
    action, scope, given = Action(values["action"]), Scope(values["scope"]), set(values)
    rests = action in _RESTS or values.get("then") == Action.AUTH
    only_rcpt = values.get("phases") == {Phase.RCPT.value} and bool(given & {"enhanced", "text"})
    refusals = {code // 100 for code in values.get("codes", ())} == {5}
    temporary = action is Action.TEMP
    found = [
        (not given & {"codes", "enhanced", "text"}, "codes", "one of codes, enhanced and text must be given"),
        (scope not in _SCOPES[action], "scope", f"{action} is for {' or '.join(sorted(_SCOPES[action]))}"),
        (rests and "pause" not in given, "pause", f"{action} needs it"),
        (not rests and "pause" in given, "pause", f"has no meaning with {action}"),
        ("pause_max" in given and "pause" not in given, "pause_max", "needs `pause`"),
        ("wait" in given and action not in (Action.TEMP, Action.RECONN), "wait", f"has no meaning with {action}"),
        ("told_wait" in given and not temporary, "told_wait", "needs TEMP"),
        ("times" in given and not (temporary and "then" in given), "times", "needs TEMP and `then`"),
        (temporary and "then" in given and "times" not in given, "then", "needs `times`"),
        (action is Action.ELSEWHERE and "then" not in given, "then", "ELSEWHERE needs it"),
        ("then" in given and values["then"] not in _THEN.get(action, ()), "then", f"has no meaning with {action}"),
        ("at_expiry" in given and not temporary, "at_expiry", "needs TEMP"),
        (
            values.get("suppress", False) and not (action is Action.PERM and only_rcpt and refusals),
            "suppress",
            'needs PERM, phases = ["rcpt"], 5yz codes, and words or an enhanced code that tell of the address',
        ),
        (values.get("suppress", False) and scope is not Scope.RECIPIENT, "suppress", "needs scope recipient"),
    ]
    return [(key, sentence) for wrong, key, sentence in found if wrong]


_THEN = {
    Action.TEMP: (Action.PERM.value,),
    Action.RECONN: (Action.AUTH.value,),
    Action.ELSEWHERE: (Action.PERM.value, Action.FAILED.value),
}


def _verdict(values: Mapping[str, Any]) -> Verdict:
    action = Action(values["action"])
    pauses: tuple[float, ...] = values.get("pause", ())
    if "pause_max" in values:
        pauses = (*pauses[:-1], *doubling(pauses[-1], values["pause_max"]))
    return Verdict(
        event=_EVENTS.get(action, Event.DEFER),
        scope=Scope(values["scope"]),
        kind=values.get("class", values["name"]),
        action=action,
        # who is not at fault pays nothing; fewer recipients at once are no failure
        charged=action in (Action.PERM, Action.TEMP, Action.FAILED),
        wait=values.get("wait", 0.0),
        told_wait=values.get("told_wait", 0.0),
        times=values.get("times"),
        then=Action(values["then"]) if "then" in values else None,
        at_expiry="at_expiry" in values,
        pauses=pauses,
        probe=action in (Action.AUTH, Action.CONFIG),
        learn=Lesson(values["learn"]) if "learn" in values else None,
        suppress=values.get("suppress", False),
        alert=values.get("alert", 0),
    )


@cache
def rule_tables() -> Sequence[Mapping[str, Any]]:
    """The rows of policy.toml as they stand there."""
    tables: list[dict[str, Any]] = tomllib.loads(
        files("service.relay").joinpath("policy.toml").read_text(encoding="utf-8")
    )["rules"]
    return tables


@cache
def builtin_rules() -> tuple[Rule, ...]:
    """The rows of policy.toml."""
    return parse_rules(list(rule_tables()), "policy.toml")


def policy_for(preset: str, own: Sequence[Rule] = ()) -> Policy:
    """The policy of a relay: its user's rows, then ours, without those of other presets. Relays with the same share it."""
    return _policy_for(preset, tuple(own))


@lru_cache(maxsize=256)  # what many relays and each reload would make anew costs milliseconds each
def _policy_for(preset: str, own: tuple[Rule, ...]) -> Policy:
    return Policy(rule for rule in (*own, *builtin_rules()) if not rule.presets or preset in rule.presets)
