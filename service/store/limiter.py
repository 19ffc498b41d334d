"""A sliding window that is exact: at most `count` in any `window`, and no later than that demands.

What counts is kept as moments, each with how much was taken then. Up to 256 in a window each moment stands for itself,
to the millisecond; above, takes within 1/128 of the window are kept together as if all were made at the last of them:
late by at most that, never early. A calendar day ends at its midnight for all that was taken on it.

What is taken when mail is claimed is `open` until its transaction is over, and counts from its end on: between claim
and end a relay may have counted it at any moment, so the window as the relay sees it is never shorter than this one.

The state is a row in the store, so it survives a kill and holds over processes. Pure: the store reads and writes it
inside the transaction that it decides about.
"""

import struct
from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from math import ceil
from zoneinfo import ZoneInfo

from service.durations import Rate
from service.mail.quota import Quota

_EXACT = 256  # takes in a window that are kept one by one
_GRAINS = 128  # of a window with more
_QUARTER = 900_000  # ms: every zone's midnight is at a quarter of an hour
_LONGEST_DAY = 25 * 3_600_000  # ms
_HEAD = struct.Struct("<Iqq")  # open, window, grain; then the moments (8 octets each) and how much each took (4)
_ENTRY = 12  # octets
_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Span:
    """For how long a take counts (ms). `zone`: until its midnight there, and `guard` longer."""

    window: int
    grain: int
    zone: str = ""
    guard: int = 0

    def since(self, now: int) -> int:
        """The earliest moment whose takes still count."""
        return _midnight(now - self.guard, self.zone, 0) if self.zone else now - self.window + 1

    def leaves(self, at: int) -> int:
        """When what was taken at `at` counts no more."""
        return _midnight(at, self.zone, 1) + self.guard if self.zone else at + self.window


def _midnight(at: int, zone: str, days: int) -> int:
    """The midnight that begins the day of `at`, or of a later day (ms)."""
    where = ZoneInfo(zone)
    day = datetime.fromtimestamp(at / 1000, where).date() + timedelta(days=days)
    return int(datetime.combine(day, datetime.min.time(), where).timestamp() * 1000)


@lru_cache(maxsize=256)
def _sliding(count: int, seconds: float) -> Span:
    window = max(ceil(seconds * 1000), 1)
    return Span(window, 1 if count <= _EXACT else max(window // _GRAINS, 1))


@cache
def span_of(quota: Quota) -> Span:
    """For how long a take of a relay's quota counts."""
    guard = ceil(quota.guard * 1000)
    if quota.zone:
        return Span(_LONGEST_DAY + guard, _QUARTER, quota.zone, guard)
    return _sliding(quota.rate.count, quota.rate.window + quota.guard)


class Takes:
    """What still counts, decoded."""

    __slots__ = ("_grain", "_window", "corrected", "counts", "moments", "open")

    def __init__(self, window: int, grain: int) -> None:
        self._window, self._grain = window, grain
        self.open = 0
        self.corrected = False  # it differs from what was read, though nothing was taken
        self.moments: list[int] = []
        self.counts: list[int] = []

    @classmethod
    def unpack(cls, state: bytes) -> "Takes":
        """As it was packed."""
        open, window, grain = _HEAD.unpack_from(state)
        takes = cls(window, grain)
        number = (len(state) - _HEAD.size) // _ENTRY
        values = struct.unpack_from(f"<{number}q{number}I", state, _HEAD.size)
        takes.open, takes.moments, takes.counts = open, list(values[:number]), list(values[number:])
        return takes

    @classmethod
    def read(cls, state: bytes | None, span: Span, now: int) -> "Takes":
        """What of `state` counts at `now`."""
        if state is None:
            return cls(span.window, span.grain)
        takes = cls.unpack(state)
        takes._window, takes._grain = span.window, span.grain
        if takes.moments and takes.moments[-1] > now + span.window:
            # a clock that ran ahead was set right: it was taken before now, whatever it says
            takes.moments = [min(at, now) for at in takes.moments]
            takes.corrected = True
        gone = bisect_left(takes.moments, span.since(now))
        del takes.moments[:gone], takes.counts[:gone]
        return takes

    def pack(self) -> bytes:
        """For the store."""
        number = len(self.moments)
        return _HEAD.pack(self.open, self._window, self._grain) + struct.pack(
            f"<{number}q{number}I", *self.moments, *self.counts
        )

    @property
    def used(self) -> int:
        """Units."""
        return self.open + sum(self.counts)

    @property
    def idle_after(self) -> int:
        """When nothing counts any more (ms): the row can go. Not while something is open."""
        if self.open:
            return _NEVER
        return self.moments[-1] + self._window + 1 if self.moments else 0

    def free_at(self, cost: int, count: int, span: Span, now: int) -> int:
        """When (ms) `cost` units fit among `count`; 0: now. What is open may end now at the earliest."""
        excess = self.used + cost - count
        if excess <= 0:
            return 0
        for at, taken in zip(self.moments, self.counts, strict=True):
            excess -= taken
            if excess <= 0:
                return span.leaves(at)
        return span.leaves(now)

    def add(self, now: int, cost: int) -> None:
        """Take `cost` units at `now`. Moments never go back, whatever a clock does."""
        last = self.moments[-1] if self.moments else None
        if last is not None and (now <= last or now // self._grain == last // self._grain):
            self.moments[-1] = max(now, last)
            self.counts[-1] += cost
        else:
            self.moments.append(now)
            self.counts.append(cost)

    def close(self, cost: int, now: int, *, spent: bool) -> None:
        """Units that were open are over: spent at `now`, or given back."""
        self.open = max(self.open - cost, 0)
        if spent:
            self.add(now, cost)


def take(state: bytes | None, now: int, rate: Rate, cost: int) -> tuple[bytes | None, float]:
    """Take `cost` at `now` (ms).

    Returns the new state and 0.0, or None and the seconds after which it may fit. A cost over the whole count never
    fits and answers the whole window.
    """
    if cost > rate.count:
        return None, rate.window
    span = _sliding(rate.count, rate.window)
    takes = Takes.read(state, span, now)
    if at := takes.free_at(cost, rate.count, span, now):
        return None, max((at - now) / 1000, 0.001)
    takes.add(now, cost)
    return takes.pack(), 0.0


def idle_after(now: int, rate: Rate) -> int:
    """When a limiter that is left alone is full again (ms): its row can go."""
    return now + ceil(rate.window * 1000) + 1
