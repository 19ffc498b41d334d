"""The only source of time and randomness. Times are integers: milliseconds since the Unix epoch, UTC.

Nothing else in the package calls `time`, `datetime.now`, `random` or `secrets`; tests freeze or step a `Clock`.
"""

import os
import random
import secrets
import time
from datetime import UTC, datetime
from functools import lru_cache

from ulid_transform import bytes_to_ulid

# Linux: one that goes on while the machine is suspended, as leases do that others count
_UNSTEPPED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The system's clocks and entropy. A test passes a subclass with fixed answers."""

    def now(self) -> int:
        """Wall clock, milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def told(self) -> int:
        """What the wall clock tells (ms) even while it is doubted (service/steady.py); else `now`."""
        return self.now()

    @property
    def doubted(self) -> float:
        """Seconds by which `told` is ahead of `now` because of that doubt."""
        return 0.0

    @property
    def source(self) -> "Clock":
        """The clock that this one is made of: itself."""
        return self

    def begin(self, *moments: int | None) -> None:
        """A process starts, and at these moments (ms) its store was in use; None is no moment."""

    def heard(self, server: int) -> None:
        """A database has just said that by its clock it is `server` (ms)."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps, a suspended machine included; only differences mean anything."""
        return time.clock_gettime(_UNSTEPPED)

    def new_id(self, prefix: str) -> str:
        """A new sortable id, `prefix` + ULID, e.g. `msg_01JDE...` (128 bits, 80 of them random)."""
        return prefix + bytes_to_ulid(self.told().to_bytes(6, "big") + os.urandom(10))

    def token(self, size: int = 32) -> str:
        """`size` random bytes, URL-safe base64 without padding."""
        return secrets.token_urlsafe(size)

    def jitter(self) -> float:
        """A number in [0, 1) to spread retries; not for secrets."""
        return random.random()


SYSTEM = Clock()


def rfc3339(ms: int) -> str:
    """`2026-11-24T10:43:00.123Z` (RFC 3339 section 5.6, UTC)."""
    whole, rest = divmod(ms, 1000)
    return f"{_second(whole)}.{rest:03d}Z"


@lru_cache(maxsize=16)  # most of what is asked for is now
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def ulid_floor(ms: int, prefix: str) -> str:
    """The smallest id that `new_id` could have made at `ms`: a lower bound for a range over ids."""
    within = min(max(ms, 0), 2**48 - 1)  # what a ULID's 48 bits can say
    return prefix + bytes_to_ulid(within.to_bytes(6, "big") + bytes(10))
