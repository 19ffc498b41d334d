"""Hints between processes: "mail was queued", by NOTIFY. Polling stays correct without them.

LISTEN belongs to a connection, so it has one of its own; behind a pooler in transaction mode that hears nothing. So
hints count as working only when this process has heard itself; otherwise it asks again only after a while.
They are coalesced: one that is about to leave stands for all that was queued before.
"""

import asyncio
from collections.abc import Callable

import psycopg

from service.errors import PostroomError
from service.store.postgres.database import Database
from service.store.postgres.session import Session, sentence
from service.store.postgres.statements import statement
from service.store.postgres.transaction import Transaction
from service.telemetry import Log, get_logger

log = get_logger()

_HEARD_WITHIN = 2.0  # seconds in which this process must hear itself
_APART = 0.02  # seconds between two hints
_RECONNECT_AFTER, _GIVE_UP_FOR = 0.5, 60.0  # seconds: after a broken connection; where hints don't get through


class Hints:
    """See the module. `holder` is who I am."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database, self._holder = database, holder
        self._callbacks: list[Callable[[], None]] = []
        self._queued = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._tried = asyncio.Event()
        self.working = asyncio.Event()

    async def start(self) -> None:
        """Begin to tell and to hear, in the background; returns when this process listens, or can't yet."""
        self._tasks = [asyncio.create_task(self._tell_for_ever()), asyncio.create_task(self._hear_for_ever())]
        await self._tried.wait()

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop for each hint of another process."""
        self._callbacks.append(callback)

    def send(self) -> None:
        """Mail was queued: tell the others, soon."""
        self._queued.set()

    async def _tell_for_ever(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            wait = _APART
            try:
                await self._database.write(self._tell)
            except (psycopg.Error, PostroomError):
                pass  # who was not told looks for himself
            except Exception as error:
                wait = _after_fault("tell", error)
            await asyncio.sleep(wait)

    async def _tell(self, transaction: Transaction) -> None:
        tell = statement("on_hint: tell", {"holder": self._holder})
        await transaction.commit(statement("on_hint: unsynced"), tell)

    async def _hear_for_ever(self) -> None:
        while True:
            await self._database.until_well()
            wait = _RECONNECT_AFTER
            try:
                await self._hear()
            except TimeoutError:
                log.info(Log.HINTS_OFF, detail="LISTEN does not get through: the queue is polled")
                wait = _GIVE_UP_FOR
            except (psycopg.Error, PostroomError) as error:
                log.debug(Log.STORE_FAILED, during="hints", detail=sentence(error))
            except Exception as error:
                wait = _after_fault("hear", error)
            finally:
                self.working.clear()
                self._tried.set()
            await asyncio.sleep(wait)

    async def _hear(self) -> None:
        """Raises TimeoutError when hints don't get through, psycopg.Error when the connection breaks."""
        session = await self._database.connect(self._database.bounds.listen_url)
        ears: _Ears | None = None
        try:
            await session.run([statement("on_hint: listen")])
            self._tried.set()
            ears = _Ears(session, self._heard)
            self._queued.set()
            async with asyncio.timeout(_HEARD_WITHIN):
                await self.working.wait()
            await ears.broken
        finally:
            if ears is not None:
                ears.close()
            session.close()

    def _heard(self, names: set[str]) -> None:
        if self._holder in names:
            self.working.set()
        if names - {self._holder}:
            for callback in self._callbacks:
                callback()


def _after_fault(during: str, error: Exception) -> float:
    """Our own: it is told, and must not end the hints for ever. Seconds until they are tried again."""
    log.critical(Log.LOOP_FAILED, during=during, exc_info=error)
    return _GIVE_UP_FOR


class _Ears:
    """Reads notifications as they arrive. `broken` ends with the error that ends the connection."""

    def __init__(self, session: Session, heard: Callable[[set[str]], None]) -> None:
        self._connection, self._heard = session.connection.pgconn, heard
        self._loop, self._socket = asyncio.get_running_loop(), session.connection.pgconn.socket
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._socket, self._read)
        self._read()

    def close(self) -> None:
        """Hear no more. Before the socket is closed: its number may be given to another one."""
        self._loop.remove_reader(self._socket)
        self.broken.cancel()

    def _read(self) -> None:
        try:
            self._connection.consume_input()
        except psycopg.Error as error:
            self._loop.remove_reader(self._socket)
            if not self.broken.done():  # it may have been given up a moment ago
                self.broken.set_exception(error)
            return
        names: set[str] = set()
        while (notice := self._connection.notifies()) is not None:
            names.add(notice.extra.decode())
        if names:
            self._heard(names)
