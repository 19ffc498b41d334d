"""Dates, numbers and currencies as readers of a language write them, by Babel (Unicode CLDR).

`{{ total|currency("EUR") }}`, `{{ due|date("long") }}`, `{{ at|datetime(tz="Asia/Shanghai") }}`, `{{ n|number }}`,
`{{ share|percent }}`, `{{ names|listing }}`, `{{ n|plural(one="item", other="items") }}`. Values are plain JSON data:
numbers, decimals as text, RFC 3339 dates and times.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_time
from babel.lists import format_list
from babel.numbers import format_decimal, format_percent

from service.mail.amounts import Write, amount_writer

Moment = datetime  # inside of the class the name means the filter
_STYLES = ("short", "medium", "long", "full")
_MOST_CURRENCIES = 300
_MOST_DIGITS = 40  # of a number; more is no amount and only costs time
_MOST_WORK = 10_000_000  # characters written for a list


class FormatError(ValueError):
    """What can't be written, in words that hold no value: it may be a secret."""


class Formats:
    """The formats of one language and time zone. Every method raises FormatError that says what is wrong."""

    def __init__(self, tag: str, timezone: str) -> None:
        self.locale = _locale(tag)
        self._zone = ZoneInfo(timezone)
        self._amounts: dict[str, Write] = {}  # by currency

    def date(self, value: Any, style: str = "medium") -> str:
        """`2026-11-27`, or the day of a date-time in the time zone."""
        moment = _moment(value)
        day = moment.astimezone(self._zone).date() if isinstance(moment, Moment) else moment
        return format_date(day, _style(style), locale=self.locale)

    def time(self, value: Any, style: str = "short", tz: str | None = None) -> str:
        """The time of day of a date-time."""
        return format_time(self._at(value, tz), _style(style), tzinfo=self._in(tz), locale=self.locale)

    def datetime(self, value: Any, style: str = "medium", tz: str | None = None) -> str:
        """Day and time of a date-time."""
        return format_datetime(self._at(value, tz), _style(style), tzinfo=self._in(tz), locale=self.locale)

    def number(self, value: Any) -> str:
        """A number with the language's separators."""
        return format_decimal(_decimal(value), locale=self.locale)

    def percent(self, value: Any) -> str:
        """0.25 as 25 %."""
        return format_percent(_decimal(value), locale=self.locale)

    def currency(self, value: Any, code: str) -> str:
        """An amount of money; `code` is ISO 4217."""
        if not isinstance(code, str) or len(code) != 3 or not code.isascii() or not code.isupper():
            raise FormatError("currency needs an ISO 4217 code such as EUR")
        write = self._amounts.get(code)
        if write is None:
            if len(self._amounts) >= _MOST_CURRENCIES:  # there are fewer; a caller may have made up others
                self._amounts.clear()
            write = self._amounts[code] = amount_writer(self.locale, code)
        return write(_decimal(value))

    def listing(self, value: Any) -> str:
        """Several words as a list in a sentence."""
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise FormatError("listing needs a list")
        words = [str(each) for each in value]
        if sum(map(len, words)) * len(words) > _MOST_WORK:  # Babel writes all that it has anew for each word
            raise FormatError("listing is for a sentence: this list is too long")
        return format_list(words, locale=self.locale)

    def plural(self, value: Any, **words: str) -> str:
        """The word for a count: zero, one, two, few, many, other (Unicode plural rules)."""
        form = self.locale.plural_form(abs(_decimal(value)))
        if "other" not in words:
            raise FormatError("plural needs other=")
        return words.get(form, words["other"])

    def _at(self, value: Any, tz: str | None) -> Moment:
        moment = _moment(value)
        if isinstance(moment, Moment):
            return moment
        return Moment.combine(moment, time(), self._in(tz))

    def _in(self, tz: str | None) -> ZoneInfo:
        return self._zone if tz is None else _zone(tz)


FILTERS: Mapping[str, Callable[..., str]] = {
    "date": Formats.date,
    "time": Formats.time,
    "datetime": Formats.datetime,
    "number": Formats.number,
    "percent": Formats.percent,
    "currency": Formats.currency,
    "listing": Formats.listing,
    "plural": Formats.plural,
}


@lru_cache(maxsize=256)
def formats_for(tag: str, timezone: str) -> Formats:
    """Shared: they are made once for each language and zone."""
    return Formats(tag, timezone)


def _locale(tag: str) -> Locale:
    """The nearest language that Babel knows: zh-Hant-TW, zh-Hant, zh, else English."""
    parts = tag.replace("_", "-").split("-")
    for length in range(len(parts), 0, -1):
        try:
            return Locale.parse("-".join(parts[:length]), sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return Locale.parse("en")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError, TypeError):  # ZoneInfoNotFoundError is a KeyError
        raise FormatError("tz must be a time zone of the IANA database, for example Europe/Berlin") from None


def _style(style: str) -> Any:
    if style not in _STYLES:
        raise FormatError(f"a style is one of {', '.join(_STYLES)}")
    return style


def _moment(value: Any) -> date | datetime:
    """A date, or a date-time with an offset."""
    text = value if isinstance(value, str) else ""
    try:
        if len(text) == 10:
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise FormatError("must be a date or a date-time of RFC 3339, for example 2026-11-27T18:00:00+08:00") from None
    if moment.tzinfo is None:
        raise FormatError("a date-time needs an offset, for example 2026-11-27T18:00:00+08:00")
    return moment


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > _MOST_DIGITS:
        raise FormatError("must be a number, or a decimal as text")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise FormatError("must be a number, or a decimal as text") from None
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise FormatError("must be a finite number")
    return number
