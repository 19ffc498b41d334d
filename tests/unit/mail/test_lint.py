"""Every rule of the lint speaks up for a bad example and is silent about a good one."""

import base64
import time

import pytest

from service.errors import TemplateRenderError
from service.mail.lint import CLIPPED_FROM, RULES, Finding, lint_html, lint_message, lint_subject
from service.mail.render import Rendered, Template, compile_template
from service.mail.template import TemplateFault, parse_files
from service.spool.check import check_template, fault_finding
from service.spool.scaffold import scaffold
from tests.support.template_files import STARTERS, render, starter_files

DOCUMENT = '<html lang="en"><head><title>T</title></head><body>{}</body></html>'
IMAGE = "data:image/png;base64," + base64.b64encode(b"x").decode()

# rule -> (bad, good); html, unless the rule is about the subject or the template
BY_HTML: dict[str, tuple[str, str]] = {
    "size-over-102-kb": ("<p>" + "x" * CLIPPED_FROM + "</p>", "<p>" + "x" * (CLIPPED_FROM - 7) + "</p>"),
    "unclosed-tag": ("<div><b>x</div>", "<div><b>x</b><p>y<br><ul><li>z</ul></div>"),
    "stray-end-tag": ("x</div>", "<div>x</div></p>"),
    "missing-alt": ('<img src="https://x.example/a.png">', '<img src="https://x.example/a.png" alt="">'),
    "image-by-http": ('<img alt="a" src="HTTP://x.example/a.png">', '<img alt="a" src="https://x.example/a.png">'),
    "link-without-https": ('<a href="http://x.example/">x</a>', '<a href="https://x.example/">x</a>'),
    "empty-link": ('<a href="#">x</a>', '<a href="mailto:a@x.example">x</a><a name="n"></a><a href="#n">y</a>'),
    "relative-url": ('<a href="/x">x</a>', '<a href="tel:+49123">x</a>'),
    "data-image": (f'<img alt="a" src="{IMAGE}">', '<img alt="a" src="https://x.example/a.png">'),
    "active-element": ("<script>x</script>", "<p>script</p>"),
    "external-stylesheet": ('<link rel="stylesheet" href="https://x.example/a.css">', "<style>a{}</style>"),
    "missing-lang": ("<html><head><title>T</title></head></html>", DOCUMENT),
    "missing-title": ('<html lang="en"><head><title> </title></head></html>', DOCUMENT),
    "duplicate-id": ('<p id="a">x</p><p id="a">y</p>', '<p id="a">x</p><p id="b">y</p>'),
    "left-over-syntax": ("<p>{{ name }}</p>", "<p>{ name }</p>"),
    "missing-inline-image": ('<img alt="a" src="cid:other">', '<img alt="a" src="cid:logo">'),
    "unused-inline-image": ("<p>no image</p>", '<img alt="a" src="cid:logo">'),
}
BY_SUBJECT = {
    "empty-subject": (" ", "Hello"),
    "long-subject": ("x" * 71, "x" * 70),
    "left-over-syntax": ("{% if x %}", "if x"),
}
BY_TEMPLATE = {
    "template-fault": ({"html.j2": "{{ name|safe }}"}, {}),
    "sample-invalid": ({"template.toml": "subject = 's'\n[variables]\nname = 'string'"}, {}),
    "undefined-variable": ({"html.j2": "{{ name }}{{ nmae }}"}, {}),
    "unused-variable": ({"html.j2": "x", "text.j2": "x"}, {}),
    "missing-text": ({"text.j2": None}, {}),
}
GOOD = {
    "template.toml": "subject = 's'\n[variables]\nname = 'string'\n[sample]\nname = 'Ada'",
    "html.j2": "<p>{{ name }}</p>",
    "text.j2": "{{ name }}",
}
INLINE = {"missing-inline-image": ["logo"], "unused-inline-image": ["logo"]}


def rules(findings: list[Finding]) -> set[str]:
    return {each.rule for each in findings}


def checked(files: dict[str, str | None]) -> list[Finding]:
    def rendered(template: Template, locale: str) -> Rendered:
        return render(template, locale=locale)

    try:
        template = compile_template(parse_files("t", {path: text for path, text in files.items() if text is not None}))
    except TemplateFault as fault:
        return [fault_finding(fault)]
    return check_template(template, rendered)


def test_every_rule_has_an_example() -> None:
    assert set(BY_HTML) | set(BY_SUBJECT) | set(BY_TEMPLATE) == set(RULES)


