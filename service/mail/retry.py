"""When to try again: the retry schedule with full jitter, and the wait after an attempt in doubt."""

from collections.abc import Sequence

SCHEDULE: tuple[float, ...] = (5, 30, 120, 300, 900, 1800, 3600)
"""Seconds after the first, second, ... charged attempt; the last repeats until `ttl`."""


def base_delay(charged: int, schedule: Sequence[float] = SCHEDULE) -> float:
    """Seconds of the schedule after `charged` (>= 1) charged attempts."""
    return schedule[min(max(charged, 1), len(schedule)) - 1]


def next_due(
    now: int,
    charged: int,
    jitter: float,
    *,
    schedule: Sequence[float] = SCHEDULE,
    at_least: float = 0.0,
    expires_at: int | None = None,
) -> int:
    """The time (ms) of the next attempt: full jitter over the second half of the delay, never past `expires_at`.

    now: ms. charged: attempts charged so far, the one just closed included. jitter: in [0, 1). at_least: seconds that a
    pause or the reply asks for; the longest wait wins. Half of the delay is kept fixed so that a burst of failures
    can't come back at once, which pure full jitter allows.
    """
    delay = base_delay(charged, schedule)
    wait = max(delay / 2 + delay / 2 * jitter, at_least)
    due = now + int(wait * 1000)
    return due if expires_at is None else min(due, expires_at)
