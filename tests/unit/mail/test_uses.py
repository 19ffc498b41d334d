"""Which variables a template's sources use: none is missed, none is made up."""

import pytest

from service.mail.uses import lint_sources
from tests.support.template_files import template_of

HEAD = """
[variables]
name = "string"
order = { number = "string", lines = [{ title = "string", tags = ["string"] }] }
note = "string?"
"""
USED = "{{ name }}{{ order.number }}"


def found(html: str, head: str = HEAD, **files: str) -> list[tuple[str, str]]:
    given = {"text.j2": "text", **files}
    return [(each.rule, each.detail) for each in lint_sources(template_of(head, html, **given).source)]


@pytest.mark.parametrize(
    "html",
    [
        "{% for line in order.lines %}{{ line.title }}{% for tag in line.tags %}{{ tag }}{{ loop.index }}{% endfor %}{% endfor %}",
        "{{ order.lines[0].title }}{{ order['number'] }}{{ order.lines|length }}",
        "{% if note is defined %}{{ note }}{% endif %}",
        "{% set x = name %}{{ x }}{% set y %}{{ name }}{% endset %}{{ y }}",
        "{% if name %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}",
        "{% with w = name, v = 1 %}{{ w }}{{ v }}{% endwith %}",
        "{% with name = name|upper %}{{ name }}{% endwith %}",
        "{% for k, v in order|items %}{{ k }}{{ v }}{% endfor %}",
        "{% for line in order.lines|sort(attribute='title') %}{{ line.anything }}{% endfor %}",
        "{% for line in order.lines if line.title %}{{ line.title }}{% else %}{{ name }}{% endfor %}",
        "{% filter upper %}{{ name }}{% endfilter %}{{ true }}{{ none }}{{ 'text' }}",
        "{% block b %}{{ name }}{% endblock %}{{ self.b() }}",
    ],
)
def test_what_is_declared_is_silent(html: str) -> None:
    assert found(html + USED) == []


@pytest.mark.parametrize(
    ("html", "path"),
    [
        ("{{ nmae }}", "nmae"),
        ("{{ order.nmuber }}", "order.nmuber"),
        ("{{ order['nmuber']|upper }}", "order.nmuber"),
        ("{% for line in order.lines %}{{ line.titel }}{% endfor %}", "order.lines[].titel"),
        ("{% for line in order.lines %}{% for t in line.tgas %}{% endfor %}{% endfor %}", "order.lines[].tgas"),
        ("{{ order.lines[0].titel }}", "order.lines[].titel"),
        ("{% for line in lines %}{% endfor %}", "lines"),
        ("{% for line in order.lines %}{% endfor %}{{ line }}", "line"),
        ("{% for line in order.lines %}{% set z = 1 %}{% endfor %}{{ z }}", "z"),
        ("{% with w = 1 %}{% endwith %}{{ w }}", "w"),
        ("{% if nope is defined %}{% endif %}", "nope"),
        ("{{ name|default(nope) }}", "nope"),
        ("{{ name ~ nope }}", "nope"),
        ("{{ order[nope] }}", "nope"),
        ("{% set x = nope %}", "nope"),
        ("{% block b %}{{ nope }}{% endblock %}", "nope"),
        ("<a href='{{ nope|url }}'>", "nope"),
    ],
)
def test_what_is_not_declared_is_named_by_its_path(html: str, path: str) -> None:
    assert found(html + USED) == [("undefined-variable", f"{path} is not declared in [variables]")]


def test_each_source_is_looked_through_and_named_with_its_line() -> None:
    files = {
        "text.j2": "\n{{ b }}",
        "locales/zh-CN/template.toml": "subject = '{{ c }}'",
        "locales/zh-CN/html.j2": "\n\n{{ d }}",
        "_layouts/x.j2": "{{ e }}{% block b %}{% endblock %}",
    }
    made = template_of("[variables]", "{% extends '_layouts/x.j2' %}{% block b %}\n{{ a }}{% endblock %}", **files)
    places = [(each.file, each.line) for each in lint_sources(made.source) if each.rule == "undefined-variable"]
    assert places == [
        ("t/html.j2", 2),
        ("t/text.j2", 2),
        ("t/locales/zh-CN/template.toml", 1),
        ("t/locales/zh-CN/html.j2", 3),
        ("_layouts/x.j2", 1),
    ]


def test_a_required_variable_that_is_used_nowhere_is_named_and_an_optional_one_is_not() -> None:
    assert found("{{ order.number }}") == [("unused-variable", "name is required and used nowhere")]


def test_a_schema_that_allows_other_names_is_believed() -> None:
    head = "[variables]\ntype = 'object'\nadditionalProperties = {0}\n[variables.properties.a]\n"
    assert found("{{ a }}{{ b }}", head.format("true")) == []
    assert found("{{ a }}{{ b }}", head.format("false")) == [("undefined-variable", "b is not declared in [variables]")]
    ref = "[variables]\ntype='object'\nproperties.t = { '$ref' = '#/$defs/x' }\n[variables.'$defs'.x]\ntype='object'"
    assert found("{{ t.anything.at.all }}", ref) == []


def test_a_language_without_a_text_part_is_named() -> None:
    made = template_of("", "x", **{"locales/zh-CN/template.toml": "subject = 's'", "locales/zh-CN/html.j2": "x"})
    assert [each.file for each in lint_sources(made.source)] == ["t/text.j2", "t/locales/zh-CN/text.j2"]


def test_the_source_of_mjml_is_named_as_the_author_wrote_it() -> None:
    mjml = (
        "<mjml><mj-body><mj-section><mj-column><mj-text>{{ nope }}</mj-text></mj-column></mj-section></mj-body></mjml>"
    )
    made = template_of("[variables]", None, **{"html.mjml": mjml, "text.j2": "x"})
    assert [each.file for each in lint_sources(made.source)] == ["t/html.mjml"]
