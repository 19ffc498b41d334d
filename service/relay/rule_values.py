"""The values in a row of the reply policy: each parser takes what TOML gave and refuses it with a sentence."""

import re
from collections.abc import Callable, Sequence

from service.durations import parse_duration
from service.mail.outcome import UNTIL_RESET

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_CODE = re.compile(r"[245](\d\d|\dz|yz)")
_ENHANCED = re.compile(r"([245*])\.(\d{1,3}|\*)\.(\d{1,3}|\*)")


class Refused(ValueError):
    """Why a value is refused: a sentence that goes on after the key."""


def words(value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise Refused("must be a list of strings")
    return value


def text(value: object) -> str:
    if not isinstance(value, str):
        raise Refused("must be a string")
    return value


def name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Refused("must be made of lower-case letters, digits and -")
    return value


def one_of(known: Sequence[str]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in known:
            raise Refused(f"{value!r} is none of {', '.join(known)}")
        return str(value)

    return parse


def several_of(known: Callable[[], Sequence[str]]) -> Callable[[object], frozenset[str]]:
    def parse(value: object) -> frozenset[str]:
        return frozenset(one_of(known())(each) for each in words(value))

    return parse


def codes(value: object) -> frozenset[int]:
    """`550`, or a pattern: `55z` is 550 to 559, `5yz` 500 to 599."""
    found: set[int] = set()
    for each in words(value):
        if not _CODE.fullmatch(each):
            raise Refused(f'{each!r} is no reply code and no pattern like "55z" or "5yz"')
        first = int(each.replace("y", "0").replace("z", "0"))
        found.update(range(first, first + 10 ** (each.count("y") + each.count("z"))))
    return frozenset(found)


def enhanced(value: object) -> re.Pattern[str]:
    """Dots are literal; `*` stands for one number."""
    parts = []
    for each in words(value):
        if each and not _ENHANCED.fullmatch(each):
            raise Refused(f'{each!r} is no enhanced code and no pattern like "5.6.*"')
        parts.append(re.escape(each).replace(r"\*", r"\d+"))
    return re.compile("|".join(parts))


def regex(value: object) -> re.Pattern[str]:
    """A dot that is not repeated is a mistake: `5.1.1` would match `165.1.1.9`, and `a.b` far more than was meant."""
    pattern = text(value)
    if re.search(r"\.(?![*+?{])", re.sub(r"\\.|\[(?:\\.|[^\]])*\]", "", pattern)):
        raise Refused("a dot stands for any character: write \\. for a dot, or .* for any text")
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise Refused(f"is no regular expression: {error}") from None


def seconds(value: object) -> float:
    try:
        return parse_duration(text(value))
    except Refused:
        raise
    except ValueError as error:
        raise Refused(str(error)) from None


def pauses(value: object) -> tuple[float, ...]:
    steps = tuple(UNTIL_RESET if each == "reset" else seconds(each) for each in words(value))
    if min(steps) <= 0:
        raise Refused("must be longer than nothing")
    return steps


def count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Refused("must be a whole number from 1 up")
    return value


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused("must be true or false")
    return value


def alert(value: object) -> int:
    return int(value) if isinstance(value, bool) else count(value)
