"""Amounts of money at the pace of a mail: Babel's own result, learnt once for each language and currency.

Babel looks up the pattern, the symbol and the plural name anew for every amount, which costs more than composing a
message. What differs between two amounts is the digits alone; so one example of each sign is asked for, and digits
are put in its place. Where an example does not have the usual form (other digits, groups of two as in India, a name that
follows the count), Babel writes every amount itself.
"""

import re
from collections.abc import Callable
from decimal import Decimal

from babel import Locale
from babel.numbers import format_currency

Write = Callable[[Decimal], str]

_EXAMPLE = Decimal("1234567.1234321")
_SHAPE = re.compile(
    r"(?P<before>[^0-9]*)1(?P<group>[^0-9]?)234(?P=group)567(?:(?P<point>[^0-9])(?P<places>1[0-9]*))?(?P<after>[^0-9]*)"
)
_WIDE = (
    Decimal(10) ** 15
)  # Decimal keeps 28 digits and rounds the rest away: larger amounts are Babel's, which refuses them


def amount_writer(locale: Locale, code: str) -> Write:
    """A function that writes amounts as `format_currency` does."""

    def by_babel(value: Decimal) -> str:
        return format_currency(value, code, locale=locale)

    plus, minus = (_SHAPE.fullmatch(by_babel(sign)) for sign in (_EXAMPLE, -_EXAMPLE))
    if plus is None or minus is None:
        return by_babel
    places = len(plus["places"] or "")
    form, group, point = f",.{places}f", plus["group"], plus["point"] or ""
    separators = str.maketrans({",": group, ".": point})

    def by_digits(value: Decimal) -> str:
        if not -_WIDE < value < _WIDE:
            return by_babel(value)
        around = minus if value.is_signed() else plus
        return around["before"] + format(abs(value), form).translate(separators) + around["after"]

    return by_digits
