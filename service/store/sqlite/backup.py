"""A consistent copy of a SQLite store while services work on it.

One read transaction is held while pages are copied, so the copy is the store at one moment, writers are not stopped, and
nothing is begun again when they commit. The copy is marked (store/marks): a service that opens it sends nothing until it
is released, for what waits in it was perhaps sent by the original since.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw

from service.clock import Clock
from service.errors import ConfigurationError, StorageUnavailable
from service.store.marks import COPIED, Mark
from service.store.sqlite.files import check_library, connect_reader
from service.store.sqlite.placing import free_name, place

_STEP = 1024 * 1024  # octets between two looks at the clock
_SHOW_EVERY = 2.0  # seconds
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """Octets of the copy, its moment (ms), and how long copying and checking took, in seconds."""

    octets: int
    at: int
    copying: float
    checking: float


def back_up(path: str, file: Path, clock: Clock, say: Say) -> Copied:
    """Copy the store at `path` to the new file `file`, check it, sync it, put it in place.

    Raises ConfigurationError (no store there, a file there already, a copy that does not pass SQLite's integrity
    check) and StorageUnavailable.
    """
    check_library()
    if not Path(path).is_file():
        raise ConfigurationError(f"POSTROOM_DATABASE_URL: there is no file {path}")
    draft = free_name(file.absolute(), "FILE")
    began = clock.monotonic()
    try:
        at = _copy(path, draft, clock, say)
        copied = clock.monotonic()
        say("checking the copy")
        _check(draft)
        place(draft, file.absolute(), "FILE")
    except (apsw.Error, OSError) as error:
        raise StorageUnavailable(f"{file}: {type(error).__name__}: {error}") from error
    finally:
        for left in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm"), Path(f"{draft}-journal")):
            left.unlink(missing_ok=True)
    return Copied(file.stat().st_size, at, copied - began, clock.monotonic() - copied)


def _copy(path: str, draft: Path, clock: Clock, say: Say) -> int:
    """The moment of the copy, ms."""
    with contextlib.closing(connect_reader(path)) as store, contextlib.closing(apsw.Connection(str(draft))) as copy:
        copy.execute("PRAGMA synchronous=OFF").fetchall()  # it is synced as a whole before it gets its name
        store.execute("BEGIN")
        if store.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_steps'").fetchone() is None:
            raise ConfigurationError(f"POSTROOM_DATABASE_URL: {path} is no store")
        at = clock.now()  # no earlier than the transaction's moment: who was accepted before it may be in the copy
        page = int(store.execute("PRAGMA page_size").get)
        shown = clock.monotonic()
        with copy.backup("main", store, "main") as backup:
            while not backup.done:
                backup.step(max(_STEP // page, 1))
                if clock.monotonic() - shown >= _SHOW_EVERY:
                    shown = clock.monotonic()
                    copied = (backup.page_count - backup.remaining) * page
                    say(f"{copied / 1e6:,.0f} of {backup.page_count * page / 1e6:,.0f} MB")
        store.execute("COMMIT")
        copy.execute("INSERT OR REPLACE INTO schema_steps (number, checksum) VALUES (?, ?)", (COPIED, Mark(at).text))
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return at


def _check(draft: Path) -> None:
    with contextlib.closing(apsw.Connection(str(draft))) as copy:
        found = [word for (word,) in copy.execute("PRAGMA integrity_check(5)")]
    if found != ["ok"]:
        raise ConfigurationError(f"FILE: the copy is damaged, as the store itself may be: {'; '.join(found)}")
