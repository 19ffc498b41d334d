"""What one rendering has spent: the moment it must be done by, and how much it may hold at once."""

from collections.abc import Callable
from typing import Any

METER = "_meter"  # the name in the context under which the rendering's meter stands; authors can't write it
MOST_VALUES = 50_000  # in a list or a table with all that it holds: more is no mail
MOST_LEVELS = 500  # of lists in lists: beyond that it depends on Python's version what can be written out
MOST_CHARACTERS = 1024 * 1024  # of the variables in all


class TooMuch(Exception):
    """A rendering costs more than it may; the sentence says what."""


class Meter:
    """The limits of one part of one rendering: a moment on `monotonic` (seconds), and octets."""

    __slots__ = ("_deadline", "_kept", "_monotonic", "max_bytes")

    def __init__(self, deadline: float, monotonic: Callable[[], float], max_bytes: int) -> None:
        self._deadline, self._monotonic, self.max_bytes = deadline, monotonic, max_bytes
        self._kept = 0

    def tick(self) -> None:
        """One more step. Raises TooMuch after the deadline."""
        if self._monotonic() > self._deadline:
            raise TooMuch("rendering took too long (POSTROOM_RENDER_TIMEOUT)")

    def fits(self, size: int) -> None:
        """Whether a text of `size` characters may be made. Raises TooMuch."""
        if size > self.max_bytes:
            raise TooMuch(f"the result is larger than {self.max_bytes} octets (POSTROOM_MAX_RENDERED_BYTES)")

    def pass_chunk(self, size: int) -> None:
        """`tick` and `fits` in one call, for what a rendering does most. Raises TooMuch."""
        if size > self.max_bytes or self._monotonic() > self._deadline:
            self.fits(size)
            self.tick()

    def keep(self, size: int) -> None:
        """Count a text that is kept back rather than sent out. Raises TooMuch."""
        self._kept += size
        self.fits(self._kept)

    def weigh(self, value: Any) -> None:
        """Refuse lists and tables that hold too much. Raises TooMuch."""
        if too_heavy(value, self.max_bytes):
            raise TooMuch(
                f"a list or a table holds more than {MOST_VALUES} values, {MOST_LEVELS} levels or {self.max_bytes} characters"
            )


def too_heavy(value: Any, characters: int, values: int = MOST_VALUES) -> bool:
    """Whether plain data holds more than that, or lists in lists deeper than MOST_LEVELS.

    What stands in it twice is counted twice: that is how it is written.
    """
    level = [value]
    for _ in range(MOST_LEVELS):
        values -= len(level)
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                characters -= len(each)
            elif isinstance(each, dict):
                below += each
                below += each.values()
            elif isinstance(each, list | tuple):
                below += each
            if values < len(below) or characters < 0:
                return True
        if not below:
            return False
        level = below
    return True
