"""The one writing connection: group commit without timers.

Operations queue up; a transaction begins at once when the writer is idle, and whoever arrives while it commits forms
the next group. The statements of a group run on the event loop (sqlite/group); only COMMIT, which waits for the
disk in one call without the GIL, runs in a thread. So the GIL changes hands twice a group and not twice a statement.

After a failed commit, or any fault that is not an operation's own, the handle is never used again: the group is
refused, the file reopened in the background, and until that succeeds nothing is accepted. A commit to a file that is no
longer the one of its name has failed too, though SQLite does not notice: whoever opens the name next won't find it. A
commit that was refused may have happened nevertheless, so the first thing written to a reopened file is what `Recovery`
says.
"""

import asyncio
import contextlib
import fcntl
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import apsw

from service.errors import StorageUnavailable
from service.store.counting import commits_of
from service.store.sqlite.group import Alike, Operation, Statements
from service.store.sqlite.one_thread import OneThread
from service.store.sqlite.place import Place
from service.store.sqlite.transaction import QUERIES, Transaction
from service.telemetry import Log, Metrics, get_logger

log = get_logger()

_MAX_OPERATIONS, _MAX_BYTES = 128, 2 * 1024 * 1024  # of one group; a larger operation is a group of its own
_LARGE = 512 * 1024  # octets: copying more holds up the loop for too long, so such an operation runs in the thread
_REOPEN_WAITS = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds; the last repeats
_ROOM = 1024 * 1024  # octets that must be free beside a group that found the disk full


class Recovery(Protocol):
    """What a refused commit may have left behind."""

    def works(self) -> Sequence[Callable[[Transaction], Any]]:
        """Operations that put it right."""

    def done(self) -> None:
        """They are committed."""


