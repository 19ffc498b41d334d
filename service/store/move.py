"""All rows of one store go into an empty one of the other kind: all of them or none.

It decides the order: nobody has the source open, the target is empty, rows are copied, read back and compared, the
source is marked, the target committed. Until that commit the target holds nothing, so an interrupted move is simply
begun again. The mark comes first: between the two the source is refused at a start and nothing can be sent twice.

Rows go through one neutral form: whole numbers (truth values too), text without the character NUL, octets. It refuses
to know any database; the packages of the dialects have a Source and a Target each.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any, Protocol

from service.clock import Clock
from service.errors import ConfigurationError, PostroomError
from service.store.marks import Mark

Row = tuple[Any, ...]
Say = Callable[[str], None]

# What tells of processes, not of mail; and what the target counts anew.
LEFT = frozenset({"schema_steps", "heartbeat", "holders", "relay_views", "counters"})
# Columns that are numbered by the database: numbers go on after the highest that the source ever gave.
NUMBERED = {
    "messages": "seq",
    "attempts": "id",
    "events": "seq",
    "requests": "seq",
    "api_keys": "seq",
    "relay_events": "seq",
}
_SHOW_EVERY = 2.0  # seconds
_NUL, _SHOWN = "\0", "\ufffd"  # PostgreSQL's text can't hold the first; see store/postgres/statements


class Side(Protocol):
    """What is read of either store. All of it may raise StorageUnavailable."""

    shown: str  # its URL without a password

    def tables(self) -> Mapping[str, Sequence[str]]:
        """Names of tables, each with its columns."""

    def count(self, table: str) -> int:
        """How many rows a table has."""

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        """All rows, in any order, truth values as numbers."""

    def close(self) -> None:
        """Let go of it. What was not committed is undone."""


class Source(Side, Protocol):
    """A store that nobody else has open, until it is closed."""

    def highest(self, table: str, column: str) -> int:
        """The highest number that this column ever had; 0: none."""

    def mark(self, mark: Mark) -> None:
        """Durably: the mail is elsewhere."""

    def unmark(self) -> None:
        """It is here after all."""


class Target(Side, Protocol):
    """An open transaction on a store that nobody else has open."""

    def write(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Add rows."""

    def finish(self, highest: Mapping[str, int]) -> None:
        """Count recipients by state, and let numbers go on after the highest of each table of NUMBERED."""

    def commit(self) -> None:
        """Make it durable. Raises StorageUnavailable; see `holds_mail`."""

    def holds_mail(self) -> bool | None:
        """After a failed commit, whether it happened; None: nobody can tell now."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Rows of a table: how many, and the sum of their digests, which no order changes."""

    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved, by table, and how long it took, in seconds."""

    tables: Mapping[str, Checked]
    seconds: float

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(each.rows for each in self.tables.values())


def move(source: Source, target: Target, clock: Clock, say: Say) -> Moved:
    """Copy, compare, mark, commit. Raises ConfigurationError, StorageUnavailable; then the target holds nothing, unless
    the sentence says that this is not known.
    """
    began = clock.monotonic()
    tables = _moved_tables(source, target)
    _check_empty(target, tables)
    copied: dict[str, Checked] = {}
    for table, columns in tables.items():
        progress = _Progress(clock, say, table, source.count(table))
        tally = _Tally()
        target.write(table, columns, progress.through(tally.through(map(_neutral, source.rows(table, columns)))))
        copied[table] = tally.checked
        progress.done()
    _compare(target, tables, copied, say)
    target.finish({table: source.highest(table, column) for table, column in NUMBERED.items()})
    _hand_over(source, target, Mark(clock.now(), target.shown))
    return Moved(copied, clock.monotonic() - began)


def _moved_tables(source: Side, target: Side) -> dict[str, tuple[str, ...]]:
    """Tables and columns that both have. Raises ConfigurationError when they don't fit: schemas of two versions."""
    from_tables, to_tables = source.tables(), target.tables()
    found = {name: tuple(sorted(columns)) for name, columns in sorted(from_tables.items()) if name not in LEFT}
    wanted = {name: tuple(sorted(columns)) for name, columns in sorted(to_tables.items()) if name not in LEFT}
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise ConfigurationError(
                f"--from, --to: the table {name} is not the same in both; run `postroom migrate` on the source first"
            )
    return found


def _check_empty(target: Target, tables: Iterable[str]) -> None:
    for table in tables:
        if count := target.count(table):
            raise ConfigurationError(
                f"--to: {target.shown} is not empty: the table {table} has {count:,} rows; give a new database"
            )


def _compare(target: Target, tables: Mapping[str, Sequence[str]], copied: Mapping[str, Checked], say: Say) -> None:
    """Read back what the target will commit. Raises StorageUnavailable when it is not what was read."""
    say("comparing what was written")
    for table, columns in tables.items():
        tally = _Tally()
        for _ in tally.through(target.rows(table, columns)):
            pass
        if tally.checked != copied[table]:
            raise ConfigurationError(
                f"--to: the table {table} came out with {tally.checked.rows:,} rows that are not the"
                f" {copied[table].rows:,} of the source; nothing was moved"
            )


def _hand_over(source: Source, target: Target, mark: Mark) -> None:
    source.mark(mark)
    try:
        target.commit()
    except PostroomError as error:
        match target.holds_mail():
            case True:
                return  # its answer was lost, nothing else
            case False:
                source.unmark()
                raise
            case None:
                raise ConfigurationError(
                    f"--to: {target.shown} gave no answer to the commit, and can't be asked now ({error.detail}). The"
                    " source is marked as moved. Run the same command again: it says whether the target is empty"
                ) from None


def _neutral(row: Row) -> Row:
    """Text without NUL."""
    if any(isinstance(each, str) and _NUL in each for each in row):
        return tuple(each.replace(_NUL, _SHOWN) if isinstance(each, str) else each for each in row)
    return row


class _Tally:
    """Counts rows that pass, and adds up their digests."""

    def __init__(self) -> None:
        self._rows = self._total = 0

    def through(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self._rows += 1
            self._total += _digest(row)
            yield row

    @property
    def checked(self) -> Checked:
        return Checked(self._rows, self._total % 2**128)


def _digest(row: Row) -> int:
    """Of the neutral form: octets by their own digest, so that large ones are not written out."""
    shown = repr(tuple(sha256(each).digest() if isinstance(each, bytes) else each for each in row))
    return int.from_bytes(blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=16).digest())


class _Progress:
    """Says now and then how far a table has come."""

    def __init__(self, clock: Clock, say: Say, table: str, total: int) -> None:
        self._clock, self._say, self._table, self._total = clock, say, table, total
        self._began = self._shown = clock.monotonic()
        self._rows = 0

    def through(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self._rows += 1
            if self._rows % 256 == 0 and self._clock.monotonic() - self._shown >= _SHOW_EVERY:
                self._shown = self._clock.monotonic()
                self._say(f"{self._table}: {self._rows:,} of {self._total:,} rows, {self._rate():,.0f}/s")
            yield row

    def _rate(self) -> float:
        return self._rows / max(self._clock.monotonic() - self._began, 0.001)

    def done(self) -> None:
        if self._rows:
            self._say(f"{self._table}: {self._rows:,} rows, {self._rate():,.0f}/s")
