"""The files beside the database: connections to it, who is alive, and hints between processes.

`<db>.lock` serialises writers of several processes, `<db>.holders/` has one locked file for each living process, and
`<db>.hints/` one datagram socket for each process that wants to hear that mail was queued.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from service.clock import SYSTEM
from service.errors import ConfigurationError, StorageUnavailable
from service.store.migrate import DUE, Outcome, Wanted, migrate
from service.store.queries import Migration, load_migrations
from service.store.sqlite.group import BUSY_TIMEOUT

# From 3.7.0 on, two connections that write and checkpoint at once can lose committed rows; mended in 3.51.3.
_SAFE_SQLITE = (3, 51, 3)
_CACHE = -32 * 1024  # KiB, negative by SQLite's convention
# Prepared statements that are kept. The driver counts runs and not statements: one that ran so many runs ago is prepared
# anew, at ten times the cost of a run. A group of the writer has hundreds of runs; the driver keeps no more than this.
_STATEMENTS = 512
_SCHEMA_WAIT = 60.0  # seconds for another process that migrates, or that stands still within a commit
_LOOK_AGAIN = 0.01  # seconds


def check_library() -> None:
    """Refuse a SQLite within the range of the WAL-reset bug. Raises ConfigurationError."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < _SAFE_SQLITE:
        raise ConfigurationError(
            f"SQLite {apsw.sqlite_lib_version()} can lose committed rows in WAL mode (mended in 3.51.3);"
            " install the locked version of apsw, which carries a newer one"
        )


def connect_writer(path: str) -> apsw.Connection:
    """A connection that writes: WAL, synchronous=FULL (a commit returns after its fsync)."""
    connection = apsw.Connection(path, statementcachesize=_STATEMENTS)
    _plan_once(connection)
    connection.set_busy_timeout(BUSY_TIMEOUT)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "mmap_size=0", f"cache_size={_CACHE}", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def connect_reader(path: str) -> apsw.Connection:
    """A connection that only reads."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    _plan_once(connection)
    connection.set_busy_timeout(BUSY_TIMEOUT)
    for pragma in ("query_only=ON", "mmap_size=0", f"cache_size={_CACHE}", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _plan_once(connection: apsw.Connection) -> None:
    """A statement's plan is made from its words alone, and not from what is bound to them.

    Else SQLite looks at a bound LIMIT while it plans, and so prepares the statement anew each time another value is bound.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


class _Schema:
    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self._connection, self._path = connection, path

    def applied(self) -> dict[int, str]:
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_steps (number INTEGER PRIMARY KEY, checksum TEXT NOT NULL) STRICT"
        )
        rows: list[Any] = self._connection.execute("SELECT number, checksum FROM schema_steps").fetchall()
        return dict(rows)

    def apply(self, migration: Migration) -> None:
        with self._connection:
            self._connection.execute(migration.sql)
            self._connection.execute(
                "INSERT INTO schema_steps (number, checksum) VALUES (?, ?)", (migration.number, migration.checksum)
            )

    def older(self, number: int) -> Sequence[str]:
        holders = Holders(self._path, "")
        return sorted(holder for holder in living(self._path) if holders.knows(holder) < number)


def take_lock(path: str, patience: float) -> int:
    """The lock that every writer of the file takes, as a handle to close. Raises TimeoutError after `patience` seconds.

    It blocks its thread: on the loop it would also block a store of this process that is to let the lock go.
    """
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = SYSTEM.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if SYSTEM.monotonic() > deadline:
                os.close(handle)
                raise TimeoutError from None
            time.sleep(_LOOK_AGAIN)
        else:
            return handle


def migrate_file(path: str, patience: float = _SCHEMA_WAIT, wanted: Wanted = DUE) -> Outcome:
    """Create the file if need be and bring its schema up to date, one process at a time. It blocks its thread.

    Raises ConfigurationError for a schema that does not fit, StorageUnavailable when others keep the file locked for
    `patience` seconds.
    """
    check_library()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = take_lock(path, patience)
    except TimeoutError:
        raise StorageUnavailable(
            f"POSTROOM_DATABASE_URL: another process has kept {path}.lock for {patience:g} s; end it, or wait until it"
            " has changed the schema"
        ) from None
    try:
        connection = connect_writer(path)
        try:
            return migrate(_Schema(connection, path), load_migrations("sqlite"), wanted)
        finally:
            connection.close()
    finally:
        os.close(lock)


class Holders:
    """Which processes live: each keeps a lock on a file of its own, which the kernel frees when it dies.

    In the file stands the newest step of the schema that the process knows.
    """

    def __init__(self, path: str, me: str) -> None:
        self._folder = Path(f"{path}.holders")
        self._me = me
        self._mine = -1

    def enter(self) -> None:
        """I live."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mine = os.open(self._folder / self._me, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(self._mine, str(load_migrations("sqlite")[-1].number).encode(), 0)

    def knows(self, holder: str) -> int:
        """The newest step that it knows; 0 when it does not say."""
        try:
            return int((self._folder / holder).read_text() or 0)
        except FileNotFoundError:
            return 0

    def leave(self) -> None:
        """I end."""
        if self._mine >= 0:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / self._me).unlink()
            os.close(self._mine)
            self._mine = -1

    def dead(self, holders: Sequence[str]) -> set[str]:
        """Those of `holders` that have died: their lock is free. Their files are removed."""
        return {holder for holder in holders if holder != self._me and self._is_dead(holder)}

    def _is_dead(self, holder: str) -> bool:
        file = self._folder / holder
        try:
            handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
            return True
        finally:
            os.close(handle)


def living(path: str) -> set[str]:
    """The processes that have this file open."""
    folder = Path(f"{path}.holders")
    names = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    return names - Holders(path, "").dead(sorted(names))


class Hints:
    """Datagrams that say "mail was queued" to the other processes on this file. Lost ones cost a poll interval."""

    def __init__(self, path: str, me: str) -> None:
        # a UNIX socket's path has 108 bytes: relative to the folder it may be shorter, so keep the name short
        self._folder = Path(f"{path}.hints")
        self._name = me[-20:]
        self._socket: socket.socket | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop for each hint."""
        self._callbacks.append(callback)
        if self._socket is not None:
            return
        self._folder.mkdir(exist_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        with contextlib.suppress(OSError):  # a path too long: polling stays correct
            receiver.bind(str(self._folder / self._name))
            self._socket = receiver
            asyncio.get_running_loop().add_reader(receiver, self._heard)

    def _heard(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        for callback in self._callbacks:
            callback()

    def send(self) -> None:
        """Tell all others."""
        try:
            names = os.listdir(self._folder)
        except OSError:  # nobody listens, or we may not know: they look anyway
            return
        for name in names:
            if name != self._name:
                self._tell(self._folder / name)

    def _tell(self, file: Path) -> None:
        try:
            self._sender.sendto(b"q", str(file))
        except (ConnectionRefusedError, FileNotFoundError):  # its process has died
            with contextlib.suppress(OSError):
                file.unlink()
        except OSError:
            return  # its buffer is full: it will look anyway

    def close(self) -> None:
        """Stop listening."""
        self._sender.close()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            with contextlib.suppress(OSError):
                (self._folder / self._name).unlink()
            self._socket = None
