"""By what time retention deletes. What it deletes is gone, so a wall clock that is wrong for a moment must not tell it.

It believes the clock (service/steady.py) later than the rest of the service does: once it has stayed far ahead for an hour. And
it doubts one already that is ten minutes ahead of the newest line that the store has when this process starts.
"""

from service.clock import Clock
from service.steady import Belief

_FAR = 600.0  # seconds ahead that are no cause for doubt
_PATIENCE = 3600.0  # seconds for which a clock far ahead must stay so


class RetentionClock:
    """Of one process. `doubted`: see Belief."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._belief = clock, Belief(_FAR, _PATIENCE)
        self._asked = False

    @property
    def doubted(self) -> float:
        return self._belief.doubted

    def now(self, newest: int | None) -> int:
        """The time by which to delete, ms. newest: the store's newest moment (ms), heard by the first call alone."""
        told, monotonic = self._clock.told(), self._clock.monotonic()
        if not self._asked and newest is not None and newest < told:
            self._belief.remember(newest, monotonic)
        self._asked = True
        return self._belief.time(told, monotonic)
