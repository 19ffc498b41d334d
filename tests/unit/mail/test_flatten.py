"""Inheritance resolved at load gives what Jinja gives when it resolves it at every rendering."""

from typing import Any

import pytest
from jinja2 import Template as JinjaTemplate

from service.mail.flatten import flatten
from service.mail.formats import formats_for
from service.mail.meter import METER, Meter
from service.mail.sandbox import FORMATS, environment
from service.mail.template import TemplateFault, parse_files
from tests.support.template_files import STARTERS, starter_files


def both(sources: dict[str, str], file: str, variables: dict[str, Any]) -> tuple[str, str]:
    """(flattened, Jinja's own)."""
    within = environment(sources, html=True)
    flat = JinjaTemplate.from_code(within, within.compile(flatten(file, sources, within, own="html.j2"), file), {})
    variables = {**variables, METER: Meter(1, lambda: 0, 10**6)}
    return flat.render(variables), within.get_template(file).render(variables)


@pytest.mark.parametrize("name", STARTERS)
@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_the_starter_templates_come_out_as_jinja_renders_them(name: str, locale: str) -> None:
    source = parse_files(name, starter_files(name))
    each = source.locales[locale]
    file = f"{name}/html.j2" if locale == "en" else f"{name}/locales/{locale}/html.j2"
    sources = {**source.layouts, "html.j2": source.locales["en"].html, file: each.html}
    flat, own = both(sources, file, {**each.sample, FORMATS: formats_for(locale, "UTC")})
    assert flat == own
    assert len(flat) > 1000


BASE = "^{% block a %}A{% block b %}B{% endblock %}{% endblock %}|{{ self.b() }}|{% block c %}{% endblock %}$"


@pytest.mark.parametrize(
    "child",
    [
        "",
        "{% block b %}x{{ v }}{% endblock %}",
        "{% block a %}[{{ super() }}]{% endblock %}",
        "{% block a %}[{{ super() }}{{ super() }}]{% endblock %}{% block b %}({{ super() }}){% endblock %}",
        "{% block c %}{% for i in n %}{{ loop.index }}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}{% endblock %}",
        "{% block c %}{% set t = v %}{{ t }}{% endblock %}",
        "{% set t = v %}{% block c %}{{ v }}{% endblock %}",
        "{% block c %}{% filter upper %}a{{ v }}{% endfilter %}{% endblock %}",
        "{% block c %}{% if v == 'no' %}1{% elif v %}2{{ v }}{% else %}3{% endif %}{% endblock %}",
        "{% block c %}{% with w = v %}{{ w }}{% endwith %}{% endblock %}",
        "{% block c %}{{ self.a() }}{% endblock %}",
    ],
)
def test_blocks_are_filled_as_jinja_fills_them(child: str) -> None:
    sources = {"base.j2": BASE, "t.j2": '{% extends "base.j2" %}' + child}
    flat, own = both(sources, "t.j2", {"v": "<v>", "n": ["x", "y"]})
    assert flat == own


def test_three_generations_are_resolved() -> None:
    middle = '{% extends "base.j2" %}{% block b %}m{{ super() }}{% block d %}D{% endblock %}{% endblock %}'
    sources = {"base.j2": BASE, "m.j2": middle, "t.j2": '{% extends "m.j2" %}{% block d %}{{ super() }}!{% endblock %}'}
    flat, own = both(sources, "t.j2", {})
    assert flat == own == "^AmBD!|mBD!|$"


def test_what_a_block_sets_ends_with_it() -> None:
    sources = {"t.j2": "{% set x = 1 %}{% block a %}{% set x = 2 %}{{ x }}{% endblock %}{{ x }}"}
    flat, own = both(sources, "t.j2", {})
    assert flat == own == "21"


def test_text_around_a_block_becomes_one_chunk() -> None:
    sources = {"base.j2": BASE, "t.j2": '{% extends "base.j2" %}'}
    within = environment(sources, html=True)
    made = JinjaTemplate.from_code(within, within.compile(flatten("t.j2", sources, within), "t.j2"), {})
    assert list(made.generate()) == ["^AB|B|$"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{% extends "nowhere.j2" %}', "there is no layout 'nowhere.j2'"),
        ('{% extends "t.j2" %}', "t.j2 extends itself"),
        ("{% extends v %}", "extends names one file"),
        ("{% if v %}{% extends 'base.j2' %}{% endif %}", "extends names one file"),
        ("{{ self.nowhere() }}", "there is no block 'nowhere'"),
        ("{{ super() }}", "super() stands inside of a block"),
        ("{% block a %}{{ super() }}{% endblock %}", "there is no outer block 'a'"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "contains itself"),
        ("{% block a %}{% endblock %}{{ self.a()|upper }}", "stand alone"),
        ("{% block a %}{% endblock %}{% set x = self.a() %}", "stand alone"),
        ("{% block a %}{% endblock %}{% if self.a() %}x{% endif %}", "stand alone"),
        ("{% block a required %}{% endblock %}", "must be filled"),
        ("{% include 'base.j2' %}", "Include is not allowed"),
        ("{% autoescape false %}{{ v }}{% endautoescape %}", "ScopedEvalContextModifier is not allowed"),
        ("{% macro m() %}x{% endmacro %}", "Macro is not allowed"),
        ("{{ _formats }}", "the name '_formats' is not allowed"),
    ],
)
def test_what_can_not_be_resolved_is_refused_with_its_reason(text: str, why: str) -> None:
    sources = {"base.j2": BASE, "t.j2": text}
    with pytest.raises(TemplateFault) as caught:
        flatten("t.j2", sources, environment(sources, html=True))
    assert why in caught.value.why
    assert caught.value.file == "t.j2"


def test_blocks_that_multiply_one_another_are_refused() -> None:
    laughs = "".join(
        f"{{% block b{n} %}}{{{{ self.b{n + 1}() }}}}{{{{ self.b{n + 1}() }}}}{{% endblock %}}" for n in range(40)
    )
    sources = {"t.j2": laughs + "{% block b40 %}ha{% endblock %}"}
    with pytest.raises(TemplateFault, match="too large"):
        flatten("t.j2", sources, environment(sources, html=True))


def test_layouts_that_multiply_one_another_are_refused() -> None:
    sources = {"l0.j2": "{% block a %}ha{% endblock %}"}
    for n in range(1, 40):
        sources[f"l{n}.j2"] = (
            f'{{% extends "l{n - 1}.j2" %}}{{% block a %}}{{{{ super() }}}}{{{{ super() }}}}{{% endblock %}}'
        )
    with pytest.raises(TemplateFault, match="too large"):
        flatten("l39.j2", sources, environment(sources, html=True))


def test_an_endless_circle_of_layouts_is_refused() -> None:
    sources = {"a.j2": '{% extends "b.j2" %}', "b.j2": '{% extends "a.j2" %}'}
    with pytest.raises(TemplateFault, match="extends itself"):
        flatten("a.j2", sources, environment(sources, html=True))