@pytest.mark.parametrize("rule", sorted(BY_HTML))
def test_a_rule_about_html_speaks_up_for_the_bad_and_is_silent_about_the_good(rule: str) -> None:
    bad, good = BY_HTML[rule]
    inline = INLINE.get(rule, [])
    (found,) = [each for each in lint_html(bad, inline) if each.rule == rule]
    assert (found.severity, found.file) == (RULES[rule][0], "html")
    assert found.detail
    assert lint_html(good, inline) == []


@pytest.mark.parametrize("rule", sorted(BY_SUBJECT))
def test_a_rule_about_the_subject_speaks_up_for_the_bad_and_is_silent_about_the_good(rule: str) -> None:
    bad, good = BY_SUBJECT[rule]
    assert rules(lint_subject(bad)) == {rule}
    assert lint_subject(good) == []


@pytest.mark.parametrize("rule", sorted(BY_TEMPLATE))
def test_a_rule_about_the_template_speaks_up_for_the_bad_and_is_silent_about_the_good(rule: str) -> None:
    change, _ = BY_TEMPLATE[rule]
    assert rules(checked({**GOOD, **change})) >= {rule}
    assert checked(dict(GOOD)) == []


@pytest.mark.parametrize("name", STARTERS)
def test_nothing_is_found_in_a_starter_template(name: str) -> None:
    assert checked(dict(starter_files(name))) == []
    assert set(parse_files(name, starter_files(name)).locales) == {"en", "zh-CN"}


def test_nothing_is_found_in_a_new_template() -> None:
    assert checked(dict(scaffold("hello"))) == []
    assert checked(dict(scaffold("hello", chinese=False))) == []


def test_a_sample_that_can_not_be_rendered_is_named_with_its_language() -> None:
    files = {**GOOD, "html.j2": "{{ name|date }}", "locales/zh-CN/template.toml": "subject = 's'", "locales/zh-CN/html.j2": "x", "locales/zh-CN/text.j2": "x"}  # fmt: skip
    assert [(each.rule, each.file) for each in checked(dict(files))] == [("sample-invalid", "t (en)")]


@pytest.mark.parametrize(
    ("html", "line"),
    [("<p>\n\n<img src='https://x.example/a.png'>", 3), ("\n<div>\n<b>x</div>", 3), ("<p>\n{{", 2), ("<a\n\n href='#'>x</a>", 1)],
)  # fmt: skip
def test_a_finding_has_its_line(html: str, line: int) -> None:
    assert [each.line for each in lint_html(html)] == [line]


@pytest.mark.parametrize(
    "html",
    [
        "<!--[if mso]><table><tr><td><![endif]--><p>x</p><!--[if mso]></td></tr></table><![endif]-->",
        "<table><tr><td>a<td>b<tr><th>c</table><dl><dt>a<dd>b<dt>c</dl>",
        '<a href="https://x.example/?a=1&amp;b=2">x</a><img src="https://x.example/a.png" alt="a"/>',
        "<svg><path d='x'/></svg><o:p></o:p>",
        '<p style="color:red">a &lt; b &amp; c</p><br><hr>',
        "",
        "plain text",
    ],
)
def test_html_as_people_write_it_is_left_alone(html: str) -> None:
    assert lint_html(html) == []


@pytest.mark.parametrize(
    "piece", ['<a "', "<a b='", "<!--", "<b>", "</b>", "<![if ", "<?", "</a", "<img>", "<p id=a>", "{{"]
)
def test_hostile_html_is_looked_at_in_little_time_and_few_words(piece: str) -> None:
    began = time.process_time()
    assert len(lint_html(piece * (2_000_000 // len(piece)))) <= 200
    assert time.process_time() - began < 2


def test_a_message_is_its_subject_and_its_html() -> None:
    assert rules(lint_message("", '<a href="#">x</a>')) == {"empty-subject", "empty-link"}
    assert lint_message("Hello", None) == []


def test_a_failing_render_is_a_finding_and_not_an_error() -> None:
    def failing(template: Template, locale: str) -> Rendered:
        from service.errors import FieldProblem

        raise TemplateRenderError(errors=[FieldProblem("#", "x", "why")])

    template = compile_template(parse_files("t", GOOD))
    assert [(each.rule, each.detail) for each in check_template(template, failing)] == [("sample-invalid", "why")]
