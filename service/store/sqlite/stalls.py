"""Whether the file was locked for so long just now that processes which live could not renew their leases.

A process that stands still within a commit holds up all others. When it goes on, their leases look over, and whoever is
first to the lock must not take their attempts for orphans: they come to renew in a moment. Those whose holder is dead are
orphans all the same.
"""

from service.clock import Clock

_LONG = 1.0  # seconds: a lease of the shortest kind allowed, 2 s, has renewals at each third of it
_RARE = 2.0  # seconds between two looks for orphans, which come once a second unless this process stood still
_GRACE = 2.0  # seconds for those who wait too


class Stalls:
    """What one process has seen of it, by the clock that never steps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spare_until = 0.0
        self._looked: float | None = None

    def waited(self, asked: float) -> float:
        """Seconds since something was asked for that is done now, which is when it was let in."""
        now = self._clock.monotonic()
        if now - asked > _LONG:
            self._spare_until = now + _GRACE
        return now - asked

    def looks(self) -> None:
        """A look for orphans begins. Whoever has stood still may have held the lock meanwhile."""
        now = self._clock.monotonic()
        if self._looked is not None and now - self._looked > _RARE:
            self._spare_until = now + _GRACE
        self._looked = now

    def lately(self) -> bool:
        """Whether leases that look over may be those of processes that could not help it."""
        return self._clock.monotonic() < self._spare_until
