"""A template or its data can neither run long nor grow large, not even between two chunks."""

import itertools
import resource
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from service.errors import TemplateRenderError
from service.mail.meter import MOST_LEVELS, MOST_VALUES, too_heavy
from service.mail.render import load_template
from service.mail.sandbox import environment
from service.mail.template import TemplateFault
from tests.support.template_files import render, template_of

SIZE, TIME = "POSTROOM_MAX_RENDERED_BYTES", "POSTROOM_RENDER_TIMEOUT"
WEIGHT = "a list or a table holds more than"
LONG = list(range(1000))


def refusal(html: str, variables: dict[str, Any], seconds: float = 0.3) -> str:
    """Why the rendering was refused; a clock that goes by calls, so that no machine is too fast or too slow."""
    made = template_of("", html)
    ticks = itertools.count(0, 0.001)
    with pytest.raises(TemplateRenderError) as caught:
        made.render(variables, None, deadline=seconds, monotonic=lambda: next(ticks), max_bytes=2**20)
    return caught.value.errors[0].detail


@pytest.mark.parametrize(
    ("html", "variables", "why"),
    [
        ("{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}", {"x": LONG}, TIME),
        ("{% for a in x if false %}{% endfor %}", {"x": LONG}, TIME),
        ("{% for a in x %}{% for b in x %}{% set y = a %}{% endfor %}{% endfor %}", {"x": LONG}, TIME),
        ("{{ x|select('in', x)|list|length }}", {"x": LONG}, TIME),
        ("{{ x|rejectattr('a')|list|length }}", {"x": [{"a": 1}] * 1000}, TIME),
        ("{{ x|selectattr('a')|list|length }}", {"x": [{"a": 1}] * 1000}, TIME),
        ("{{ x|select|list|length }}{{ x|reject|list|length }}", {"x": LONG}, TIME),
        ("{% if x in y %}{% endif %}" * 500, {"x": 1, "y": LONG}, TIME),
        ("{% if x is in y %}{% endif %}" * 500, {"x": 1, "y": LONG}, TIME),
        ("{% set y = x|sort %}" * 500, {"x": LONG}, TIME),
        ("{% set y = x[:] %}" * 500, {"x": LONG}, TIME),
        ("{% set x = x ~ x %}" * 40, {"x": "ha"}, SIZE),
        ("{% set x = x + x %}" * 40, {"x": "ha"}, SIZE),
        ("{% set x = x + x %}" * 40, {"x": LONG}, WEIGHT),
        ("{% set x = [x, x] %}" * 40 + "{{ x }}", {"x": 1}, WEIGHT),
        ("{% set x = (x, x) %}" * 40 + "{{ x == x }}", {"x": 1}, WEIGHT),
        ("{% set x = {'a': x, 'b': x} %}" * 40 + "{{ x }}", {"x": 1}, WEIGHT),
        ("{% for x in [[x, x]] %}" * 8 + "{% set x = [x, x, x, x, x, x] %}" * 8 + "{% endfor %}" * 8, {"x": 1}, WEIGHT),
        ("{% with x = [x, x, x] %}" * 20 + "{% endwith %}" * 20, {"x": 1}, WEIGHT),
        ("{{ [x, x, x]|join('') }}", {"x": "a" * 500_000}, WEIGHT),
        ("{{ x|join(y) }}", {"x": LONG, "y": "y" * 10_000}, SIZE),
        ("{{ x|replace('a', y) }}", {"x": "a" * 2000, "y": "y" * 2000}, SIZE),
        ("{{ x|replace('', y) }}", {"x": "a" * 2000, "y": "y" * 2000}, SIZE),
        ("{{ x|replace('&'|e, y) }}", {"x": "&" * 2000, "y": "y" * 2000}, SIZE),
        ("{{ 'aaaaaaaaaa'" + "|replace('a', 'aaaaaaaaaa')" * 12 + " }}", {}, SIZE),
        ("{{ x" + "|list|string" * 12 + " }}", {"x": "ha"}, WEIGHT),
        ("{{ x|urlencode }}", {"x": "字" * 200_000}, SIZE),
        ("{% set y %}{% for a in x %}{% for b in x %}{{ z }}{% endfor %}{% endfor %}{% endset %}", {"x": LONG, "z": "z" * 90_000}, SIZE),
        ("{% set y %}{% for a in x %}" + "static" * 2000 + "{% endfor %}{% endset %}", {"x": LONG}, SIZE),
        ("{% set y %}" + "{{ x }}" * 30 + "{% endset %}", {"x": "x" * 90_000}, SIZE),
        ("{% filter upper %}" + "{{ x }}" * 30 + "{% endfilter %}", {"x": "x" * 90_000}, SIZE),
        ("{% filter length %}" + "{{ x }}" * 30 + "{% endfilter %}", {"x": "x" * 90_000}, SIZE),
        ("{% filter length %}{% for a in x %}" + "static" * 2000 + "{% endfor %}{% endfilter %}", {"x": LONG}, SIZE),
        ("{{ x|round(100000000, 'ceil') }}", {"x": 1.5}, "0 to 9 decimals"),
        ("{{ x|round(n) }}", {"x": 5, "n": -100_000_000}, "0 to 9 decimals"),
        ("{{ x|round(precision=n) }}", {"x": 5, "n": "2"}, "0 to 9 decimals"),
        ("{% set x = [x] %}" * 1200 + "{{ x }}", {"x": 1}, WEIGHT),
    ],
)  # fmt: skip
def test_what_would_run_long_or_grow_large_is_stopped(html: str, variables: dict[str, Any], why: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert why in refusal(html, variables)
    assert time.process_time() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    ("html", "why"),
    [
        ("{% for a in x recursive %}{{ loop(a) }}{% endfor %}", "is not allowed"),
        ("{% for a in x recursive %}{% endfor %}", "`recursive` is not allowed"),
        ("{% for a in x|slice(1000000000) %}{% endfor %}", "the filter `slice` is not allowed"),
        ("{{ x|urlize }}", "the filter `urlize` is not allowed"),
        ("{{ x|random }}", "the filter `random` is not allowed"),
        ("{{ x|_each(1) }}", "there is no filter `_each`"),
        ("{{ x is nothing }}", "there is no test `nothing`"),
        ("{{ x|select(y) }}", "needs the name of a test, as text"),
        ("{{ x|selectattr('a', y) }}", "needs the name of a test, as text"),
        ("{{ x|join(*y) }}", "`*` is not allowed"),
        ("{{ x|join(**y) }}", "`*` is not allowed"),
        ("{{ " + "(" * 3000 + "x" + ")" * 3000 + " }}", "nested too deeply"),
        ("{{ " + "not " * 20_000 + "x }}", "nested too deeply"),
        ("{{ x" + "|upper" * 3000 + " }}", "nested too deeply"),
        ("{% if x %}{% elif x %}" + "{% elif x %}" * 3000 + "{% endif %}", "is too large"),
        ("{% if x %}" * 60 + "{% endif %}" * 60, "stands too deep"),
        ("{% for a in x %}" * 10 + "{% endfor %}" * 10, "at most 8 loops"),
        ("{{ x }}" * 6000, "is too large"),
        ("x" * 300_000, "has 300000 characters; at most 262144"),
    ],
)  # fmt: skip
def test_what_no_mail_needs_is_refused_at_load_with_file_and_line(html: str, why: str) -> None:
    with pytest.raises(TemplateFault) as caught:
        template_of("", html)
    assert why in caught.value.why
    assert (caught.value.file, caught.value.line) == ("t/html.j2", 1)


