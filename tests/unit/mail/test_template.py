"""A template's files: what is read, and what is refused with file and line."""

import pytest

from service.mail.template import TemplateFault, digest_of, needed_files, parse_files
from service.mail.variables import expand_schema
from tests.support.template_files import render, template_of

GOOD = {"template.toml": 'subject = "s"', "html.j2": "<p>x</p>"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template.toml": None}, "t/template.toml:1: is missing"),
        ({"html.j2": None}, "t/html.j2:1: is missing"),
        ({"template.toml": "subject = 's'\n\nx ="}, "t/template.toml:3: "),
        ({"template.toml": "description = 'd'"}, "t/template.toml:1: `subject` is missing"),
        ({"template.toml": "subject = 5"}, "t/template.toml:1: `subject` must be text"),
        ({"template.toml": "subject = 's'\nvariable = 1"}, "`variable` is not known here"),
        ({"template.toml": "subject = 's'\nttl = 'soon'"}, "`ttl` must be at least a second"),
        ({"template.toml": "subject = 's'\npriority = 'urgent'"}, "`priority` must be one of high, normal, low"),
        ({"template.toml": "subject = 's'\nunsubscribe = 'News Letter'"}, "`unsubscribe` names a category"),
        ({"template.toml": "subject = 's'\n[variables]\nx = 'strnig'"}, "[variables]: x: must be one of string"),
        ({"template.toml": "subject = 's'\n[variables]\n'a b' = 'string'"}, "[variables]: a b: a name is letters"),
        ({"template.toml": "subject = 's'\n[variables]\ntype = 'object'\nrequired = 5"}, "[variables]: "),
        ({"template.toml": "subject = 's'\n[variables]\ntype='object'\n[variables.properties.x]\n'$ref'='http://h/s'"}, "not allowed"),
        ({"template.toml": "subject = 's'\nsample_attachments = ['../x']"}, "names files of this folder"),
        ({"html.mjml": "<mjml></mjml>"}, "t/html.mjml:1: there is an html.j2 beside it"),
        ({"html.j2": None, "html.mjml": "<mjml>\n<mj-body>\n<mj-txet/></mj-body></mjml>"}, "t/html.mjml:3: <mj-txet> is no MJML"),
        ({"html.j2": None, "html.mjml": "<mjml><mj-body>"}, "t/html.mjml:1: MJML: "),
        ({"html.j2": None, "html.mjml": "<mjml><mj-body><mj-include path='/etc/passwd'/></mj-body></mjml>"}, "<mj-include> is no MJML"),
        ({"locales/klingon!/html.j2": "x"}, "must be a language tag"),
        ({"locales/zh-CN/template.toml": "subject = 's'"}, "t/locales/zh-CN/html.j2:1: is missing"),
        ({"locales/zh-CN/template.toml": "ttl = '5m'", "locales/zh-CN/html.j2": "x"}, "`ttl` is not known here"),
        ({"html.j2": "<p>\n{{ x|safe }}"}, "t/html.j2:2: the filter `safe` is not allowed"),
        ({"html.j2": "<p>\n\n{{ x|uper }}"}, "t/html.j2:3: there is no filter `uper`"),
        ({"html.j2": None, "html.mjml": "<mjml><mj-body>\n<mj-section><mj-column><mj-text>{{ x|safe }}</mj-text></mj-column></mj-section></mj-body></mjml>"}, "t/html.mjml:2: the filter `safe`"),
        ({"html.j2": None, "html.mjml": "<mjml><mj-body>" + "<mj-section>" * 5000 + "</mj-section>" * 5000 + "</mj-body></mjml>"}, "nested deeper than 64"),
        ({"html.j2": None, "html.mjml": "<mjml><mj-body><mj-section><mj-column><mj-text>" + "<div>" * 5000 + "</div>" * 5000 + "</mj-text></mj-column></mj-section></mj-body></mjml>"}, "nested deeper than 64"),
        ({"html.j2": None, "html.mjml": "<mjml><mj-head><mj-attributes><mj-all css-class='" + "x" * 100_000 + "'/></mj-attributes></mj-head><mj-body><mj-section><mj-column>" + "<mj-text>a</mj-text>" * 2000 + "</mj-column></mj-section></mj-body></mjml>"}, "the head is too large"),
        ({"html.j2": None, "html.mjml": "<mjml><mj-body>" + "<mj-section><mj-column><mj-text>a</mj-text></mj-column></mj-section>" * 3000 + "</mj-body></mjml>"}, "characters of html; at most"),
        ({"template.toml": "subject = 's'\nx = " + "[" * 5000}, "t/template.toml:2: is nested too deeply"),
        ({"template.toml": "subject = 's'\n[sample]\nx." + "a." * 500 + "b = 1"}, "is nested too deeply"),
        ({"template.toml": "subject = 's'\n[sample]\nx = nan"}, "a number that JSON has not"),
        ({"template.toml": "subject = 's'\n[sample]\nx = 99999999999999999999"}, "a number that JSON has not"),
        ({"template.toml": "subject = 's'\nttl = true"}, "`ttl` must be at least a second"),
        ({"template.toml": "subject = 's'\nttl = 1e300"}, "a number that JSON has not"),
        ({"template.toml": "subject = 's'\nttl = 1e12"}, "`ttl` must be at least a second"),
        ({"template.toml": "subject = 's'\ninline_css = 'no'"}, "`inline_css` is true or false"),
        ({"template.toml": "subject = 's'\nsample_attachments = 'a.pdf'"}, "is a list"),
        ({"template.toml": "subject = 's'\nsample_attachments = ['a\\u0000b']".replace("'a", '"a').replace("b']", 'b"]')}, "names files of this folder"),
        ({"template.toml": "subject = 's'\nsample_attachments = ['.env']"}, "names files of this folder"),
        ({"locales/zh-CN/htm.j2": "x"}, "t/locales/zh-CN/htm.j2:1: is no file of a template"),
        ({"htm.j2": "x"}, "t/htm.j2:1: is no file of a template"),
        ({"a.j2": "x" * 100, "html.j2": "y"}, "is no file of a template"),
        ({"text.j2": "x" * 200_000, "html.j2": "y" * 200_000, "_layouts/a.j2": "z" * 200_000}, "all files have 600"),
        ({"locales/zh-CN/template.toml": "subject = 's'", "locales/zh-CN/html.j2": "{% extends 'html.j2' %}\n{% block a %}\n{{ x|safe }}{% endblock %}"}, "t/locales/zh-CN/html.j2:3: the filter"),
    ],
)  # fmt: skip
def test_a_fault_names_file_and_line(change: dict[str, str | None], message: str) -> None:
    from service.mail.render import compile_template

    files = {path: text for path, text in {**GOOD, **change}.items() if text is not None}
    with pytest.raises(TemplateFault) as caught:
        compile_template(parse_files("t", files))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "a/../../b", "html.j2/../../x", "html.j2\0", "..\\x", "locales/../template.toml", "locales/../../html.j2", "locales/a/b/html.j2",
     "_layouts/../html.j2", "_layouts/../../x.j2", "_layouts/.j2", "_layouts/a\\b.j2", "./html.j2", "", ".", "C:/html.j2", "HTML.J2", "html.j2\n"],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_no_file_of_a_template(path: str) -> None:
    with pytest.raises(TemplateFault):
        parse_files("t", {**GOOD, path: "x"})


