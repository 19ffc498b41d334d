"""A lane: one connection on which a process commits in groups, without timers.

Operations queue up; a transaction begins at once when the lane is idle, and whoever arrives while it runs forms the next
group. What a group does is `perform`'s: it says everything in a few statements for all. One operation that the database
refuses, or that needs a row that somebody keeps for too long, does not fail the others: then each gets a transaction of its
own.

After a lost connection the group is refused, since its commit may have happened or not, and the lane goes on with a
fresh connection once the server has proved itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import psycopg

from service.errors import PostroomError, StorageUnavailable
from service.store.postgres.database import TRIES, Database, pause_before
from service.store.postgres.session import Judgement, Session, at_its_end, judge, sentence, unavailable
from service.store.postgres.transaction import Transaction
from service.telemetry import Log, get_logger

log = get_logger()

_MAX_OPERATIONS, _MAX_BYTES = 128, 2 * 1024 * 1024  # of one group; a larger operation is a group of its own
_RECONNECT_WAIT = 0.2  # seconds


@dataclass(slots=True)
class _Operation:
    work: Any
    size: int
    last: bool
    future: "asyncio.Future[Any]"
    repeated: int = 0  # times, on fresh connections


Perform = Callable[[Transaction, Sequence[Any]], Awaitable[Sequence[Any]]]


class Lane:
    """See the module. `perform` commits, and answers a result or an Exception for each operation, in order.

    `recover` runs on each fresh connection before anything else, given what begins a transaction there; `on_queued` after
    a commit that queued something, `on_commit` after each, with how many operations shared it and the seconds that it took.
    """

    def __init__(
        self,
        database: Database,
        shard: int,
        perform: Perform,
        on_queued: Callable[[], None],
        on_commit: Callable[[int, float], None],
        recover: Callable[[Callable[[], Transaction]], Awaitable[None]] | None = None,
    ) -> None:
        self._database, self._shard, self._perform = database, shard, perform
        self._on_queued, self._on_commit, self._recover = on_queued, on_commit, recover
        self._session: Session | None = None
        self._queue: deque[_Operation] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._refreshing = False
        self.groups = 0  # committed since the start

    @property
    def healthy(self) -> bool:
        """Whether it has a connection, or is about to get a fresh one at the first attempt."""
        return self._session is not None or self._refreshing

    async def start(self) -> None:
        """Connect and begin to serve. Raises StorageUnavailable, ConfigurationError."""
        self._session = await self._database.connect()
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Commit what is queued; from now on everything else is refused."""
        self._stopping = True
        self._arrived.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._refuse(self._queue, "the store is closed")
        if self._session is not None:
            self._session.close()
            self._session = None

    def submit(self, work: Any, size: int = 0, *, last: bool = False) -> "asyncio.Future[Any]":
        """Perform `work` in the next group; done after the commit.

        size: octets that it writes. last: nothing that arrives later joins its group.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._stopping or not self.healthy or not self._database.healthy:
            future.set_exception(unavailable("the store is closing" if self._stopping else "it is being reopened"))
            return future
        self._queue.append(_Operation(work, size, last, future))
        self._arrived.set()
        return future

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
                await self._settle(group)
            except _Lost as lost:
                await self._reconnect(group, lost)
            except Exception as error:  # a fault of ours: what came of the group is not known; the next one is served
                log.critical(Log.LOOP_FAILED, during="lane", exc_info=error)
                await self._reconnect(group, _Lost(sentence(error), unknown=True))
            except BaseException:
                self._refuse([*group, *self._queue], "the lane was stopped")
                raise

    def _take(self) -> list[_Operation]:
        group: list[_Operation] = []
        size = 0
        while self._queue and len(group) < _MAX_OPERATIONS:
            if group and size + self._queue[0].size > _MAX_BYTES:
                break
            operation = self._queue.popleft()
            if operation.future.cancelled():
                continue
            group.append(operation)
            size += operation.size
            if operation.last:
                break
        return group

    async def _settle(self, group: list[_Operation], patience: float | None = None) -> None:
        """Commit a group, or its operations one by one. Raises _Lost. patience: seconds for rows that others hold."""
        assert self._session is not None
        for tries in range(TRIES):
            began = time.perf_counter()
            transaction = Transaction(self._session, self._database.bounds, self._shard, patience)
            try:
                results = await self._perform(transaction, [each.work for each in group])
            except psycopg.Error as error:
                judgement = judge(error)
                if judgement is Judgement.LOST:
                    unknown, server = transaction.committing, at_its_end(error)
                    raise _Lost(sentence(error), unknown=unknown, server=server) from error
                await self._undo(transaction)
                if judgement is Judgement.AGAIN and tries + 1 < TRIES:
                    await pause_before(tries)
                    continue
                if judgement is Judgement.OWN:
                    await self._apart(group, error)
                else:
                    await self._apart_soon(group, unavailable(sentence(error)))
                return
            except Exception as error:
                await self._undo(transaction)
                await self._apart(group, error)
                return
            self._on_commit(len(group), time.perf_counter() - began)
            self._answer(group, results, queued=transaction.queued)
            return

    async def _undo(self, transaction: Transaction) -> None:
        try:
            await transaction.rollback()
        except psycopg.Error as error:
            raise _Lost(sentence(error), unknown=False) from error

    async def _apart(self, group: list[_Operation], error: Exception) -> None:
        """The group failed by an error that is an operation's own: find out whose."""
        if len(group) == 1:
            _give(group[0], error)
            return
        for operation in group:
            await self._settle([operation])

    async def _apart_soon(self, group: list[_Operation], error: StorageUnavailable) -> None:
        """The group waited too long for rows that others hold: find out for which of its operations.

        Each may wait for its share of what the group was allowed, so that all together wait no longer than one would. Whoever
        has not had its turn when a statement's time is over gets `error`, as if it had waited for so long itself.
        """
        if len(group) == 1:
            _give(group[0], error)
            return
        bounds = self._database.bounds
        until = time.monotonic() + bounds.statement_timeout
        for number, operation in enumerate(group):
            if time.monotonic() > until:
                _refuse_all(group[number:], error)
                return
            await self._settle([operation], bounds.lock_timeout / len(group))

    def _answer(self, group: list[_Operation], results: Sequence[Any], *, queued: bool) -> None:
        self.groups += 1
        self._database.answered()
        for operation, result in zip(group, results, strict=True):
            _give(operation, result)
        if queued:
            self._on_queued()

    # --- trouble -------------------------------------------------------------------------------------------------

    def _refuse(self, operations: Iterable[_Operation], why: str) -> None:
        _refuse_all(operations, unavailable(why))

    async def _reconnect(self, group: list[_Operation], lost: "_Lost") -> None:
        """Get a fresh connection: at once if there is one, else when the server has proved itself.

        A group whose commit may have happened is refused; another one is performed again, a few times, while there are
        connections at once (a server that was restarted leaves dead ones behind, in a pooler too).
        """
        assert self._session is not None
        self._session.close()
        self._session = None
        if lost.server:
            self._database.lost(str(lost))
        waiting = [each for each in group if not each.future.done()]
        if lost.unknown or any(each.repeated + 1 >= TRIES for each in waiting):
            self._refuse(waiting, str(lost))
            waiting = []
        self._refreshing = True
        try:
            self._session = await self._fresh()
        except Exception as error:  # whatever it was: who ends here never writes again
            self._refreshing = False
            if not isinstance(error, psycopg.Error | PostroomError):
                log.critical(Log.LOOP_FAILED, during="recover", exc_info=error)
            self._database.lost(sentence(error))
            self._refuse([*waiting, *self._queue], str(lost))
            self._queue.clear()
            await self._wait_for_server()
            return
        self._refreshing = False
        for each in reversed(waiting):
            each.repeated += 1
            self._queue.appendleft(each)

    async def _wait_for_server(self) -> None:
        while self._session is None and not self._stopping:
            try:
                async with asyncio.timeout(_RECONNECT_WAIT):
                    await self._database.until_well()
                self._session = await self._fresh()
            except Exception as error:  # the same
                log.debug(Log.STORE_FAILED, during="reconnect", detail=sentence(error))
                await asyncio.sleep(_RECONNECT_WAIT / 4)

    async def _fresh(self) -> Session:
        """A connection on which what the last one left unknown was put right. Raises StorageUnavailable, psycopg.Error."""
        if not self._database.healthy:
            raise unavailable("the database has not proved itself yet")
        session = await self._database.connect()
        try:
            if self._recover is not None:
                await self._recover(lambda: Transaction(session, self._database.bounds, self._shard))
        except BaseException:
            session.close()
            raise
        return session


class _Lost(Exception):
    """The connection broke. `unknown`: the commit may have happened. `server`: another connection would not help."""

    def __init__(self, why: str, *, unknown: bool, server: bool = False) -> None:
        super().__init__(why)
        self.unknown, self.server = unknown, server


def _refuse_all(operations: Iterable[_Operation], error: Exception) -> None:
    for operation in operations:
        _give(operation, copy(error))  # each has a traceback of its own


def _give(operation: _Operation, result: Any) -> None:
    if operation.future.done():  # its caller gave up; what was committed stands
        return
    if isinstance(result, Exception):
        operation.future.set_exception(result)
    else:
        operation.future.set_result(result)
