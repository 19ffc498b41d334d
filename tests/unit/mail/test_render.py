"""The template sandbox: data stays data, bombs are refused at load or stopped in time, URLs are checked."""

import itertools
from collections.abc import Iterator

import pytest

from service.errors import TemplateRenderError
from service.mail.render import LocaleSource, Template, TemplateFault, TemplateSource, compile_template
from service.mail.template import parse_files


def template(
    html: str, schema: dict[str, object] | None = None, subject: str = "s", text: str | None = None
) -> Template:
    source = LocaleSource(subject, html, text, {})
    return compile_template(TemplateSource("t", "", schema or {"type": "object"}, {"en": source}, "en"))


def render(made: Template, variables: dict[str, object], *, max_bytes: int = 100_000, seconds: float = 5) -> str:
    ticks: Iterator[float] = itertools.count(0, 0.001)
    return made.render(variables, None, deadline=seconds, monotonic=lambda: next(ticks), max_bytes=max_bytes).html


def test_html_is_escaped_and_subject_and_text_are_not() -> None:
    made = template("{{ x }}", subject="{{ x }}", text="{{ x }}")
    out = made.render({"x": "<b>&\"'"}, None, deadline=9, monotonic=lambda: 0, max_bytes=1000)
    assert (out.html, out.subject, out.text) == ("&lt;b&gt;&amp;&#34;&#39;", "<b>&\"'", "<b>&\"'")


@pytest.mark.parametrize("value", ["{{ 7*7 }}", "{% for x in y %}", "{{ config }}", "${jndi:x}"])
def test_template_syntax_in_a_variable_is_only_text(value: str) -> None:
    assert "49" not in render(template("{{ x }}"), {"x": value})


@pytest.mark.parametrize(
    "source",
    [
        "{{ x * 10 }}", "{{ 10 ** x }}", "{{ x % y }}", "{{ x | center(10) }}", "{{ x | format(1) }}", "{{ x | safe }}", "{{ x() }}", "{{ x.upper() }}",
        "{{ ''.__class__ }}", "{{ x._y }}", "{{ range(9) }}", "{{ lipsum() }}", "{{ cycler('a') }}", "{{ x | attr('y') }}", "{{ x | map('upper') }}",
        "{{ self.x(1) }}", "{% import 'y' as z %}{{ z.f() }}", "{{ x", "{% for %}", "{{ x | nofilter }}",
    ],
)  # fmt: skip
def test_what_could_escape_or_explode_is_refused_at_load_with_file_and_line(source: str) -> None:
    with pytest.raises(TemplateFault, match=r"t/html\.j2:2: "):
        template("\n" + source)


@pytest.mark.parametrize("name", ["__class__", "mro", "items", "upper", "format"])
def test_data_has_keys_and_no_attributes(name: str) -> None:
    for value in ("text", {"a": 1}, [1], 5):
        with pytest.raises((TemplateRenderError, TemplateFault)):
            render(template(f"{{{{ x.{name} }}}}"), {"x": value})


def test_a_missing_variable_is_an_error_and_not_an_empty_string() -> None:
    with pytest.raises(TemplateRenderError) as caught:
        render(template("{{ nope }}"), {})
    assert "nope" in caught.value.errors[0].detail


def test_a_huge_result_is_stopped() -> None:
    made = template("{% for a in x %}{% for b in x %}{% for c in x %}{{ a }}{% endfor %}{% endfor %}{% endfor %}")
    with pytest.raises(TemplateRenderError) as caught:
        render(made, {"x": ["y" * 100] * 200}, seconds=10**9)
    assert "POSTROOM_MAX_RENDERED_BYTES" in caught.value.errors[0].detail


def test_a_slow_result_is_stopped() -> None:
    made = template("{% for a in x %}{% for b in x %}.{% endfor %}{% endfor %}")
    with pytest.raises(TemplateRenderError) as caught:
        render(made, {"x": list(range(1000))}, max_bytes=10**9, seconds=0.5)
    assert "POSTROOM_RENDER_TIMEOUT" in caught.value.errors[0].detail


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "//evil.example",
        "/path",
        "http://x.example",
        "https://x\n.example",
        " https://x",
        "https:\\\\x",
        "https:evil.example",
        "https:/evil.example",
        "https:///evil.example",
        "https:",
        "https://",
        "https://?x",
        "https://user@",
        "https://:443/",
        "https://.",
        "https://x.example:99999/",
        "https://x\x7f.example",
        "https://x.example/\u200bx",
        "https://x.example/\u202ex",
        "https://x.example/\x85",
        "http:localhost",
        "http://localhost.evil.example",
        "mailto:",
        "tel:",
        "",
    ],
)
def test_a_url_that_is_not_harmless_is_refused(url: str) -> None:
    with pytest.raises(TemplateRenderError):
        render(template('<a href="{{ x|url }}">'), {"x": url})


