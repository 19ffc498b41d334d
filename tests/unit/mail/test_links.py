"""Data stands between quotation marks, and in links only through the filter `url`."""

import contextlib
import time

import pytest

from service.mail.template import TemplateFault
from tests.support.template_files import render, template_of


@pytest.mark.parametrize(
    "html",
    [
        '<a href="{{ x }}">',
        "<A HREF='{{ x }}'>",
        '<a href = " \n {{ x }}">',
        '<a/href="{{ x }}">',
        '<a title="{{ x }}"href="{{ x }}">',
        '<img alt="" src="{{ x }}">',
        '<form action="{{ x }}">',
        '<table background="{{ x }}">',
        '<video poster="{{ x }}">',
        '<a href="java{{ x }}">',
        "<a href=\"{{ 'java' ~ x }}\">",
        "<a href=\"{{ x|default('https://y.example') }}\">",
        "<a href=\"{{ x|url|replace('https', 'javascript') }}\">",
        '<a href="{{ x|url if y else z }}">',
        '<a href="{% if y %}https://y.example{% else %}{{ x }}{% endif %}">',
        '<a href="{% if y %}{% endif %}{{ x }}">',
        '<a href="{% for y in x %}{{ y }}{% endfor %}">',
        '<a {% if y %}title{% else %}href{% endif %}="{{ x }}">',
        '{% if y %}<a href="{% else %}<a title="{% endif %}{{ x }}">',
        '<a href="{% for y in x %}{{ y }}{% endfor %}',
        '{% for y in x %}{{ y }}<a href="{% endfor %}',
        '{% for y in x %}<b {% if y %}title="a" href="{% else %}>{% endif %}{{ y }}"></b>{% endfor %}',
        '{% for y in x %}{% else %}<a href="{% endfor %}{{ x }}">',
        '{% set y %}<a href="{{ x }}">{% endset %}{{ y }}',
        '{% filter trim %}<a href="{{ x }}">{% endfilter %}',
        '{% with y = x %}<a href="{{ y }}">{% endwith %}',
        '{% block b %}<a href="{% block c %}{{ x }}{% endblock %}">{% endblock %}',
        '<!--[if mso]><a href="{{ x }}"><![endif]-->',
        '<!-- <p title=" --><a href="{{ x }}">',
        '<style><p title="</style><a href="{{ x }}">',
        '<title><p title="</title><a href="{{ x }}">',
    ],
)
def test_a_link_that_begins_with_data_needs_the_filter(html: str) -> None:
    with pytest.raises(TemplateFault, match=r"t/html\.j2:\d: .*\|url"):
        template_of("", html)


@pytest.mark.parametrize(
    ("html", "why"),
    [
        ("<a title={{ x }}>", "stands between quotation marks"),
        ("<a href={{ x|url }}>", "stands between quotation marks"),
        ("<a title=a{{ x }}>", "stands between quotation marks"),
        ("<a {{ x }}>", "stands between quotation marks"),
        ("<a {{ x }}='y'>", "stands between quotation marks"),
        ("<a title {{ x }}>", "stands between quotation marks"),
        ("<{{ x }}>", "stands between quotation marks"),
        ("<b{{ x }}>", "stands between quotation marks"),
        ("<p onclick=\"f('{{ x }}')\">", "`onclick` is code"),
        ('<iframe srcdoc="{{ x }}">', "`srcdoc` is code"),
        ("{% for y in x %}<a{% endfor %}", "too many states"),
    ],
)
def test_data_in_a_tag_stands_in_a_quoted_value(html: str, why: str) -> None:
    with pytest.raises(TemplateFault, match=r"^t/html\.j2:2: ") as caught:
        template_of("", "\n" + html)
    assert why in caught.value.why


@pytest.mark.parametrize(
    "html",
    [
        '<a href="{{ x|url }}">',
        '<a href="{{ x|url|e }}">',
        "<a href=\"{{ x|url if y else 'https://y.example' }}\">",
        "<a href=\"{{ 'https://a.example' if y else 'https://b.example' }}/{{ z }}\">",
        "<a href=\"{{ 'https://y.example/?' ~ z }}\">",
        "<a href=\"{{ 'mailto:' + z }}\">",
        '<a href="https://y.example/{{ z }}?q={{ z }}">',
        '<a href="{% if y %}https://y.example/{% else %}{{ x|url }}{% endif %}{{ z }}">',
        '<img src="cid:{{ z }}" alt="{{ z }}">',
        '<td {% if y %}class="a"{% endif %} id="{{ z }}" {{ "hidden" if y }}>',
        "<p style=\"width: {{ z }}px\" title='{{ z }}'>{{ z }}</p>",
        "1 < {{ z }} << {{ z }}",
        "<style>p > {{ z }} {}</style><title>{{ z }} <a href=</title>",
        "<!-- it's --><p>{{ z }}</p>",
        "{% for a in 'ab' %}<p title=\"{% for b in 'ab' %}{{ b }}{% endfor %}\">{{ a }}</p>{% endfor %}",
    ],
)
def test_what_is_safe_is_left_alone(html: str) -> None:
    assert render(template_of("", html), {"x": "https://x.example/", "y": True, "z": "z"}).html


def test_the_expression_is_named_with_file_line_and_variable() -> None:
    files = {"_layouts__l.j2": '<a href="{% block u %}{% endblock %}">\n<img src="{{ logo.at }}">'}
    with pytest.raises(TemplateFault, match=r"^t/html\.j2:2: order\.link: `href` begins with it"):
        template_of("", '{% extends "_layouts/l.j2" %}{% block u %}\n{{ order.link }}{% endblock %}', **files)
    with pytest.raises(TemplateFault, match=r"^_layouts/l\.j2:2: logo\.at: `src` begins with it"):
        template_of("", '{% extends "_layouts/l.j2" %}{% block u %}{{ order.link|url }}{% endblock %}', **files)
    button = "<mjml><mj-body><mj-section><mj-column><mj-button href='{{ x }}'>a</mj-button></mj-column></mj-section></mj-body></mjml>"
    with pytest.raises(TemplateFault, match=r"^t/html\.mjml:1: x: `href` begins with it"):
        template_of("", None, **{"html.mjml": button})


def test_text_is_no_html() -> None:
    made = template_of("", "<p>x</p>", **{"text.j2": '<a href="{{ x }}">'})
    assert render(made, {"x": "javascript:"}).text == '<a href="javascript:">'


def test_how_much_is_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.mail.links._MOST_READ", 1000)
    template_of("", "{% for a in x %}<p>" + "y" * 500 + "{% endfor %}")
    with pytest.raises(TemplateFault, match="too many states"):
        template_of("", "{% for a in x %}<p title='" + "y" * 500 + "{% endfor %}")


@pytest.mark.parametrize(
    "html",
    [
        "<a a=b " * 30_000,
        "<!---->" * 30_000,
        '<a b="' * 40_000,
        "<" * 200_000,
        "<title>" * 30_000,
        "<a " + "b = 'c' " * 30_000,
        "<a b" + " " * 200_000,
        "{% for a in x %}<a {% if a %}b='{% endif %}" * 8 + "x" * 100_000 + "{% endfor %}" * 8,
        "{% for a in x %}{% if a %}<p{% else %} {% endif %}>" * 8 + "<p>" * 50_000 + "{% endfor %}" * 8,
    ],
)
def test_html_is_read_in_time_that_grows_with_its_length(html: str) -> None:
    began = time.process_time()
    with contextlib.suppress(TemplateFault):
        template_of("inline_css = false", html)
    assert time.process_time() - began < 6
