"""What an operation may do within a group's transaction: named statements, counts of recipients by state, and parts of it
that are undone alone.

`BROKEN` is what no part gets over: after one of these nothing is known of the connection.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeVar

import apsw

from service.mail.lifecycle import State
from service.store.queries import load_queries

T = TypeVar("T")

BROKEN = (
    apsw.IOError,
    apsw.FullError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.ProtocolError,
    apsw.NoMemError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.InterruptError,
)
QUERIES = load_queries("sqlite")


class Transaction:
    """What an operation may do: run named statements, and count recipients from state to state."""

    __slots__ = ("_connection", "moves", "queued")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.moves: dict[str, int] = {}
        self.queued = False

    def run(self, name: str, bindings: Any = ()) -> Any:
        """Run a named statement; the cursor yields its rows."""
        return self._connection.execute(QUERIES[name], bindings)

    def one(self, name: str, bindings: Any = ()) -> Any:
        """The first row, or None."""
        return self._connection.execute(QUERIES[name], bindings).fetchone()

    def each(self, name: str, bindings: Sequence[Any]) -> list[Any]:
        """Run a named statement with each of `bindings` in turn; the rows of all of them, in that order."""
        return self._connection.executemany(QUERIES[name], bindings).fetchall()

    def shared_piece(self, sha256: bytes) -> bytes:
        """A piece of content that is kept once."""
        return shared_piece(self._connection, sha256)

    def inserted(self) -> int:
        """The row number of the last insert."""
        return self._connection.last_insert_rowid()

    def changes(self) -> int:
        """Rows that the last statement changed."""
        return self._connection.changes()

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Undo alone what is done within, if it raises something of its own."""
        moves, queued = dict(self.moves), self.queued
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BROKEN:
            raise
        except Exception:
            self._connection.execute("ROLLBACK TO part")
            self._connection.execute("RELEASE part")
            self.moves, self.queued = moves, queued
            raise
        self._connection.execute("RELEASE part")

    def move(self, before: State | None, after: State | None, count: int = 1) -> None:
        """`count` recipients went from one state to another; None is outside."""
        if before is not None:
            self.moves[before] = self.moves.get(before, 0) - count
        if after is not None:
            self.moves[after] = self.moves.get(after, 0) + count


# an operation over many rows: it yields where others may run, after so many of them; None is one
Steps = Generator[int | None, None, T]


def shared_piece(connection: apsw.Connection, sha256: bytes) -> bytes:
    """A piece of content that is kept once. To fetch it as a row's value would keep the interpreter; a handle lets it go."""
    row: Any = connection.execute(QUERIES["delivery_content: blob"], (sha256,)).fetchall()[0]
    with contextlib.closing(connection.blob_open("main", "blobs", "data", row[0], False)) as blob:
        return blob.read()