class Writer:
    """See the module. `connect` opens a fresh, configured connection. `on_recovered`: before anybody may write again."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        lock_path: str,
        on_queued: Callable[[], None],
        recovery: Recovery,
        metrics: Metrics | None = None,
        on_recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect, self._lock_path, self._on_queued, self._recovery = connect, lock_path, on_queued, recovery
        self._metrics, self._on_recovered = (metrics := metrics or Metrics()), on_recovered
        self._on_commit = commits_of(metrics, "all")
        self._place = Place()
        self._connection: apsw.Connection | None = None
        self._thread = OneThread("store-writer")
        self._in_thread = self._thread.run
        self._statements = Statements(self._in_thread)
        self.make_way = self._statements.make_way
        self._queue: deque[Operation] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lock = -1
        self.healthy = False
        self._stopping = False
        self.groups = 0  # committed since the start

    async def start(self) -> None:
        """Open the connection and begin to serve."""
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._connection = self._connect()
        self._connection.set_busy_timeout(0)
        self._place.learn(self._connection)
        self.healthy = True
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Commit what is queued, then close; from now on everything else is refused."""
        self._stopping = True
        self._arrived.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._refuse(self._queue, "the store is closed")
        self.healthy = False
        if self._connection is not None:
            with contextlib.suppress(apsw.Error):
                self._connection.close()
            self._connection = None
        self._thread.end()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def submit(
        self,
        work: Callable[[Transaction], Any],
        size: int = 0,
        largest: int = 0,
        prepare: Callable[[], None] | None = None,
        *,
        sure: bool = False,
    ) -> "asyncio.Future[Any]":
        """Run `work` (a function, or a generator function: see Steps) in the next group; done after the commit.

        size: octets that it writes in all. largest: octets of the largest message among them. prepare: called when the
        group is formed: what it learns is as old as the group, in which all that was queued before stands. sure: it
        raises nothing but by a fault of ours. After such a fault `work` may be called once more, on what it found first.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        return self._enqueue(Operation(work, future, size, largest > _LARGE, prepare, sure=sure))

    def submit_alike(self, work: Alike, item: Any) -> "asyncio.Future[Any]":
        """As `submit`, sure, and done in one call with its neighbours of the same `work`: a few small rows for each."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        return self._enqueue(
            Operation(lambda transaction: work(transaction, [item])[0], future, alike=work, item=item, sure=True)
        )

    def _enqueue(self, operation: Operation) -> "asyncio.Future[Any]":
        if not self.healthy or self._stopping:
            why = "the store is closing" if self._stopping else "it is being reopened"
            operation.future.set_exception(_unavailable(why))
        else:
            self._queue.append(operation)
            self._arrived.set()
        return operation.future

    # --- groups --------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            if not (group := self._take()):
                if self._stopping:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            try:
                await self._commit_group(group)
            except Exception as error:  # whatever it was, this transaction's state is not known any more
                await self._reopen(group, error)
            except BaseException:
                self._refuse(group, "the writer was stopped")
                raise

    def _take(self) -> list[Operation]:
        group: list[Operation] = []
        size = 0
        while self._queue and len(group) < _MAX_OPERATIONS:
            if group and size + self._queue[0].size > _MAX_BYTES:
                break
            operation = self._queue.popleft()
            if not operation.future.cancelled() and _is_prepared(operation):
                group.append(operation)
                size += operation.size
        return group

    async def _commit_group(self, group: list[Operation]) -> None:
        assert self._connection is not None
        began = time.perf_counter()
        if not self._lock_now():
            await self._in_thread(fcntl.flock, self._lock, fcntl.LOCK_EX)
        try:
            queued = await self._statements.run(self._connection, group)
            await self._in_thread(self._finish, self._connection)
        except BaseException:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            raise
        self.groups += 1
        self._on_commit(len(group), time.perf_counter() - began)
        _answer(group)
        if queued:
            self._on_queued()

    def _finish(self, connection: apsw.Connection) -> None:
        """Commit, and let go of the file from here: the loop may be busy for milliseconds before it hears of the commit."""
        connection.execute("COMMIT")
        self._place.check()
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _lock_now(self) -> bool:
        """The file lock between processes, if it is free."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    # --- trouble -------------------------------------------------------------------------------------------------

    def _refuse(self, operations: Iterable[Operation], why: str) -> None:
        for operation in operations:
            if not operation.future.done():
                operation.future.set_exception(_unavailable(why))

    async def _reopen(self, group: list[Operation], error: Exception) -> None:
        """Refuse all, give the handle up, and open the file anew until a durable write succeeds."""
        self.healthy = False
        self._metrics.storage_failures.inc()
        room = sum(each.size for each in group) + _ROOM if isinstance(error, apsw.FullError) else 0
        why = f"{type(error).__name__}: {error}"
        log.error(Log.STORE_FAILED, detail=why)
        self._refuse([*group, *self._queue], why)
        self._queue.clear()
        for tries in itertools.count():
            await asyncio.sleep(_REOPEN_WAITS[min(tries, len(_REOPEN_WAITS) - 1)])
            if self._stopping:
                return
            try:
                await self._in_thread(self._prove, room)
                await self._recover()
            except Exception as again:  # whatever it was: who ends here never writes again
                log.debug(Log.STORE_FAILED, during="reopen", detail=f"{type(again).__name__}: {again}")
                continue
            self._on_recovered()
            self.healthy = True
            log.info(Log.STORE_RECOVERED, tries=tries + 1)
            return

    async def _recover(self) -> None:
        """Put right what is not known, in one group; nobody else can write yet. Raises what a commit raises."""
        loop = asyncio.get_running_loop()
        group = [Operation(work, loop.create_future(), 0, False) for work in self._recovery.works()]
        if not group:
            return
        await self._commit_group(group)
        for each in await asyncio.gather(*(operation.future for operation in group), return_exceptions=True):
            if isinstance(each, BaseException):  # a fault of ours with one of them must not keep the store closed
                log.error(Log.STORE_FAILED, during="recover", exc_info=each)
        self._recovery.done()

    def _prove(self, room: int) -> None:
        """Open, and commit something: only that shows that the disk takes writes again.

        room: octets that must be free, since a few would be found in the log that is there. Raises apsw.Error, OSError.
        """
        self._place.wait_for(room)
        if self._connection is not None:
            with contextlib.suppress(apsw.Error):
                self._connection.close(True)
            self._connection = None
        self._connection = self._connect()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(QUERIES["ping: write"], {"at": self.groups})
            self._connection.execute("COMMIT")
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._place.learn(self._connection)
        self._connection.set_busy_timeout(0)


def _is_prepared(operation: Operation) -> bool:
    """A fault of whoever prepares is its own: it must end neither the writer nor the others of the group."""
    try:
        if operation.prepare is not None:
            operation.prepare()
    except Exception as error:
        operation.future.set_exception(error)
        return False
    return True


def _answer(group: list[Operation]) -> None:
    for operation in group:
        if operation.future.done():  # its caller gave up; the commit stands
            continue
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.result)


def _unavailable(why: str) -> StorageUnavailable:
    return StorageUnavailable(f"Nothing was accepted: {why}.", retry_after=1.0)
