"""Whether processes that live may just have been kept from renewing their leases.

A process that stands still within a commit holds up all others, and storage that is away keeps everybody from everything.
When it goes on, their leases look over, and whoever comes first must not take their attempts for orphans: they come to
renew in a moment. Those whose holder is dead are orphans all the same.
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
        self._recovered: float | None = None

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

    def recovered(self) -> None:
        """The storage takes writes again after a time in which it did not: of ours the first ones, when we have just begun and
        can't know how long others had to do without.
        """
        self._recovered = self._clock.monotonic()

    def lately(self, grace: float) -> bool:
        """Whether leases that look over may be those of processes that could not help it. grace: see RescuePolicy."""
        now = self._clock.monotonic()
        return now < self._spare_until or (self._recovered is not None and now < self._recovered + grace)
