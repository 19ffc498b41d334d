"""A sliding window in slices: at most `count` in any `window`, without bursts of twice that at a window's edge.

The window is cut into 16 slices and the slice that is leaving still counts whole, so the limit errs by at most 1/16 to
the strict side, never to the loose one. The state is a few bytes that live in the store, so it survives a kill and
holds over processes. Pure: the store reads and writes it inside the transaction that it decides about.
"""

import struct

from service.durations import Rate

_SLICES = 16
_FORMAT = struct.Struct(f"<q{_SLICES + 1}I")  # number of the newest slice, then its count and those before it


def take(state: bytes | None, now: int, rate: Rate, cost: int) -> tuple[bytes | None, float]:
    """Take `cost` at `now` (ms).

    Returns the new state and 0.0, or None and the seconds after which it may fit. A cost over the whole count never
    fits and answers the whole window.
    """
    width = max(rate.window * 1000 / _SLICES, 1e-3)  # ms
    slice_now = int(now // width)
    counts = _slide(state, slice_now)
    if sum(counts) + cost <= rate.count:
        counts[0] += cost
        return _FORMAT.pack(slice_now, *counts), 0.0
    return None, _wait(counts, slice_now, width, now, rate, cost)


def idle_after(now: int, rate: Rate) -> int:
    """When a limiter that is left alone is full again (ms): its row can go."""
    return now + int(rate.window * 1000 * (_SLICES + 1) / _SLICES) + 1


def _slide(state: bytes | None, slice_now: int) -> list[int]:
    if state is None:
        return [0] * (_SLICES + 1)
    newest, *counts = _FORMAT.unpack(state)
    gone = min(max(slice_now - newest, 0), _SLICES + 1)  # a clock that stepped back changes nothing
    return [0] * gone + counts[: _SLICES + 1 - gone]


def _wait(counts: list[int], slice_now: int, width: float, now: int, rate: Rate, cost: int) -> float:
    """Seconds until enough of the oldest slices have left."""
    excess = sum(counts) + cost - rate.count
    for age in range(_SLICES, -1, -1):
        excess -= counts[age]
        if excess <= 0:
            leaves = (slice_now + _SLICES + 1 - age) * width  # ms
            return max((leaves - now) / 1000, 0.001)
    return rate.window