def test_dates_of_toml_are_dates_of_json() -> None:
    made = template_of(
        "sample = { day = 2026-11-27, at = 2026-11-27T10:00:00Z }\n[variables]\nday = 'date'\nat = 'datetime'"
    )
    assert made.sample() == {"day": "2026-11-27", "at": "2026-11-27T10:00:00+00:00"}
    assert made.check(made.sample()) == []


def test_another_language_extends_the_first_under_any_name() -> None:
    files = {
        **GOOD,
        "html.j2": "<p>{% block a %}first{% endblock %}</p>",
        "locales/de/template.toml": "subject = 's'",
        "locales/de/html.j2": "{% extends 'html.j2' %}{% block a %}{{ super() }} zweite{% endblock %}",
    }
    from service.mail.render import compile_template

    for name in ("one", "two"):
        assert render(compile_template(parse_files(name, files)), {}, "de").html == "<p>first zweite</p>"
    with pytest.raises(TemplateFault, match=r"t/html\.j2:1: .*extends itself"):
        template_of("", "{% extends 'html.j2' %}")


def test_the_short_form_becomes_json_schema() -> None:
    schema = expand_schema(
        {"name": "string", "note": "string?", "lines": [{"title": "string", "price": "amount"}], "at": {"day": "date"}}
    )
    assert schema["required"] == ["name", "lines", "at"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["lines"]["items"]["required"] == ["title", "price"]
    assert schema["properties"]["at"]["properties"]["day"] == {"type": "string", "format": "date"}


def test_every_fault_of_the_variables_is_told_at_once() -> None:
    head = '[variables]\nname = "string"\nat = "date"\nurl = "url?"\nlines = [{ title = "string", price = "amount" }]'
    problems = template_of(head, "{{ name }}").check(
        {"nmae": "x", "at": "2026-02-30", "url": "no url", "lines": [{"title": 5, "price": "1,5"}, {}]}, "/v"
    )
    assert {problem.pointer: problem.code for problem in problems} == {
        "#/v/name": "missing",
        "#/v/nmae": "unknown_variable",
        "#/v/at": "invalid_variable",
        "#/v/url": "invalid_variable",
        "#/v/lines/0/title": "invalid_variable",
        "#/v/lines/0/price": "invalid_variable",
        "#/v/lines/1/title": "missing",
        "#/v/lines/1/price": "missing",
    }
    assert "did you mean name?" in str(problems)


def test_mjml_is_compiled_once_with_its_jinja_untouched() -> None:
    mjml = """<mjml lang="en"><mj-head><mj-title>T</mj-title></mj-head><mj-body><mj-section><mj-column>
    <mj-raw>{% for x in l %}</mj-raw><mj-text>{{ x }}</mj-text><mj-raw>{% endfor %}</mj-raw>
    <mj-button href="{{ u|url }}">go</mj-button></mj-column></mj-section></mj-body></mjml>"""
    files = {"template.toml": 'subject = "s"', "html.mjml": mjml}
    from service.mail.render import compile_template

    made = render(compile_template(parse_files("t", files)), {"l": ["<a>", "b"], "u": "https://x.example/"}).html
    assert ">&lt;a&gt;</div>" in made
    assert ">b</div>" in made
    assert 'href="https://x.example/"' in made
    assert "fonts.googleapis" not in made  # nothing is loaded that the author did not ask for


def test_only_layouts_in_use_belong_to_a_template() -> None:
    files = {
        **GOOD,
        "html.j2": '{% extends "_layouts/a.j2" %}',
        "_layouts/a.j2": '{% extends "_layouts/b.j2" %}',
        "_layouts/b.j2": "b",
        "_layouts/other.j2": "o",
    }
    assert set(needed_files(files)) == {"template.toml", "html.j2", "_layouts/a.j2", "_layouts/b.j2"}
    changed = {**files, "_layouts/other.j2": "changed"}
    assert digest_of(needed_files(files)) == digest_of(needed_files(changed))
    assert digest_of(needed_files(files)) != digest_of(needed_files({**files, "_layouts/b.j2": "changed"}))


def test_a_key_that_is_the_name_of_a_method_is_a_key() -> None:
    made = template_of("", "{{ order.items }}{% for i in order.keys %}{{ i }}{% endfor %}")
    assert render(made, {"order": {"items": 3, "keys": [1, 2]}}).html == "312"
