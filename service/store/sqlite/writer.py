"""The one writing connection: group commit without timers.

Operations queue up; a transaction begins at once when the writer is idle, and whoever arrives while it commits forms
the next group. The statements of a group run on the event loop, microseconds each; only COMMIT, which waits for the
disk in one call without the GIL, runs in a thread. So the GIL changes hands twice a group and not twice a statement.
Groups that carry large bytes run in the thread whole.

After a failed commit the handle is never used again: the group is refused, the file reopened in the background, and
until that succeeds nothing is accepted.
"""

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import apsw

from service.errors import StorageUnavailable
from service.mail.lifecycle import State
from service.store.queries import load_queries
from service.telemetry import Log, get_logger

T = TypeVar("T")
log = get_logger()

_MAX_OPERATIONS = 128  # in one group
_LARGE = 256 * 1024  # octets: an operation that carries more runs in the thread
_REOPEN_WAITS = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds; the last repeats
_BROKEN = (
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

    def inserted(self) -> int:
        """The row number of the last insert."""
        return self._connection.last_insert_rowid()

    def changes(self) -> int:
        """Rows that the last statement changed."""
        return self._connection.changes()

    def move(self, before: State | None, after: State | None, count: int = 1) -> None:
        """`count` recipients went from one state to another; None is outside."""
        if before is not None:
            self.moves[before] = self.moves.get(before, 0) - count
        if after is not None:
            self.moves[after] = self.moves.get(after, 0) + count


@dataclass(slots=True)
class _Operation:
    work: Callable[[Transaction], Any]
    future: "asyncio.Future[Any]"
    size: int
    result: Any = None
    error: Exception | None = None


class Writer:
    """See the module. `connect` opens a fresh, configured connection."""

    def __init__(self, connect: Callable[[], apsw.Connection], lock_path: str, on_queued: Callable[[], None]) -> None:
        self._connect, self._lock_path, self._on_queued = connect, lock_path, on_queued
        self._connection: apsw.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "store-writer")
        self._queue: deque[_Operation] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lock = -1
        self.healthy = False
        self.groups = 0
        self.commits_of = 0

    async def start(self) -> None:
        """Open the connection and begin to serve."""
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._connection = self._connect()
        self.healthy = True
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Serve what is queued, then close."""
        if self._task is not None:
            await self.submit(_nothing) if self.healthy else None
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._refuse(list(self._queue), "the store is closed")
        self._queue.clear()
        self.healthy = False
        if self._connection is not None:
            with contextlib.suppress(apsw.Error):
                self._connection.close()
        self._thread.shutdown()
        if self._lock >= 0:
            os.close(self._lock)

    def submit(self, work: Callable[[Transaction], T], size: int = 0) -> "asyncio.Future[T]":
        """Run `work` in the next group; the future is done after the commit. `size`: octets it carries."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self.healthy:
            future.set_exception(_unavailable("the store is being reopened"))
            return future
        self._queue.append(_Operation(work, future, size))
        self._arrived.set()
        return future

    # --- groups --------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            group = self._take()
            if not group:
                self._arrived.clear()
                continue
            try:
                await self._commit_group(group)
            except _BROKEN as error:
                self._refuse(group, str(error))
                await self._reopen(error)
            except BaseException:
                self._refuse(group, "the writer was stopped")
                raise

    def _take(self) -> list[_Operation]:
        group: list[_Operation] = []
        while self._queue and len(group) < _MAX_OPERATIONS:
            operation = self._queue.popleft()
            if not operation.future.cancelled():
                group.append(operation)
        return group

    async def _commit_group(self, group: list[_Operation]) -> None:
        loop = asyncio.get_running_loop()
        if not self._lock_now():
            await loop.run_in_executor(self._thread, fcntl.flock, self._lock, fcntl.LOCK_EX)
        try:
            if sum(operation.size for operation in group) > _LARGE:
                queued = await loop.run_in_executor(self._thread, self._run, group)
            else:
                queued = self._run(group)
            await loop.run_in_executor(self._thread, self._execute, "COMMIT")
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self.groups += 1
        self.commits_of += len(group)
        _answer(group)
        if queued:
            self._on_queued()

    def _lock_now(self) -> bool:
        """The file lock between processes, if it is free."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _execute(self, sql: str) -> None:
        assert self._connection is not None
        self._connection.execute(sql)

    def _run(self, group: list[_Operation]) -> bool:
        """All statements of a group but the COMMIT; whether anything was queued."""
        assert self._connection is not None
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        moves: dict[str, int] = {}
        queued = False
        for operation in group:
            transaction = Transaction(connection)
            connection.execute("SAVEPOINT operation")
            try:
                operation.result = operation.work(transaction)
            except _BROKEN:
                raise
            except Exception as error:
                connection.execute("ROLLBACK TO operation")
                connection.execute("RELEASE operation")
                operation.error = error
                continue
            connection.execute("RELEASE operation")
            queued = queued or transaction.queued
            for state, delta in transaction.moves.items():
                moves[state] = moves.get(state, 0) + delta
        for state, delta in moves.items():
            if delta:
                connection.execute(QUERIES["accept: count"], (state, delta))
        return queued

    # --- trouble -------------------------------------------------------------------------------------------------

    def _refuse(self, group: list[_Operation], why: str) -> None:
        for operation in group:
            if not operation.future.done():
                operation.future.set_exception(_unavailable(why))

    async def _reopen(self, error: Exception) -> None:
        """Give the handle up and open the file anew until a durable write succeeds."""
        self.healthy = False
        log.error(Log.STORE_FAILED, detail=f"{type(error).__name__}: {error}")
        self._refuse(list(self._queue), str(error))
        self._queue.clear()
        tries = 0
        while True:
            with contextlib.suppress(apsw.Error):
                if self._connection is not None:
                    self._connection.close(True)
            self._connection = None
            await asyncio.sleep(_REOPEN_WAITS[min(tries, len(_REOPEN_WAITS) - 1)])
            tries += 1
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._prove)
            except (apsw.Error, OSError):
                continue
            self.healthy = True
            log.info(Log.STORE_RECOVERED, tries=tries)
            return

    def _prove(self) -> None:
        """Open, and commit something: only that shows that the disk takes writes again."""
        self._connection = self._connect()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(QUERIES["ping: write"], {"at": self.groups})
            self._connection.execute("COMMIT")
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def _answer(group: list[_Operation]) -> None:
    for operation in group:
        if operation.future.done():  # its caller gave up; the commit stands
            continue
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.result)


def _unavailable(why: str) -> StorageUnavailable:
    return StorageUnavailable(f"Nothing was accepted: {why}.", retry_after=1.0)


def _nothing(_: Transaction) -> None:
    """An empty operation: its answer shows that all before it are committed."""