@pytest.mark.parametrize(
    "url",
    [
        "https://x.example/a?b=c&d",
        "HTTPS://x.example",
        "https://user:pass@x.example/",
        "https://bücher.example/ä",
        "https://[2001:db8::1]:8443/x",
        "https://x.example?q",
        "mailto:a@b.example",
        "tel:+49123",
        "http://localhost:8000/x",
    ],
)
def test_a_harmless_url_passes(url: str) -> None:
    assert render(template('<a href="{{ x|url }}">'), {"x": url}) == f'<a href="{url.replace("&", "&amp;")}">'


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(None, "en"), ("en", "en"), ("en-GB", "en"), ("zh-CN", "zh-CN"), ("zh", "zh-CN"), ("zh-Hant-TW", "zh-Hant"), ("zh_hant", "zh-Hant"), ("fr", "en"), ("zh-HK", "zh-CN")],
)  # fmt: skip
def test_the_nearest_language_is_used(wanted: str | None, found: str) -> None:
    each = LocaleSource("s", "h", None, {})
    made = compile_template(TemplateSource("t", "", {}, {"en": each, "zh-CN": each, "zh-Hant": each}, "en"))
    assert made.pick(wanted) == found


def test_variables_are_checked_all_at_once() -> None:
    schema = {
        "type": "object",
        "required": ["code", "name"],
        "additionalProperties": False,
        "properties": {"code": {"type": "string", "maxLength": 3}, "name": {"type": "string"}, "items": {"type": "array", "items": {"type": "integer"}}},
    }  # fmt: skip
    problems = template("x", schema).check({"code": "canary-secret", "nmae": 1, "items": [1, "x"]}, "/v")
    assert {problem.pointer: problem.code for problem in problems} == {
        "#/v/name": "missing",
        "#/v/nmae": "unknown_variable",
        "#/v/code": "invalid_variable",
        "#/v/items/1": "invalid_variable",
    }
    assert "did you mean name?" in str(problems)
    assert "canary" not in str(problems)


@pytest.mark.parametrize(
    "value", ["javascript:canary", "http://canary.example", "/canary", "https://a b", "http://[canary"]
)
def test_a_refused_url_is_one_sentence_with_file_line_and_variable_and_never_the_value(value: str) -> None:
    made = template("<p>\n{{ order.links[0].to|url }}")
    with pytest.raises(TemplateRenderError) as caught:
        render(made, {"order": {"links": [{"to": value}]}})
    assert caught.value.errors[0].detail == (
        "html: t/html.j2:2: order.links[0].to must be an https:, mailto: or tel: URL without spaces and backslashes "
        "(http: only for localhost)"
    )


def test_a_refused_url_names_what_is_known_of_its_place() -> None:
    for name, files, place in (
        ("an expression", {"html.j2": "{{ (x ~ '')|url }}"}, "html: t/html.j2:1: what `url` is given must be"),
        ("a layout", {"html.j2": '{% extends "_layouts/l.j2" %}', "_layouts/l.j2": "\n\n{{ x|url }}"}, "html: _layouts/l.j2:3: x must be"),
        ("MJML", {"html.mjml": "<mjml><mj-body><mj-raw>{{ x|url }}</mj-raw></mj-body></mjml>"}, "html: t/html.mjml: x must be"),
        ("text", {"html.j2": "x", "text.j2": "\n{{ x|url }}"}, "text: t/text.j2:2: x must be"),
    ):  # fmt: skip
        head = "subject = 's'\n[variables]\nx = 'string'"
        made = compile_template(parse_files("t", {"template.toml": head, **files}))
        with pytest.raises(TemplateRenderError) as caught:
            render(made, {"x": "data:canary"})
        assert caught.value.errors[0].detail.startswith(place), name


def test_the_url_filter_takes_no_arguments() -> None:
    with pytest.raises(TemplateFault, match=r"t/html\.j2:1: `url` takes no arguments"):
        template("{{ x|url('y') }}")
