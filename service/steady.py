"""The time that the service goes by: the wall clock, as far as it can be believed.

A wall clock that is set far ahead makes mail late and scheduled mail due though no time has passed. So it is believed as
far as it goes on like the monotonic clock. One that jumps ahead is believed once it has stayed so for a while, as it does
after the machine stood still. One that goes back is believed at once: that ends nothing and starts nothing.

`now` is what is due, late or over by; `told` is what a new message says of itself (Date, created_at, when its ttl ends). They
differ only while the clock is doubted. Mail whose ttl is over by `told` and not by `now` is neither sent nor ended meanwhile:
store.claim puts it off.
"""

from service.clock import Clock

_DRIFT = 1000  # ms by which a clock may be ahead of a database's: what an answer takes is no difference
_LONG_SILENCE = 86_400_000  # ms for which a store was not in use when a process starts on it: less is no jump


class Belief:
    """What is believed of a wall clock. `doubted`: seconds by which it is ahead of that, 0 while it is believed."""

    def __init__(self, far: float, patience: float) -> None:
        """far: seconds ahead that are no cause for doubt. patience: seconds for which a clock further ahead must stay so."""
        self._far, self._patience = far, patience
        self._believed: float | None = None  # seconds by which wall-clock time is ahead of the monotonic clock
        self._doubt: tuple[float, float] | None = None  # since when (monotonic), and the difference then
        self.doubted = 0.0

    def remember(self, moment: int, monotonic: float) -> None:
        """Before anything is asked: it is believed to be `moment` (ms) at `monotonic` (s)."""
        self._believed = moment / 1000 - monotonic

    def forget(self) -> None:
        """The clock is told to be right by who knows."""
        self._believed, self._doubt = None, None

    def time(self, told: int, monotonic: float) -> int:
        """What time it is (ms), when the wall clock has told `told` at `monotonic` (s)."""
        ahead = told / 1000 - monotonic
        if self._believed is None or ahead - self._believed <= self._far or self._stays(ahead, monotonic):
            self._believed, self._doubt, self.doubted = ahead, None, 0.0
            return told
        self.doubted = ahead - self._believed
        return round((self._believed + monotonic) * 1000)

    def _stays(self, ahead: float, monotonic: float) -> bool:
        """Whether the clock has been as far ahead as now for long."""
        if self._doubt is None or abs(ahead - self._doubt[1]) > self._far:
            self._doubt = monotonic, ahead
        return monotonic - self._doubt[0] >= self._patience


class SteadyClock(Clock):
    """See the module. Of one process, over the system's clock."""

    def __init__(self, source: Clock, jump: float, patience: float) -> None:
        """jump, patience: seconds, see Belief."""
        self._source, self._belief = source, Belief(jump, patience)
        self._server: float | None = (
            None  # s by which a database, whom our clock is ahead of, is ahead of the monotonic clock
        )

    @property
    def source(self) -> Clock:
        return self._source

    @property
    def doubted(self) -> float:
        return self._belief.doubted

    def now(self) -> int:
        return self._belief.time(self.told(), self.monotonic())

    def told(self) -> int:
        if self._server is None:
            return self._source.now()
        return round((self._server + self.monotonic()) * 1000)

    def monotonic(self) -> float:
        return self._source.monotonic()

    def heard(self, server: int) -> None:
        """A host's clock that is ahead of the database's is not asked any more until the two agree: it may be set at any time."""
        wall, ahead = self._source.now(), server / 1000 - self.monotonic()
        if wall - server > _DRIFT:
            if self._server is None or abs(ahead - self._server) * 1000 > _DRIFT:
                self._server = ahead
        elif self._server is not None:
            self._server = None
            self._belief.forget()

    def begin(self, *moments: int | None) -> None:
        last = max((moment for moment in moments if moment is not None), default=None)
        if last is not None and self.told() - last > _LONG_SILENCE:
            self._belief.remember(last, self.monotonic())
