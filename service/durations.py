"""Durations and rates as people write them: `10m`, `1h30m`, `100/s`, `30/15m`."""

import re
from dataclasses import dataclass

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_LONGEST_WINDOW = 3660 * 86400.0  # seconds, ten years
_MOST = 10**9  # in one window
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
    if not slash or not count.isascii() or not count.isdigit() or not count.strip("0"):
        raise ValueError("must be a rate, for example `100/s`, `30/15m` or `200/d`")
    window = window.strip()
    rate = Rate(
        int(count.lstrip("0")[: len(str(_MOST)) + 1]), parse_duration("1" + window if window in _UNITS else window)
    )
    if rate.count > _MOST or not 0.001 <= rate.window <= _LONGEST_WINDOW:
        raise ValueError(f"must be a rate of at most {_MOST} in a window of 1ms to 3660d")
    return rate


def shown(seconds: float) -> str:
    """A duration as `parse_duration` reads it, in the largest unit that leaves no rest: `90d`, `10m`, `1.5s`."""
    unit = next((name for name in ("d", "h", "m") if seconds >= _UNITS[name] and seconds % _UNITS[name] == 0), "s")
    return f"{seconds / _UNITS[unit]:.12g}{unit}"
