"""One connection to PostgreSQL. Statements go out together and are answered together: one round trip for a batch.

It decides what an error means for the connection (`judge`), and gives up on a server that does not answer in time. It
refuses to know what the statements do.

The connection is in pipeline mode for its whole life. Leaving it after each batch, psycopg sends a Flush behind the Sync,
and a server that has read anything since it said that it waits ends no transaction for standing still.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.array import ListBinaryDumper
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

from service.errors import ConfigurationError, StorageUnavailable
from service.store.postgres.statements import Statement, statement

Rows = list[tuple[Any, ...]]
_OLDEST = 140000  # server_version_num
_DRAIN_TRIES = 3
_UNSYNCED = ("off", "local")  # of synchronous_commit: a commit that may be lost, or that a failover may lose
_MOVED = "2201F"  # a root of a negative number, which nothing else takes: see `ping: still here`


class Judgement(Enum):
    """What a database error means."""

    LOST = auto()  # the connection, or the server behind it, can't be relied on; what was asked may have happened
    AGAIN = auto()  # it was undone for the sake of another transaction: repeat it
    SLOW = auto()  # a lock or a statement took too long: it was undone
    OWN = auto()  # the statement's own fault


_BY_STATE = {
    "40001": Judgement.AGAIN,  # serialization_failure
    "40P01": Judgement.AGAIN,  # deadlock_detected
    "55P03": Judgement.SLOW,  # lock_not_available
    "57014": Judgement.SLOW,  # query_canceled: statement_timeout
    "25006": Judgement.LOST,  # read_only_sql_transaction: it has become a standby
    _MOVED: Judgement.LOST,
}
# connection exceptions, resources, operator intervention, system errors, internal errors, transaction state
_LOST_CLASSES = ("08", "53", "57", "58", "XX", "25")

_AT_ITS_END = ("53", "58")  # insufficient resources, system errors


def judge(error: psycopg.Error) -> Judgement:
    """By SQLSTATE; an operational error without one comes from the connection itself."""
    state = error.sqlstate
    if state is None:
        broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return Judgement.LOST if broken else Judgement.OWN
    if state in _BY_STATE:
        return _BY_STATE[state]
    return Judgement.LOST if state[:2] in _LOST_CLASSES else Judgement.OWN


def at_its_end(error: psycopg.Error) -> bool:
    """Whether the server says that it lacks disk, memory or connections, or that its disk fails: it would say so to all,
    over any connection, though it answers whoever asks for nothing new. So does one whose mail was moved elsewhere.
    """
    return error.sqlstate == _MOVED or (error.sqlstate or "")[:2] in _AT_ITS_END


def sentence(error: BaseException) -> str:
    """The first line of an error: PostgreSQL adds details below it that may hold a row's values."""
    if isinstance(error, psycopg.Error) and error.sqlstate == _MOVED:
        return "the mail of this database was moved elsewhere; start the service with the new URL"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def check_url(setting: str, url: str) -> None:
    """Raises ConfigurationError, without the words of the driver, which quote the part that is wrong: it may be a secret."""
    try:
        conninfo_to_dict(url)
        well_formed = not _login_is_cut_short(url)
    except psycopg.Error:
        well_formed = False
    if not well_formed:
        raise ConfigurationError(
            f"POSTROOM_{setting}: is not a valid URL:"
            " write `%`, `@`, `:`, `/` and blanks of user and password as %25, %40, %3A, %2F and %20"
        )


def _login_is_cut_short(url: str) -> bool:
    """Whether a bare `@` or `/` in user or password ends them early, and libpq takes the rest for a host, a port or a database.
    It would name that in its errors.
    """
    authority, _, path = url.partition("://")[2].partition("/")
    return authority.partition("?")[0].count("@") > 1 or "@" in path.partition("?")[0]


