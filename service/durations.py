"""Durations and rates as people write them: `10m`, `1h30m`, `100/s`, `30/15m`."""

import re
from dataclasses import dataclass

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds of `90`, `10m` or `1h30m`. Raises ValueError with a sentence."""
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError("must be a duration: seconds, or for example `90s`, `10m`, `1h30m`, `4d`")
    return sum(float(part[1]) * _UNITS[part[2]] for part in parts)


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` in any `window` seconds."""

    count: int
    window: float

    def __str__(self) -> str:
        return f"{self.count}/{self.window:g}s"


def parse_rate(text: str) -> Rate:
    """`100/s`, `30/15m`, `200/d`. Raises ValueError with a sentence."""
    count, slash, window = text.strip().partition("/")
    if not slash or not count.isascii() or not count.isdigit() or int(count) < 1:
        raise ValueError("must be a rate, for example `100/s`, `30/15m` or `200/d`")
    window = window.strip()
    return Rate(int(count), parse_duration("1" + window if window in _UNITS else window))
