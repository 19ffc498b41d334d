"""All connections of one process but those of its lanes: reads and rare writes, and the watch over the server.

It decides whether the server can be relied on (`healthy`): when no new connection can be had the answer is no at once,
when the server is silent within a second, and only a durable write makes it yes again. Nothing is repeated on a
connection that failed, and nothing at all whose commit may have happened.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg

from service.errors import PostroomError
from service.store.bounds import Bounds
from service.store.postgres.session import Judgement, Rows, Session, at_its_end, judge, sentence, unavailable
from service.store.postgres.statements import BEGIN, BEGIN_READING, COMMIT, ROLLBACK, Statement, statement
from service.store.postgres.transaction import Transaction, opening
from service.telemetry import Log, get_logger

T = TypeVar("T")
log = get_logger()

_READERS, _TOGETHER = 2, 16  # groups of reads at once, and reads in one group
TRIES = 5  # of a transaction that was undone for the sake of another
_LOOK_EVERY, _SILENT_AFTER = 0.15, 0.6  # seconds: two looks and a silence are less than one
_LATE = 0.1  # seconds: a timer that rings later than this tells of our own loop, not of the server


async def pause_before(tries: int) -> None:
    """Wait a moment before an undone transaction is repeated, each replica another one."""
    await asyncio.sleep(random.random() * 0.02 * 2**tries)


@dataclass(slots=True)
class _Question:
    """What somebody wants to read."""

    statements: Sequence[Statement]
    answer: "asyncio.Future[list[Rows]]"


class Database:
    """See the module. `shard`: whose counters of states its writes go to. `on_lost`: when it is no longer relied on, and
    `on_recovered`: before it is again.
    """

    def __init__(
        self, url: str, bounds: Bounds, shard: int, on_lost: Callable[[], None], on_recovered: Callable[[], None]
    ) -> None:
        self._on_lost, self._on_recovered = on_lost, on_recovered
        self._url, self.bounds, self._shard = url, bounds, shard
        self._idle: list[Session] = []
        self._free = asyncio.Semaphore(bounds.connections)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._questions: deque[_Question] = deque()
        self._readers = 0
        self._watcher: asyncio.Task[None] | None = None
        self._sessions: WeakSet[Session] = WeakSet()  # all, whoever uses them
        self._answered = 0.0
        self._well, self._ill = asyncio.Event(), asyncio.Event()
        self.closing = self._hurried = False

    @property
    def healthy(self) -> bool:
        """Whether the server answered when it was last asked."""
        return self._well.is_set()

    async def open(self) -> None:
        """Connect once. Raises StorageUnavailable, ConfigurationError."""
        self._idle.append(await self.connect())
        self._well.set()
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Finish what runs, then let go of all connections."""
        self.hurry()
        self.closing = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._well.clear()
        self._drop_idle()

    async def connect(self, url: str | None = None) -> Session:
        """A fresh connection, to the database or to `url`. Raises StorageUnavailable, ConfigurationError."""
        try:
            session = await Session.open(url or self._url, self.bounds.connect_timeout, self.bounds.deadline)
        except PostroomError as error:
            if url is None:
                self.lost(error.detail)
            raise
        self._sessions.add(session)
        return session

    def hurry(self) -> None:
        """From here on nobody waits for answers of a server that is not relied on: who stops has no time for that."""
        self._hurried = True
        if not self.healthy:
            self._abort_all()

    def _abort_all(self) -> None:
        for session in list(self._sessions):
            if session.usable:
                session.abort()

    def answered(self) -> None:
        """The server has answered somebody just now."""
        self._answered = asyncio.get_running_loop().time()

    def lost(self, why: str) -> None:
        """No connection can be had, or the server is at its end: nothing is promised until it proves itself again."""
        if self.healthy:
            self._well.clear()
            self._ill.set()
            self._on_lost()
            log.error(Log.STORE_FAILED, detail=why)
        self._drop_idle()
        if self._hurried:
            self._abort_all()

    async def until_well(self) -> None:
        """Wait until the server can be relied on."""
        await self._well.wait()

    async def while_well(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` answers. Raises StorageUnavailable as soon as the server is no longer relied on, whatever becomes of it.

        A batch that a silent server was given waits for much longer than it takes to see that nobody answers.
        """
        working, ill = asyncio.ensure_future(work), asyncio.ensure_future(self._ill.wait())
        try:
            await asyncio.wait({working, ill}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise unavailable("the database does not answer")
        finally:
            working.cancel()
            ill.cancel()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    # --- reading and writing -------------------------------------------------------------------------------------

    async def read(self, *statements: Statement) -> list[Rows]:
        """The rows of each statement, from one snapshot. Raises StorageUnavailable.

        Reads that are asked for while others are under way share the next round trip, as writes share commits.
        """
        question = _Question(statements, asyncio.get_running_loop().create_future())
        self._questions.append(question)
        if self._readers < _READERS:
            self._readers += 1
            self._start(self._answer_questions())
        return await question.answer

    async def read_alone(self, *statements: Statement) -> list[Rows]:
        """The same for much data, which others should not wait for."""
        return await self._apart(self._repeated(lambda session: self._rows(session, statements), lambda: True))

    async def _rows(self, session: Session, statements: Sequence[Statement]) -> list[Rows]:
        return (await session.run([BEGIN_READING, opening(self.bounds), *statements, COMMIT]))[2:-1]

    async def _answer_questions(self) -> None:
        try:
            while self._questions:
                await self._answer_group(
                    [self._questions.popleft() for _ in range(min(len(self._questions), _TOGETHER))]
                )
        finally:
            self._readers -= 1

    async def _answer_group(self, group: list["_Question"]) -> None:
        asked = [each for question in group for each in question.statements]
        try:
            rows = iter(await self._repeated(lambda session: self._rows(session, asked), lambda: True))
        except PostroomError as error:
            _refuse(group, error)
        except Exception as error:  # one of them is wrong, or has a value that can't be sent: find out which
            for each in group if len(group) > 1 else ():
                await self._answer_group([each])
            _refuse(group, error)
        else:
            for question in group:
                answer = [next(rows) for _ in question.statements]
                if not question.answer.done():
                    question.answer.set_result(answer)

    async def ask(self, name: str, bindings: Mapping[str, Any] | None = None) -> Rows:
        """The rows of one statement."""
        (rows,) = await self.read(statement(name, bindings))
        return rows

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction of its own and commit it. Raises StorageUnavailable, and what `work` raises."""
        transaction: Transaction | None = None

        async def attempt(session: Session) -> T:
            nonlocal transaction
            transaction = Transaction(session, self.bounds, self._shard)
            result = await work(transaction)
            if not transaction.committing:
                await transaction.commit()
            return result

        return await self._apart(self._repeated(attempt, lambda: transaction is None or not transaction.committing))

    async def _apart(self, work: Coroutine[Any, Any, T]) -> T:
        """In a task of its own: who asked may give up, and the connection stays in order."""
        return await asyncio.shield(self._start(work))

    def _start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who asked may have given up: then nobody else hears of it, and asyncio would complain

    async def _repeated(self, work: Callable[[Session], Awaitable[T]], may_repeat: Callable[[], bool]) -> T:
        """`work`, again after it was undone for another's sake, or on a fresh connection if nothing can have come of it:
        a server that was restarted leaves dead connections behind."""
        for tries in range(TRIES):
            try:
                return await self._once(work)
            except psycopg.Error as error:
                judgement = judge(error)
                if judgement is Judgement.LOST:
                    self._drop_idle()
                    if at_its_end(error):
                        self.lost(sentence(error))
                    elif may_repeat() and tries + 1 < TRIES:
                        continue
                if judgement is Judgement.AGAIN and tries + 1 < TRIES:
                    await pause_before(tries)
                    continue
                if judgement is Judgement.OWN:
                    raise
                raise unavailable(sentence(error)) from None
        raise AssertionError("unreachable")

    async def _once(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """`work` on a connection, which goes back in order or not at all."""
        async with self._slot():
            session = self._idle.pop() if self._idle else await self.while_well(self.connect())
            try:
                result = await work(session)
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    await session.run([ROLLBACK])
                raise
            finally:
                self._give_back(session)
            self.answered()
            return result

    @contextlib.asynccontextmanager
    async def _slot(self) -> Any:
        if not self.healthy:
            raise unavailable("the store is closed" if self.closing else "the database does not answer")
        try:
            async with asyncio.timeout(self.bounds.statement_timeout):
                await self._free.acquire()
        except TimeoutError:
            raise unavailable("all connections to the database are busy") from None
        try:
            yield
        finally:
            self._free.release()

    def _give_back(self, session: Session) -> None:
        if session.usable and self.healthy:
            self._idle.append(session)
        else:
            session.close()

    # --- the watch -----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        session: Session | None = None
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self.healthy and loop.time() - self._answered < _LOOK_EVERY:
                continue
            try:
                if session is None or not session.usable:
                    # who is thought to be well must not take longer to say hello than to answer
                    async with asyncio.timeout(_SILENT_AFTER if self.healthy else None):
                        session = await self.connect()
                if self.healthy:
                    await _soon(session, [statement("ping: look")])
                else:
                    await self._prove(session)
            except Exception as error:
                if not isinstance(error, psycopg.Error | PostroomError | TimeoutError):
                    log.critical(Log.LOOP_FAILED, during="watch", exc_info=error)  # who ends here never looks again
                if not isinstance(error, TimeoutError) or loop.time() - self._answered > _SILENT_AFTER:
                    self.lost(sentence(error))  # else it is slow, but somebody had an answer meanwhile
                if session is not None:
                    session.close()
                    session = None

    async def _prove(self, session: Session) -> None:
        """Only a durable write, with new room for more, shows that the server takes mail again."""
        room = [statement("ping: small memory"), statement("ping: room")]
        write = statement("ping: write", {"at": int(asyncio.get_running_loop().time())})
        await session.run([BEGIN, opening(self.bounds), *room, write, statement("ping: still here"), COMMIT])
        self.answered()
        self._on_recovered()
        self._ill.clear()
        self._well.set()
        log.info(Log.STORE_RECOVERED)


def _refuse(group: Sequence[_Question], error: Exception) -> None:
    for question in group:
        if not question.answer.done():
            question.answer.set_exception(copy(error))  # each has a traceback of its own


async def _soon(session: Session, statements: list[Statement]) -> None:
    """Raises TimeoutError when the server is silent for too long."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(session.run(statements))
    for _ in range(2):
        began = loop.time()
        done, _pending = await asyncio.wait({task}, timeout=_SILENT_AFTER)
        if done or loop.time() - began < _SILENT_AFTER + _LATE:
            break  # else it was our loop that was late: the answer may be there already
    if not task.done():
        session.abort()
        await asyncio.gather(task, return_exceptions=True)
        raise TimeoutError("the server is silent")
    await task
