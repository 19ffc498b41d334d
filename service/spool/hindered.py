"""Loops that the store keeps from their work, told as one: when it begins, once a minute while it lasts, and when it is over.

The loops of a process try again many times a second, and each fails for the same reason, so one line speaks for all of
them. What is wrong with the store is the store's to tell (`store.failed`), once for each time; a fault of our own is told
by its loop, each time.
"""

from service.clock import Clock
from service.errors import PostroomError
from service.telemetry import Log, get_logger

_TOLD_EVERY = 60.0  # seconds between two lines, also when it comes and goes
log = get_logger()


class Hindered:
    """The loops of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loops: set[str] = set()  # whose last try failed
        self._failures = 0  # since the last line
        self._told_at: float | None = None  # by the monotonic clock
        self._told = False  # and the end of it was not told yet

    def failed(self, loop: str, error: PostroomError) -> None:
        """A try of a loop, by its name, ended by this."""
        self._loops.add(loop)
        self._failures += 1
        now = self._clock.monotonic()
        if self._told_at is None or now >= self._told_at + _TOLD_EVERY:
            log.warning(Log.LOOP_FAILED, during=sorted(self._loops), detail=error.detail, failures=self._failures)
            self._told_at, self._told, self._failures = now, True, 0

    def worked(self, loop: str) -> None:
        """A try of a loop went well."""
        self._loops.discard(loop)
        if self._told and not self._loops:
            log.info(Log.LOOP_RECOVERED, failures=self._failures)
            self._told, self._failures = False, 0