def test_a_loop_that_is_too_deep_is_named_by_its_line() -> None:
    with pytest.raises(TemplateFault, match=r"t/html\.j2:9: "):
        template_of("", "{% for a in x %}\n" * 9 + "{% endfor %}" * 9)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("{% for a in x %}{{ loop.index }}/{{ loop.length }}{{ a }}{% if not loop.last %},{% endif %}{% endfor %}", "1/3a,2/3b,3/3&lt;"),
        ("{% for a in x if a != 'b' %}{{ loop.index }}{{ a }}{% endfor %}", "1a2&lt;"),
        ("{% for k, v in t|items %}{{ k }}{{ v }}{% endfor %}{% for k in t %}{{ k }}{% endfor %}", "k1k"),
        ("{% for a in [] %}{% else %}none{% endfor %}", "none"),
        ("{{ x|join(', ') }}{{ x|join('<br>') }}", "a, b, &lt;a&lt;br&gt;b&lt;br&gt;&lt;"),
        ("{{ 'a' ~ 1 ~ x[2] }}{{ ('<b>'|e) ~ x[2] }}", "a1&lt;&lt;b&gt;&lt;"),
        ("{{ n + 1 }}{{ 'a' + 'b' }}{{ [1] + [2] }}", "3ab[1, 2]"),
        ("{{ x|select('in', ['a', 'b'])|list|length }}{{ x|reject('eq', 'a')|join }}", "2b&lt;"),
        ("{{ rows|selectattr('on')|sum(attribute='n') }}{{ rows|sort(attribute='n', reverse=true)|first|length }}", "32"),
        ("{% for g in rows|groupby('on') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}", "False1True1"),
        ("{% set y %}[{% for a in x %}{{ a }}{% endfor %}]{% endset %}{{ y }}{{ y }}", "[ab&lt;][ab&lt;]"),
        ("{% filter upper %}q{{ x[0] }}{% endfilter %}", "QA"),
        ("{{ 2.345|round(1) }}{{ x|length }}{{ x|first }}{{ x|last }}{{ n|default(5) }}{{ none|default('d', true) }}", "2.33a&lt;2d"),
        ("{{ 'a b'|title }}{{ 'a,b'|replace(',', ';') }}{{ 'long words here'|truncate(9) }}", "A Ba;blong..."),
        ("{{ n is defined and m is not defined }}{{ n is divisibleby(2) }}{{ n is divisibleby(num=2) }}{{ x[:2]|join }}", "TrueTrueTrueab"),
        ("{% for a, b in [(1, n), (3, 4)] %}{{ a }}{{ b }};{% endfor %}{% set p, q = n, 5 %}{{ q }}", "12;34;5"),
    ],
)  # fmt: skip
def test_what_templates_need_comes_out_as_jinja_has_it(html: str, expected: str) -> None:
    rows = [{"n": 3, "on": True}, {"n": 1, "on": False}]
    variables = {"x": ["a", "b", "<"], "t": {"k": 1}, "n": 2, "rows": rows}
    assert render(template_of("", html), variables).html == expected