class Session:
    """See the module. `deadline`: seconds that a batch may take before the connection is given up."""

    def __init__(self, connection: "psycopg.AsyncConnection[Any]", deadline: float) -> None:
        self.connection, self._deadline = connection, deadline
        self._pipeline: asyncio.Future[psycopg.AsyncPipeline] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep_pipeline())

    @classmethod
    async def open(cls, url: str, connect_timeout: float, deadline: float) -> "Session":
        """Connect, and check that the server keeps what it commits. Raises StorageUnavailable, ConfigurationError."""
        try:
            async with asyncio.timeout(connect_timeout):
                connection = await psycopg.AsyncConnection.connect(
                    url, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.AsyncRawCursor
                )
        except TimeoutError:
            raise unavailable(f"the server did not answer within {connect_timeout:g} s") from None
        except psycopg.Error as error:
            raise unavailable(sentence(error)) from None
        _adapt(connection)
        session = cls(connection, deadline)
        try:
            ((row,),) = await session.run_or_abort([statement("open: server")])
            check_server(*row)
        except psycopg.Error as error:
            session.close()
            raise unavailable(sentence(error)) from None
        except BaseException:
            session.close()
            raise
        return session

    async def run(self, statements: Sequence[Statement]) -> list[Rows]:
        """The rows of each, in one round trip. Raises psycopg.Error, or what a value that can't be sent raises; after
        either the transaction is to be rolled back.
        """
        timer = asyncio.get_running_loop().call_later(self._deadline, self.abort)
        try:
            pipeline = await asyncio.shield(self._pipeline)
            try:
                cursors = []
                for each in statements:
                    cursor = self.connection.cursor(binary=True)
                    await cursor.execute(each.text, each.values)
                    cursors.append(cursor)
                await pipeline.sync()
            except Exception:  # the server's, or a value's that was not sent: the connection is in order behind it
                await self._drain(pipeline)
                raise
            return [await cursor.fetchall() if cursor.description is not None else [] for cursor in cursors]
        except BaseException as error:
            if not isinstance(error, Exception):
                self.abort()  # it was stopped in the middle: nobody knows what comes next on this connection
            raise
        finally:
            timer.cancel()

    async def run_or_abort(self, statements: Sequence[Statement]) -> list[Rows]:
        """As `run`, and whoever is stopped while it runs is stopped at once: the driver would first ask the server to cancel
        it, which takes seconds if that is silent. The connection is of no use then.
        """
        running = asyncio.ensure_future(self.run(statements))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.abort()
            await asyncio.gather(running, return_exceptions=True)
            raise

    async def _drain(self, pipeline: psycopg.AsyncPipeline) -> None:
        """Read the answers to what was sent behind a statement that failed: none of it was done."""
        for _ in range(_DRAIN_TRIES):
            with contextlib.suppress(psycopg.Error):
                await pipeline.sync()
            if not pipeline.result_queue or not self.usable:
                return
        self.abort()

    async def _keep_pipeline(self) -> None:
        """Stay in pipeline mode until the connection is closed."""
        try:
            async with self.connection.pipeline() as pipeline:
                self._pipeline.set_result(pipeline)
                await self._over.wait()
        except Exception as error:  # at the end the connection may be gone; before, nobody must wait for ever
            if not self._pipeline.done():
                self._pipeline.set_exception(error)

    @property
    def usable(self) -> bool:
        """Whether it can be used again."""
        return not self.connection.closed and not self.connection.broken

    def abort(self) -> None:
        """End the connection from our side, at once: whoever waits on it is told by the operating system."""
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.connection.pgconn.socket)) as channel,
        ):
            channel.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it, without a farewell that a dead server would not answer."""
        self.connection.pgconn.finish()
        self._over.set()


def _adapt(connection: "psycopg.AsyncConnection[Any]") -> None:
    """Whole numbers are bigint, or a small value would make a small type that overflows; lists go in binary form."""
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    connection.adapters.register_dumper(list, ListBinaryDumper)


def check_server(
    version: int,
    fsync: str,
    full_page_writes: str,
    synchronous: str,
    isolation: str,
    standby: bool,
    encoding: str,
    read_only: str,
) -> None:
    """Refuse a server that may lose what it has committed, or that would answer otherwise than is thought here."""
    if standby:
        raise unavailable("the server is a standby, which takes no writes")
    if read_only == "on":  # what those who run servers do when a disk fills up; reads alone would look well
        raise unavailable("the server says default_transaction_read_only=on, and takes no writes")
    if version < _OLDEST:
        raise ConfigurationError(f"POSTROOM_DATABASE_URL: PostgreSQL 14 or newer is needed, this is {version // 10000}")
    if synchronous in _UNSYNCED:
        raise ConfigurationError(
            f"POSTROOM_DATABASE_URL: the server says synchronous_commit={synchronous}, with which a message may be lost"
            " after its 202; set it to `on` for this role (ALTER ROLE ... SET synchronous_commit = on)"
        )
    for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)):
        if value != "on":
            raise ConfigurationError(
                f"POSTROOM_DATABASE_URL: the server says {name}={value}, with which a crash loses messages; set it to `on`"
            )
    if isolation != "read committed":
        raise ConfigurationError(
            f"POSTROOM_DATABASE_URL: the server says default_transaction_isolation={isolation}; set it to"
            " `read committed` for this role, which is what the statements are written for"
        )
    if encoding != "UTF8":
        raise ConfigurationError(f"POSTROOM_DATABASE_URL: the database's encoding is {encoding}; create it with UTF8")


def unavailable(why: str) -> StorageUnavailable:
    """The answer while the database can't be used."""
    return StorageUnavailable(f"Nothing was accepted: {why}.", retry_after=1.0)
