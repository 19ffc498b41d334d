"""How long a relay rests after trouble, and how many connections it bears. Pure: time is an argument.

Each class of trouble has its own steps (relay/policy.toml). The same trouble again, after a pause for it was over,
takes the next step; told again while it lasts, as several connections do at once, it changes nothing. Success steps
back slowly: one step for each time as long as the pause was, so that a provider's window of an hour is not forgotten
with the first message that it lets through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from service.mail.outcome import UNTIL_RESET

_SLACK = 100  # ms by which a timer may come early
_UNKNOWN_RESET = 3600.0  # seconds until the next look when nobody knows when a provider counts anew
_WIDEN_AFTER = 600.0  # seconds of success before one more connection is tried


@dataclass(slots=True)
class _Trouble:
    steps: Sequence[float]
    step: int
    times: int  # in a row
    length: float  # seconds of the last pause
    until: int  # ms


class Backoff:
    """The troubles of one relay, by class."""

    def __init__(self, zone: str = "") -> None:
        self._zone = ZoneInfo(zone) if zone else None
        self._troubles: dict[str, _Trouble] = {}

    def blame(self, kind: str, steps: Sequence[float], now: int) -> float:
        """Seconds to rest from `now` (ms)."""
        known = self._troubles.get(kind)
        if known is not None and now < known.until - _SLACK:
            return (known.until - now) / 1000
        step = 0 if known is None else min(known.step + 1, len(steps) - 1)
        length = self._seconds(steps[step], now)
        times = 1 if known is None else known.times + 1
        self._troubles[kind] = _Trouble(steps, step, times, length, now + int(length * 1000))
        return length

    def times(self, kind: str) -> int:
        """How often in a row."""
        known = self._troubles.get(kind)
        return known.times if known else 0

    def succeeded(self, now: int) -> None:
        """A message was accepted."""
        for kind, trouble in list(self._troubles.items()):
            if now < trouble.until + int(trouble.length * 1000):
                continue
            if trouble.step == 0:
                del self._troubles[kind]
                continue
            trouble.step -= 1
            trouble.times = 0
            trouble.length, trouble.until = self._seconds(trouble.steps[trouble.step], now), now

    def forget(self, kind: str) -> None:
        """It is disproved: a login has succeeded."""
        self._troubles.pop(kind, None)

    def _seconds(self, step: float, now: int) -> float:
        if step != UNTIL_RESET:
            return step
        return _UNKNOWN_RESET if self._zone is None else _until_midnight(self._zone, now)


def _until_midnight(zone: ZoneInfo, now: int) -> float:
    here = datetime.fromtimestamp(now / 1000, zone)
    midnight = datetime.combine(here.date() + timedelta(days=1), datetime.min.time(), zone)
    return midnight.timestamp() - now / 1000


class Width:
    """How many connections a relay bears at once: halved when it complains, widened one by one while it is content."""

    def __init__(self, most: int) -> None:
        self.now_at_most = most
        self._most = most
        self._changed = 0  # ms

    def halve(self, now: int, seconds: float) -> None:
        """The relay complained; complaints within `seconds` of the last one are the same complaint."""
        if now >= self._changed + int(seconds * 1000):
            self.now_at_most = max(1, self.now_at_most // 2)
        self._changed = now

    def succeeded(self, now: int) -> None:
        """A message was accepted."""
        if self.now_at_most < self._most and now >= self._changed + int(_WIDEN_AFTER * 1000):
            self.now_at_most += 1
            self._changed = now