def test_what_replace_would_make_is_counted_before_the_memory_is_taken() -> None:
    tracemalloc.start()
    assert SIZE in refusal("{{ x|replace('a', y) }}", {"x": "a" * 100_000, "y": "y" * 1000})  # 100 MB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("html", "variables", "why"),
    [
        ("{{ x|truncate(n) }}", {"x": "long words here", "n": 1}, "a length that leaves room for its end"),
        ("{{ x|truncate(n) }}", {"x": "long words here", "n": "9"}, "a length that leaves room for its end"),
        ("{{ x|truncate(9, true, n) }}", {"x": "long words here", "n": 5}, "a length that leaves room for its end"),
        ("{{ x|truncate(9, leeway=n) }}", {"x": "long words here", "n": -1}, "a length that leaves room for its end"),
        ("{{ x|truncate(9) }}", {"x": ["canary"] * 20}, "AttributeError in an expression"),
        ("{{ x|dictsort }}", {"x": "canary"}, "dictsort takes a table"),
        ("{{ x|dictsort }}", {}, "'x' is undefined"),
        ("{{ x|dictsort(by=n) }}", {"x": {"a": 1}, "n": "canary"}, "You can only sort by"),
        ("{{ x|groupby('a') }}", {"x": "canary"}, ""),
        ("{{ x|sum }}", {"x": "canary"}, ""),
        ("{{ x|sort }}", {"x": ["canary", 1]}, ""),
        ("{{ x|int + n }}", {"x": "9" * 4300, "n": 10**4299}, ""),
        ("{{ x }}", {"x": "\ud800"}, "half of a character"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_a_refusal_that_shows_no_value(html: str, variables: dict[str, Any], why: str) -> None:
    detail = refusal(html, variables, 9)
    assert why in detail
    assert "canary" not in detail


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n{{ " + "9" * 5000 + " }}", "a number that is too long"),
        ("\n{{ 0x" + "f" * 5000 + " }}", "t/html.j2:2: holds a number that is too long"),
        ("\n{{ '\\ud800' }}", "t/html.j2:2: holds half of a character"),
        ("\n{{ x|default('\\udfff') }}", "t/html.j2:2: holds half of a character"),
        ("\n\ud800", "t/html.j2:2: holds half of a character"),
    ],
)
def test_what_can_not_be_read_is_a_fault_and_no_error(text: str, why: str) -> None:
    files = {"template.toml": 'subject = "s"', "html.j2": text}
    with pytest.raises(TemplateFault) as caught:
        load_template("t", files)
    assert why in str(caught.value)


