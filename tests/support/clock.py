"""A clock for tests: fixed time, fixed ids, no jitter, and it moves only by `step`."""

from service.clock import Clock

EPOCH = 1_764_000_000_000  # ms


class SteppedClock(Clock):
    """Starts at EPOCH; ids count up; tokens are different each time but predictable."""

    def __init__(self, now: int = EPOCH) -> None:
        self._now, self._mono, self._count = now, 1000.0, 0

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._mono

    def step(self, seconds: float) -> None:
        """Move wall clock and monotonic clock."""
        self._now += int(seconds * 1000)
        self._mono += seconds

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}01TEST{self._count:020d}"

    def token(self, size: int = 32) -> str:
        self._count += 1
        return f"{self._count:043d}"[::-1]  # keys are told apart by how they begin

    def jitter(self) -> float:
        return 0.5
