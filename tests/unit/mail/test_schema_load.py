"""A schema can not cost more than its text lets one expect."""

import time
import tracemalloc
from typing import Any

import pytest

from service.mail.schema_load import MOST_RULES, cost_of, loads_of
from service.mail.variables import Variables, expand_schema


def doubling(levels: int, last: dict[str, Any], keyword: str = "anyOf") -> dict[str, Any]:
    steps = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/d0"}},
        "$defs": steps | {f"d{levels}": last},
    }


def ref(to: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": {"$ref": to}}, "$defs": {"a": {"type": "string"}}}


def below(inner: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": inner}}


CHAIN = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(5000)} | {"d5000": {}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (doubling(22, {"not": {}}), "rules would meet one value"),
        (doubling(22, {"not": {}}, "allOf"), "rules would meet one value"),
        (doubling(22, {"not": {}}, "oneOf"), "rules would meet one value"),
        (below({"enum": list(range(MOST_RULES))}), "rules would meet one value"),
        (below({"allOf": [{"minimum": 1}] * (MOST_RULES + 1)}), "rules would meet one value"),
        (below({"items": {"allOf": [{"items": {"minimum": 1}}] * (MOST_RULES + 1)}}), "rules would meet one value"),
        (ref("#"), "leads back to itself"),
        (below({"$ref": "#/properties/x"}), "leads back to itself"),
        ({"type": "object", "$defs": CHAIN}, "nested too deeply"),
        ({"type": "object", "$defs": dict(reversed(CHAIN.items()))}, "nested too deeply"),
        (ref("#/$defs/nowhere"), "leads nowhere"),
        (ref("#/type"), "leads to no schema"),
        (ref("#a"), "is not allowed"),
        (ref("https://json-schema.org/draft/2020-12/schema"), "is not allowed"),
        (below({"$dynamicRef": "#a"}), r"\$dynamicRef is not allowed"),
        (below({"$anchor": "a"}), r"\$anchor is not allowed"),
        (below({"$id": "https://x.example/", "type": "string"}), "stand outermost"),
        ({"type": "object", "$defs": {"a": {"$id": "https://x.example/"}}}, "stand outermost"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "the draft is 2020-12"),
        (below({"type": "string", "format": "regex"}), "the format regex"),
        (below({"pattern": "^(?=a)"}), "is not a"),
        (below({"pattern": "(a{1000}){1000}"}), "is not a"),
    ],
)
def test_what_could_cost_too_much_is_refused_at_load(schema: dict[str, Any], why: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=why):
        Variables(schema)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "schema",
    [
        ref("#/$defs/a"),
        ref("#/%24defs/a"),
        doubling(3, {"type": "string"}),
        below({"oneOf": [{"const": n, "title": "t" * n} for n in range(250)]}),
        {"type": "object", "properties": {f"x{n}": {"type": "string", "maxLength": n} for n in range(2000)}},
        below({"type": "object", "properties": {"$id": {"type": "string"}, "$ref": {"type": "string"}}}),
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://x.example/", "type": "object"},
        below({"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [{"type": "string"}, True]}]}),
        {"type": "object", "unevaluatedProperties": False, "allOf": [{"properties": {"x": True}}]},
        {"type": "object", "dependentSchemas": {"x": {"required": ["y"]}}, "if": {"required": ["y"]}, "then": {}},
    ],
)
def test_what_people_write_is_taken(schema: dict[str, Any]) -> None:
    assert Variables(schema).problems({"y": 1, "x": "a"}, "") is not None


def test_loads_are_counted_level_by_level() -> None:
    assert loads_of(expand_schema({"a": "string", "b": [{"c": "integer"}]})) == [6, 4, 5, 2]
    cost = cost_of([6, 4, 5, 2], {"a": "x" * 640, "b": [{"c": 1}, {"c": 2}]})
    assert (cost.errors, cost.copied) == (6 + 4 * 2 + 5 * 2 + 2 * 2, 6 * 17 + 4 * 16 + 5 * 4 + 2 * 2)


@pytest.mark.parametrize("keyword", ["allOf", "anyOf"])
def test_however_many_faults_there_are_few_are_made_and_one_answer_is_given(keyword: str) -> None:
    schema = below({"items": {keyword: [{"minimum": 60_000 + n} for n in range(200)]}})
    made = Variables(schema)
    tracemalloc.start()
    began = time.process_time()
    (problem,) = made.problems({"x": list(range(40_000))}, "/v")
    assert time.process_time() - began < 2
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert (problem.pointer, problem.code) == ("#/v", "invalid_variable")
    assert "too many to say where" in problem.detail


def test_of_many_faults_the_first_is_told_by_its_place() -> None:
    made = Variables(below({"items": {"allOf": [{"minimum": 60_000 + n} for n in range(10)]}}))
    (problem,) = made.problems({"x": list(range(40_000))}, "/v")
    assert problem.pointer == "#/v/x/0"


def test_a_thousand_lines_that_are_all_wrong_are_told_one_by_one() -> None:
    made = Variables(expand_schema({"lines": [{"title": "string", "price": "amount"}]}))
    problems = made.problems({"lines": [{"title": "x", "price": "1,5"}] * 900}, "")
    assert len(problems) == 900


def test_many_rules_read_less_text() -> None:
    made = Variables(below({"allOf": [{"pattern": f"^[01]*1[01]{{20}}[2-9]{n}$"} for n in range(900)]}))
    began = time.process_time()
    (problem,) = made.problems({"x": "01" * 500_000}, "")
    assert problem.code == "variables_too_large"
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://x.example/a?b=c#d", True),
        ("https://user:secret@x.example", True),
        ("mailto:a@b.example", True),
        ("tel:+49123", True),
        ("http://localhost:8000/x", True),
        ("http://127.0.0.1/x", True),
        ("http://[::1]", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("http://x.example/", False),
        ("http://localhost.evil.example/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("https:evil.example", False),
        ("https:///evil.example", False),
        ("https:", False),
        ("mailto:", False),
        ("tel:", False),
        ("ftp://x.example", False),
        ("//x.example", False),
        ("x", False),
    ],
)
def test_the_kind_url_is_a_link_that_a_mail_may_hold(url: str, good: bool) -> None:
    problems = Variables(expand_schema({"x": "url"})).problems({"x": url}, "")
    assert (problems == []) is good