def test_what_nobody_thought_of_is_a_fault_that_names_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("canary")

    monkeypatch.setattr("service.mail.render.flatten", broken)
    with pytest.raises(TemplateFault, match=r"^t:1: can't be compiled: KeyError$"):
        load_template("t", {"template.toml": 'subject = "s"', "html.j2": "x"})


def test_what_stands_twice_in_a_list_is_counted_twice() -> None:
    one = ["x"] * 999
    assert not too_heavy([one] * 49, 10**6)
    assert too_heavy([one] * 51, 10**6)
    assert too_heavy({"a": "x" * 1001}, 1000)
    assert too_heavy({"x" * 1001: 1}, 1000)
    assert too_heavy(list(range(MOST_VALUES + 1)), 1)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
def test_lists_in_lists_are_too_heavy_beyond_a_level_that_every_python_can_write(wrap: Callable[[Any], Any]) -> None:
    value: Any = "x"
    for _ in range(MOST_LEVELS - 1):
        value = wrap(value)
    assert not too_heavy(value, 10**6)
    assert str(value).count("x") == 1
    assert too_heavy(wrap(value), 10**6)


def test_larger_variables_than_any_mail_has_are_refused_before_they_are_looked_at() -> None:
    made = template_of("[variables]\ntype = 'object'", "x")
    assert made.check({"x": list(range(40_000))}) == []
    for variables in ({"x": list(range(60_000))}, {"x": "y" * 2_000_000}):
        assert [each.code for each in made.check(variables)] == ["variables_too_large"]


def test_a_thousand_misspelt_names_are_told_without_looking_for_the_nearest_of_each() -> None:
    began = time.process_time()
    problems = template_of("[variables]\nsome_name = 'string'", "x").check({f"some_nam{n}": 1 for n in range(12_000)})
    assert len(problems) == 1000
    assert time.process_time() - began < 2


def test_a_schema_with_refs_tells_what_is_wrong_deep_inside_and_no_value() -> None:
    head = """[variables]
    type = "object"
    properties.tree = { "$ref" = "#/$defs/node" }
    ["variables"."$defs".node]
    type = "object"
    required = ["name"]
    additionalProperties = false
    properties.name = { "$ref" = "#/$defs/name" }
    properties.children = { type = "array", items = { "$ref" = "#/$defs/leaf" } }
    ["variables"."$defs".leaf]
    type = "object"
    properties.name = { "$ref" = "#/$defs/name" }
    properties.children = { type = "array", items = { type = "object" } }
    ["variables"."$defs".name]
    type = "string"
    pattern = "^[a-z]+$"
    """
    node = {"nmae": "canary-1", "children": [{"name": "canary-2", "children": [5]}]}
    problems = template_of(head, "x").check({"tree": node}, "/v")
    assert {each.pointer for each in problems} == {"#/v/tree/name", "#/v/tree/nmae", "#/v/tree/children/0/name", "#/v/tree/children/0/children/0"}  # fmt: skip
    assert "canary" not in str(problems)


def test_filters_and_tests_are_made_once_for_all_templates() -> None:
    """They are most of what a compiled template would hold, and a thousand are kept."""
    one, other = environment({}, html=True), environment({}, html=False)
    assert one.filters is other.filters
    assert one.tests is other.tests
