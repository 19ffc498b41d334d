"""Dates, numbers and amounts are written as the readers of a language write them."""

import pytest

from service.errors import TemplateRenderError
from service.mail.formats import formats_for
from tests.support.template_files import render, template_of

NBSP, NNBSP = "\u00a0", "\u202f"


@pytest.mark.parametrize(
    ("tag", "written"),
    [
        ("en", "€1,234.50"),
        ("de", f"1.234,50{NBSP}€"),
        ("de-CH", "CHF-no"),
        ("zh-CN", "€1,234.50"),
        ("fr", f"1{NNBSP}234,50{NBSP}€"),
    ],
)
def test_an_amount_of_money(tag: str, written: str) -> None:
    if written == "CHF-no":
        assert formats_for(tag, "UTC").currency("1234.50", "CHF") == f"CHF{NBSP}1’234.50"
        return
    assert formats_for(tag, "UTC").currency("1234.50", "EUR") == written
    assert formats_for(tag, "UTC").currency(1234.5, "EUR") == written


def test_no_float_spoils_an_amount() -> None:
    english = formats_for("en", "UTC")
    assert english.currency("0.1", "EUR") == english.currency(0.1, "EUR") == "€0.10"
    assert english.currency("1000000000000000.10", "USD") == "$1,000,000,000,000,000.10"
    assert english.currency(1500, "JPY") == "¥1,500"


def test_dates_and_times_are_those_of_the_zone() -> None:
    chinese, english = formats_for("zh-CN", "Asia/Shanghai"), formats_for("en-GB", "UTC")
    at = "2026-11-27T18:30:00Z"
    assert chinese.date(at, "long") == "2026年11月28日"
    assert chinese.datetime(at) == "2026年11月28日 02:30:00"
    assert chinese.time(at, tz="Europe/Berlin") == "19:30"
    assert english.date("2026-11-27", "full") == "Friday, 27 November 2026"
    assert english.date(at) == "27 Nov 2026"


def test_numbers_percents_lists_and_plurals() -> None:
    german, russian = formats_for("de-CH", "UTC"), formats_for("ru", "UTC")
    assert german.number(1234567.891) == "1’234’567.891"
    assert german.percent(0.25) == "25%"
    assert formats_for("en", "UTC").listing(["a", "b", "c"]) == "a, b, and c"
    assert [russian.plural(n, one="день", few="дня", many="дней", other="дня") for n in (1, 2, 5)] == [
        "день",
        "дня",
        "дней",
    ]


@pytest.mark.parametrize(
    ("tag", "language"),
    [("zh-Hant-TW", "zh_Hant_TW"), ("zh", "zh"), ("xx-YY", "en"), ("de_AT", "de_AT"), ("en-XX", "en")],
)
def test_the_nearest_language_is_used(tag: str, language: str) -> None:
    assert str(formats_for(tag, "UTC").locale) == language


@pytest.mark.parametrize(
    "expression",
    [
        "x|date", "x|date('huge')", "'2026-11-27'|date('huge')", "'2026-02-30'|date", "'2026-11-27T10:00:00'|datetime",
        "x|number", "true|number", "'1e999999999'|number", "'NaN'|number", "'9' ~ long|number", "5|currency('euro')",
        "5|currency(7)", "'x'|listing", "5|plural(one='a')", "'2026-11-27'|time(tz='Mars/Base')",
        "'2026-11-27'|time(tz='../../etc/passwd')",
    ],
)  # fmt: skip
def test_what_can_not_be_written_is_an_error_that_says_why(expression: str) -> None:
    with pytest.raises(TemplateRenderError) as caught:
        render(template_of("", f"{{{{ ({expression}) }}}}"), {"x": {"a": 1}, "long": "9" * 50})
    detail = caught.value.errors[0].detail
    assert detail.startswith("html: ")
    assert "Error" not in detail


@pytest.mark.parametrize(
    "expression",
    ["5|currency(x)", "'2026-11-27'|date(x)", "'2026-11-27'|time(tz=x)", "x|number", "x|date", "5|plural(one=x)", "{'a': 1}[x]", "[1][x]", "x|int + x", "[1]|sum(attribute=x)"],
)  # fmt: skip
def test_no_error_shows_the_value_that_it_is_about(expression: str) -> None:
    with pytest.raises(TemplateRenderError) as caught:
        render(template_of("", f"{{{{ {expression} }}}}"), {"x": "canary-5521"})
    assert "canary" not in str(caught.value.errors)


def test_a_list_that_would_be_written_anew_for_each_of_its_words_is_refused() -> None:
    with pytest.raises(TemplateRenderError) as caught:
        render(template_of("", "{{ x|listing }}"), {"x": ["a" * 20] * 5000})
    assert "too long" in caught.value.errors[0].detail


def test_a_missing_variable_is_named_also_behind_a_filter() -> None:
    with pytest.raises(TemplateRenderError) as caught:
        render(template_of("", "{{ nowhere|number }}"), {})
    assert "'nowhere' is undefined" in caught.value.errors[0].detail


def test_numbers_follow_the_readers_own_tag_and_words_the_nearest_language() -> None:
    made = template_of('locale = "de"\n', "{{ n|number }}")
    assert render(made, {"n": 1234.5}, "de-CH").html == "1’234.5"
    assert render(made, {"n": 1234.5}, "de").html == "1.234,5"
    assert render(made, {"n": 1234.5}, "fr").html == "1.234,5"
