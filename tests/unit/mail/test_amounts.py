"""Amounts written at a pace are Babel's amounts, in every language that it knows."""

from decimal import Decimal, InvalidOperation

import pytest
from babel import Locale
from babel.localedata import locale_identifiers
from babel.numbers import format_currency
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mail.amounts import amount_writer

CODES = ("EUR", "USD", "JPY", "CNY", "KWD", "INR", "CHF", "CLF", "XYZ")
AMOUNTS = st.decimals(min_value=-(10**20), max_value=10**20, allow_nan=False, allow_infinity=False)


@settings(max_examples=600, deadline=None)
@given(tag=st.sampled_from(sorted(locale_identifiers())), code=st.sampled_from(CODES), value=AMOUNTS)
def test_every_language_writes_what_babel_writes(tag: str, code: str, value: Decimal) -> None:
    locale = Locale.parse(tag)
    assert amount_writer(locale, code)(value) == format_currency(value, code, locale=locale)


@settings(max_examples=200, deadline=None)
@given(tag=st.sampled_from(["en", "de", "de-CH", "zh-CN", "fr", "ja", "ar", "es", "pl", "sv", "en-IN"]), value=AMOUNTS)
def test_common_languages_round_as_babel_rounds(tag: str, value: Decimal) -> None:
    locale = Locale.parse(tag, sep="-")
    for code, places in (("EUR", "0.001"), ("JPY", "0.1"), ("KWD", "0.0001")):
        rounded = value.quantize(Decimal(places)) if abs(value) < 10**12 else value
        assert amount_writer(locale, code)(rounded) == format_currency(rounded, code, locale=locale)


@pytest.mark.parametrize(("tag", "fast"), [("en", True), ("zh", True), ("de", True), ("fr", True), ("hi", False)])
def test_what_has_not_the_usual_form_is_left_to_babel(tag: str, fast: bool) -> None:
    assert (amount_writer(Locale(tag), "EUR").__name__ == "by_digits") is fast


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_amount_of_more_digits_than_can_be_kept_is_refused_and_not_rounded(sign: str) -> None:
    write = amount_writer(Locale("en"), "EUR")
    with pytest.raises(InvalidOperation):
        write(Decimal(sign + "12345678901234567890123456789.125"))
    assert write(Decimal(sign + "1234567890123456.78")) == sign + "€1,234,567,890,123,456.78"
