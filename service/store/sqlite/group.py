"""What a group does within its transaction: who is done together, who is undone alone, and when others may run.

The statements run on the event loop, microseconds each. Two things keep it free meanwhile. An operation over many rows is a
generator: each `yield` is a place to let others run, within the one transaction. An operation that carries large bytes
runs in the thread. Who computes for longer, such as a batch that is prepared, calls `make_way`: between two statements it
would keep the file from other processes for no gain of its own, since there is one loop.

An operation that refuses is undone alone, by a savepoint of its own. What a sender asks for refuses nothing, comes many at
a time and all alike: it has no savepoint, which would copy each page that is written once more, and neighbours are one call
that runs each statement for all of them. Where that raises all the same, by a fault of ours, the group is rolled back and
everything in it done once more and alone, so that the fault stays with its cause.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import GeneratorType
from typing import Any, TypeVar

import apsw

from service.store.sqlite.transaction import BROKEN, QUERIES, Steps, Transaction

T = TypeVar("T")

BUSY_TIMEOUT = 5000  # ms
_PAUSE_EVERY = 32  # operations, or steps of a long one, between two chances for others to run: one or two milliseconds

Alike = Callable[[Transaction, Sequence[Any]], Sequence[Any]]  # the result of each of several, in their order


@dataclass(slots=True)
class Operation:
    """What was asked for, and what came of it."""

    work: Callable[[Transaction], Any]
    future: "asyncio.Future[Any]"
    size: int = 0
    large: bool = False
    prepare: Callable[[], None] | None = None
    alike: Alike | None = None
    item: Any = None  # what `alike` is given for it
    sure: bool = False  # it refuses nothing
    result: Any = None
    error: Exception | None = None


class _FaultOfOurs(Exception):
    """Something that refuses nothing raised: the group must be done once more, each operation alone."""


class Statements:
    """Of one writer. `in_thread` runs a call in the thread that owns large work."""

    def __init__(self, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._in_thread = in_thread
        self._steps = 0
        self._aside = asyncio.Event()  # while it is clear, who computes stands back
        self._aside.set()

    async def make_way(self) -> None:
        """Let others run; a group that has the file goes on first, since other processes wait for it."""
        await asyncio.sleep(0)
        await self._aside.wait()

    async def run(self, connection: apsw.Connection, group: Sequence[Operation]) -> bool:
        """All statements of a group but the COMMIT; whether anything was queued."""
        await self._begin(connection)
        self._aside.clear()
        try:
            return await self._run(connection, group)
        finally:
            self._aside.set()

    async def _run(self, connection: apsw.Connection, group: Sequence[Operation]) -> bool:
        try:
            done = [await self._run_sure(connection, operations) for operations in _neighbours(group)]
        except _FaultOfOurs:
            connection.execute("ROLLBACK")
            await self._begin(connection)
            done = [await self._run_alone(connection, operation) for operation in group]
        moves: dict[str, int] = {}
        for transaction in done:
            for state, delta in transaction.moves.items():
                moves[state] = moves.get(state, 0) + delta
        for state, delta in moves.items():
            if delta:
                connection.execute(QUERIES["accept: count"], (state, delta))
        return any(transaction.queued for transaction in done)

    async def _run_sure(self, connection: apsw.Connection, operations: list[Operation]) -> Transaction:
        """Neighbours that are alike, or one operation. Raises _FaultOfOurs."""
        first, transaction = operations[0], Transaction(connection)
        if not first.sure:
            return await self._run_alone(connection, first)
        try:
            if first.alike is not None:
                results = first.alike(transaction, [operation.item for operation in operations])
            else:
                results = [first.work(transaction)]
        except BROKEN:
            raise
        except Exception as error:
            raise _FaultOfOurs from error
        for operation, result in zip(operations, results, strict=True):
            operation.result = result
        await self._pause(len(operations))
        return transaction

    async def _run_alone(self, connection: apsw.Connection, operation: Operation) -> Transaction:
        """What it did: nothing, when it had to be undone."""
        transaction = Transaction(connection)
        operation.error = None
        connection.execute("SAVEPOINT operation")
        try:
            if operation.large:
                self._aside.set()
                result = await self._in_thread(_run_whole, operation.work, transaction)
                self._aside.clear()
            else:
                result = operation.work(transaction)
                if isinstance(result, GeneratorType):
                    result = await self._run_steps(result)
        except BROKEN:
            raise
        except Exception as error:  # its own: it alone is undone
            connection.execute("ROLLBACK TO operation")
            connection.execute("RELEASE operation")
            operation.error = error
            return Transaction(connection)
        connection.execute("RELEASE operation")
        operation.result = result
        await self._pause()
        return transaction

    async def _pause(self, steps: int = 1) -> None:
        """Let others run, once in a while."""
        self._steps += steps
        if self._steps >= _PAUSE_EVERY:
            self._steps = 0
            await asyncio.sleep(0)

    async def _begin(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:  # a program that does not know our file lock, such as a backup: wait, but not here
            await self._in_thread(_begin_patiently, connection)

    async def _run_steps(self, steps: Steps[T]) -> T:
        while True:
            try:
                done = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            await self._pause(done or 1)


def _neighbours(group: Iterable[Operation]) -> Iterator[list[Operation]]:
    """A group in pieces: neighbours that are alike, no more at once than the loop can spare the time for; else one each."""
    for alike, operations in itertools.groupby(group, lambda operation: operation.alike):
        while some := list(itertools.islice(operations, 1 if alike is None else _PAUSE_EVERY)):
            yield some


def _begin_patiently(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT)
    try:
        connection.execute("BEGIN IMMEDIATE")
    finally:
        connection.set_busy_timeout(0)


def _run_whole(work: Callable[[Transaction], Any], transaction: Transaction) -> Any:
    """One operation in the thread, without pauses."""
    result = work(transaction)
    if not isinstance(result, GeneratorType):
        return result
    while True:
        try:
            next(result)
        except StopIteration as done:
            return done.value
