"""By what time retention deletes. What it deletes is gone, so a wall clock that is wrong for a moment must not tell it.

The clock is believed as far as it goes on like the monotonic clock does, and is not far ahead of the newest line that the store
has when this process starts. A clock that is further ahead is believed once it has stayed so for an hour, as it does
after a machine stood still or had nothing to do; until then retention goes by the time that was believed before. A clock that
goes back is believed at once: it deletes less.
"""

from service.clock import Clock

_FAR = 600.0  # seconds ahead that are no cause for doubt
_PATIENCE = 3600.0  # seconds for which a clock far ahead must stay so


class RetentionClock:
    """Of one process. `doubted`: seconds by which the wall clock is ahead of what is believed, 0 while it is believed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._believed: float | None = None  # seconds by which wall-clock time is ahead of the monotonic clock
        self._doubt: tuple[float, float] | None = None  # since when (monotonic), and the difference then
        self.doubted = 0.0

    def now(self, newest: int | None) -> int:
        """The time by which to delete, ms. newest: the store's newest moment (ms), heard by the first call alone."""
        told, monotonic = self._clock.now(), self._clock.monotonic()
        ahead = told / 1000 - monotonic
        if self._believed is None:
            self._believed = ahead if newest is None else min(ahead, newest / 1000 - monotonic)
        if ahead - self._believed <= _FAR or self._stays(ahead, monotonic):
            self._believed, self._doubt, self.doubted = ahead, None, 0.0
            return told
        self.doubted = ahead - self._believed
        return told - round(self.doubted * 1000)

    def _stays(self, ahead: float, monotonic: float) -> bool:
        """Whether the clock has been as far ahead as now for long."""
        if self._doubt is None or abs(ahead - self._doubt[1]) > _FAR:
            self._doubt = monotonic, ahead
        return monotonic - self._doubt[0] >= _PATIENCE
