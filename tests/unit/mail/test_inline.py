"""CSS inlined at load gives each element the style that css-inline gives it in the rendered html."""

import time
from html.parser import HTMLParser

import pytest

from service.errors import TemplateRenderError
from service.mail.inline import inline_rendered, needs_inlining
from service.mail.render import compile_template
from service.mail.template import TemplateFault, parse_files
from tests.support.template_files import STARTERS, render, starter_files, template_of

STYLE = "<style>.a { color: red; margin: 0 } .b, p { padding: 1px; } div p { top: 2px } #i { left: 3px }</style>"


class Styles(HTMLParser):
    """(tag, declarations) of every element that has or could have a style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, frozenset[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        style = dict(attrs).get("style") or ""
        parts = (part.strip().replace('"', "'") for part in style.split(";"))
        declarations = {":".join(side.strip() for side in part.partition(":")[::2]) for part in parts if part}
        if tag not in {"tbody", "html", "head", "body"} or declarations:  # the parser of css-inline adds these
            self.found.append((tag, frozenset(declarations)))


def ahead_and_after(html: str, variables: dict[str, object]) -> tuple[str, str]:
    """(inlined at load, inlined after rendering)."""
    kept = template_of("inline_css = false", html)
    return render(template_of("", html), variables).html, inline_rendered(render(kept, variables).html)


@pytest.mark.parametrize(
    "body",
    [
        '<p class="a">x</p>',
        '<div><p>{{ v }}</p></div><p class="a b" id="i">y</p>',
        '<p class="a" style="color: blue">own style wins</p>',
        '<p style="width: {{ n }}px; color: {{ c }}" class="a">variables in a style</p>',
        '<a class="a" href="https://x.example/?q={{ v }}">{{ v }}</a>',
        '{% for x in l %}<p class="a">{{ x }}</p>{% endfor %}',
        '<table>{% for x in l %}<tr class="a"><td class="b">{{ x }}</td></tr>{% endfor %}</table>',
        '{% if v %}<p class="a">1</p>{% else %}<p class="b">2</p>{% endif %}',
        '<img class="a" src="https://x.example/{{ v }}.png" alt="{{ v }}"><br class="b"/>',
        '<!--[if mso]><p class="a">only Outlook</p><![endif]--><p class="a">all</p>',
        "<p class='a' title=\"a > b\">quotes</p>",
    ],
)
def test_each_element_gets_the_style_it_would_get_after_rendering(body: str) -> None:
    html = f"<html><head>{STYLE}</head><body>{body}</body></html>"
    template = template_of("", html)
    assert template.inlined("en").ahead, template.inlined("en").reason
    ahead, after = ahead_and_after(html, {"v": "w&", "n": 5, "c": "green", "l": [1, 2]})
    assert Styles(ahead).found == Styles(after).found
    assert 'style="' in ahead


@pytest.mark.parametrize("name", STARTERS)
@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_the_starter_templates_are_inlined_at_load_like_after_rendering(name: str, locale: str) -> None:
    files = starter_files(name)
    template = compile_template(parse_files(name, files))
    assert template.inlined(locale).ahead, template.inlined(locale).reason
    kept = {**files, "template.toml": "inline_css = false\n" + files["template.toml"]}
    after = inline_rendered(render(compile_template(parse_files(name, kept)), locale=locale).html)
    assert Styles(render(template, locale=locale).html).found == Styles(after).found


def test_only_style_attributes_change() -> None:
    html = f"<html><head>{STYLE}</head><body>\n<P  Class='a'>&nbsp;&#847;</P>\n<table><tr><td>{{{{ v }}}}</td></tr></table></body></html>"
    inlined = render(template_of("", html), {"v": "x"}).html
    assert inlined == html.replace("<P  Class", '<P style="padding:1px;color:red;margin:0"  Class').replace(
        "{{ v }}", "x"
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('<p {% if v %}class="a"{% endif %}>x</p>', "inside of a tag"),
        ("<style>p:first-child { color: red }</style><p>x</p>", "siblings"),
        ("<style>p + p { color: red }</style><p>x</p>", "siblings"),
        ("<style>p { color: {{ c }} }</style><p>x</p>", "style element"),
        ("<table>{{ v }}<tr class='a'><td>y</td></tr></table>", "allows no text"),
    ],
)
def test_what_can_not_be_known_before_is_inlined_after_rendering(body: str, why: str) -> None:
    html = f"<html><head>{STYLE}</head><body>{body}</body></html>"
    template = template_of("", html)
    assert not template.inlined("en").ahead
    assert why in template.inlined("en").reason
    ahead, after = ahead_and_after(html, {"v": "w", "c": "green"})
    assert ahead == after
    assert "style=" in ahead


def test_at_rules_alone_need_no_inlining() -> None:
    assert not needs_inlining("<style>@media (max-width: 1px) { .a { color: red } } @import 'x'; /* .b {} */</style>")
    assert needs_inlining("<style>@media print { .a { color: red } } .b { color: red }</style>")


def test_inlining_can_be_refused() -> None:
    html = f"{STYLE}<p class='a'>x</p>"
    assert render(template_of("inline_css = false", html)).html == html


@pytest.mark.parametrize("piece", ['<a "', "<!--", "<style>", "<style ", "<a '", "<p"])
def test_what_is_not_closed_is_looked_at_once(piece: str) -> None:
    began = time.process_time()
    template_of("", STYLE + piece * (200_000 // len(piece)))
    assert time.process_time() - began < 3


@pytest.mark.parametrize("css", ["@a" * 60_000, "@a{" * 40_000, "a{" * 60_000, "/*" * 60_000])
def test_style_sheets_that_are_not_closed_are_looked_at_once(css: str) -> None:
    began = time.process_time()
    template_of("", f"<style>p {{ color: red }} {css}</style><p>x</p>")
    assert time.process_time() - began < 3


def test_html_that_is_too_deep_for_css_inline_is_left_as_it_is() -> None:
    """css-inline ends the process by a stack overflow at some 15,000 levels."""
    deep = STYLE + "<div>" * 2000 + "<p class='a'>x</p>"
    template = template_of("", deep)
    assert "too deeply" in template.inlined("en").reason
    assert render(template, {}).html == deep
    by_data = template_of("", STYLE + "<style>p:first-child { top: 1px }</style>{% for x in l %}<div>{% endfor %}")
    assert render(by_data, {"l": list(range(40_000))}).html.endswith("<div>" * 40_000)


MANY = "<b></b>" * 20_000 + "<u class=x></u>"


@pytest.mark.parametrize(
    "css",
    [
        "b:has(~ i) { top: 0 }",
        "b:HAS(i) { top: 0 }",
        "u ~ b { top: 0 }",
        "b:not(u ~ b) { top: 0 }",
        "b:is(p, u~b) { top: 0 }",
        r"b:h\61s(~ i) { top: 0 }",
        r"b:\68 as(~ i) { top: 0 }",
        '@import "{"; b:has(~ i) { top: 0 } i {}} p {}',
        '@import url(a"b); b:has(~ i) { top: 0 } "',
        r'@import u\72 l(a"b); b:has(~ i) { top: 0 } "',
        'i {} /* "*/ b:has(~ i) { top: 0 } /* "*/',
        "i {} /*</style><style>@m { */ b:has(~ i) { top: 0 } /**/ }",
    ],
)
def test_selectors_that_compare_each_tag_with_many_others_are_refused(css: str) -> None:
    """26,000 tags and one such rule hold up everything for 4 seconds, and css-inline knows no deadline."""
    began = time.process_time()
    with pytest.raises(TemplateFault, match=r"^t/html\.j2:\d+: `.*takes too long to inline"):
        template_of("", f"\n<style>{css}</style>{MANY}")
    by_data = template_of("", "<style>{{ a }}{{ b }}</style>{% for n in l %}<b></b>{% endfor %}<u class=x></u>")
    if not set(css) & set("<\"'"):
        with pytest.raises(TemplateRenderError) as caught:
            render(by_data, {"a": css[:8], "b": css[8:], "l": list(range(20_000))})
        assert "takes too long to inline" in caught.value.errors[0].detail
    assert time.process_time() - began < 2


def test_a_refused_selector_is_named_with_file_and_line() -> None:
    files = {"_layouts__l.j2": "<style>\np { top: 0 }\nb ~ i { top: 0 }</style>{% block b %}{% endblock %}"}
    with pytest.raises(TemplateFault, match=r"^_layouts/l\.j2:3: `~` takes too long"):
        template_of("", '{% extends "_layouts/l.j2" %}', **files)


@pytest.mark.parametrize(
    "css",
    [
        "@media all { b:has(~ i) { top: 0 } } p { top: 0 }",
        "@media all { u ~ b { background: url(https://x.example/~a) } } p { top: 0; font-family: 'a ~ b', \"c\" }",
        "[class~=x] { top: 0 } p { top: 0 }",
        r"p { top: 0; width:1px\9 } i { width:1px\9 } p:not(.y) { left: 0 }",
        r".sm\:p-4\/x { top: 0 } p { top: 0; content: '\201C' }",
        "/* a ~ b:has(i) */ p { top: 0 }",
    ],
)
def test_what_only_looks_like_a_costly_selector_is_inlined(css: str) -> None:
    made = render(template_of("", f"<style>{css}</style><p class='x'>y</p>")).html
    assert "top:0" in made.replace(" ", "").partition("</style>")[2]


@pytest.mark.parametrize(
    ("css", "body"),
    [
        ("b" + ":not(u)" * 3000 + " { top: 0 }", MANY),
        ("body > div > div > div b { top: 0 }", "<div>" * 900 + "<b></b>" * 20_000),
        ("".join(f"p > div .x{n} b {{}}" for n in range(100)), "<div>" * 100 + "<b></b>" * 20_000),
        (":is(" + ", ".join(f"i b.x{n}" for n in range(1500)) + ") { top: 0 }", "<i>" * 50 + MANY),
    ],
)
def test_too_many_comparisons_leave_the_html_as_it_is(css: str, body: str) -> None:
    html = f"<style>{css}</style>{body}"
    began = time.process_time()
    assert render(template_of("", html)).html == html
    by_data = template_of("", "<style>{{ a }}{{ b }}</style>{{ c }}" + body)
    assert render(by_data, {"a": css[:8], "b": css[8:], "c": "x"}).html.endswith(body)
    assert time.process_time() - began < 4


def test_a_style_element_that_is_not_seen_for_one_is_not_inlined() -> None:
    html = f"<style>p:first-child {{}}</style><style title='<'>b:has(~ i) {{ top: 0 }}</style>{MANY}"
    began = time.process_time()
    assert render(template_of("", html)).html == html
    assert time.process_time() - began < 2


def test_a_mail_of_many_rules_and_tags_is_still_inlined() -> None:
    css = "".join(f".c{n} td .x{n}, p.y{n} {{ top: {n}px }}" for n in range(100))
    made = template_of("", f"<style>{css}</style>" + ("<div>" * 30 + "<p class='y7'></p>" * 50 + "</div>" * 30) * 20)
    assert made.inlined("en").ahead
    assert 'style="top:7px"' in render(made).html


def test_the_time_of_inlining_counts() -> None:
    made = template_of("", "<style>p:first-child { top: 0 }</style><p>x</p>")
    now = iter([0.0, 0.0, 0.0, 9.0])  # the subject; the only chunk of the html, and then its inlining
    with pytest.raises(TemplateRenderError) as caught:
        made.render({}, None, deadline=1, monotonic=lambda: next(now), max_bytes=10**6)
    assert "html: rendering took too long" in caught.value.errors[0].detail


def test_what_inlining_makes_is_measured() -> None:
    made = template_of("", "<style>p:last-child, p { margin: 1px 2px 3px 4px }</style>" + "<p></p>" * 1000)
    with pytest.raises(TemplateRenderError) as caught:
        made.render({}, None, deadline=1, monotonic=lambda: 0.0, max_bytes=10_000)
    assert "POSTROOM_MAX_RENDERED_BYTES" in caught.value.errors[0].detail


def test_few_rules_can_not_become_much_html() -> None:
    html = "<style>p { " + "margin: 1px 2px 3px 4px; " * 2000 + "}</style>" + "<p>x</p>" * 10_000
    template = template_of("", html)
    assert "too much CSS" in template.inlined("en").reason
    assert len(render(template, {}).html) == len(html)
