"""template.toml read into plain JSON data, whatever the text is.

The reader of the standard library takes time that grows with the square of a dotted key's length, goes down arrays by
recursion, and hands on what Python says of a number of thousands of digits. So the text is looked through first: strings
and comments set aside, how deep is what is left?
"""

import re
import tomllib
from datetime import date, datetime, time
from typing import Any

from service.mail.fault import TemplateFault

_DEEPEST = 64  # tables and arrays in one another
_MOST_STEPS = 32  # of a dotted key
_MOST_DIGITS = 400  # of a number; JSON has fewer
# TOML 1.0, String and Comment; what is not closed reaches to the end, where the reader says so
_APART = re.compile(
    r""""{3}(?:\\.|[^\\"]|"(?!""))*+(?:"{3,5}|\\?\Z)|'{3}(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"""
    r"""|"(?:\\.|[^"\\\n])*+(?:"|\n|\\?\Z)|'[^'\n]*+(?:'|\n|\Z)|\#[^\n]*+""",
    re.S,
)
_BETWEEN = re.compile(r"[=,\[\]{}\n]")
_LONG_NUMBER = re.compile(rf"[0-9a-fA-F_]{{{_MOST_DIGITS}}}")


def read_toml(text: str, where: str) -> dict[str, Any]:
    """As JSON has it. `where`: the file, for faults. Raises TemplateFault."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    _look_through(text, where)
    try:
        head = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        last = text.count("\n") + 1  # "at end of document"
        raise TemplateFault(where, int(line[1]) if line else last, str(error)) from None
    return {key: _plain(value, where, _DEEPEST) for key, value in head.items()}


def _look_through(text: str, where: str) -> None:
    """Refuse what would cost the reader too much. Raises TemplateFault."""
    line, depth, steps = 1, 0, 0
    left = _APART.sub(_set_aside, text)
    at = 0
    for mark in _BETWEEN.finditer(left):
        steps = left.count(".", at, mark.start())
        at = mark.end()
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
        if steps > _MOST_STEPS or depth > _DEEPEST:
            raise TemplateFault(where, line, "is nested too deeply")
        line += mark[0] == "\n"
    if left.count(".", at) > _MOST_STEPS:
        raise TemplateFault(where, line, "is nested too deeply")
    if (long := _LONG_NUMBER.search(left)) is not None:
        line = left.count("\n", 0, long.start()) + 1
        raise TemplateFault(where, line, f"holds a bare word or a number of more than {_MOST_DIGITS} characters")


def _set_aside(found: re.Match[str]) -> str:
    """A string is a letter and a comment is nothing, and both keep their lines."""
    return ("" if found[0][0] == "#" else "s") + "\n" * found[0].count("\n")


def _plain(value: Any, where: str, levels: int) -> Any:
    """As JSON has it: TOML's dates become text, and numbers that JSON has not are refused. Raises TemplateFault."""
    if levels == 0:
        raise TemplateFault(where, 1, "is nested too deeply")
    if isinstance(value, dict):
        return {key: _plain(each, where, levels - 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, where, levels - 1) for each in value]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, int | float) and not abs(value) < 2**63:
        raise TemplateFault(where, 1, "holds a number that JSON has not, or one that is out of range")
    return value
