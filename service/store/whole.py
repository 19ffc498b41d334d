"""The commands on whole stores, by URL: bring one's schema up to date, copy one, move one, free one whose move was given up.

It decides which dialect does what; store/move has the procedure.
"""

from pathlib import Path

import apsw

from service.clock import Clock
from service.errors import ConfigurationError, StorageUnavailable
from service.store import POSTGRES, SQLITE
from service.store.migrate import Outcome, Wanted
from service.store.move import Moved, Say, Source, Target, move
from service.store.sqlite import backup, moving
from service.store.sqlite.files import migrate_file

_KINDS = "must be `sqlite:///path/to/file.db` or `postgresql://user@host/database`"


def migrate_store(url: str, connect_timeout: float, wanted: Wanted) -> Outcome:
    """See migrate.migrate. connect_timeout: seconds. Raises ConfigurationError, StorageUnavailable."""
    if _is_sqlite(url, "POSTROOM_DATABASE_URL"):
        path = str(Path(url.removeprefix(SQLITE)).absolute())
        try:
            return migrate_file(path, wanted=wanted)
        except (apsw.Error, OSError) as error:
            raise StorageUnavailable(f"POSTROOM_DATABASE_URL: {path}: {error}") from error
    from service.store.postgres.migrations import migrate_database

    return migrate_database(url, connect_timeout, wanted)


def back_up_store(url: str, file: Path, clock: Clock, say: Say) -> backup.Copied:
    """See sqlite/backup.back_up. Raises ConfigurationError for a store that has tools of its own."""
    if not url.startswith(SQLITE):
        raise ConfigurationError(
            "PostgreSQL is backed up with its own tools: `pg_dump --format=custom`, or base backups with archived WAL."
            " Start a restored copy with `postroom serve --hold`: it holds mail that was sent after the copy was taken"
        )
    return backup.back_up(url.removeprefix(SQLITE), file, clock, say)


def move_store(origin: str, destination: str, clock: Clock, say: Say) -> Moved:
    """See move.move. Raises ConfigurationError, StorageUnavailable."""
    kinds = [_is_sqlite(origin, "--from"), _is_sqlite(destination, "--to")]
    if kinds[0] == kinds[1]:
        raise ConfigurationError(
            "--from, --to: the same kind of store; a SQLite file is copied by `postroom backup`, PostgreSQL by pg_dump"
        )
    source = _source(origin)
    try:
        target = _target(destination)
        try:
            return move(source, target, clock, say)
        finally:
            target.close()
    finally:
        source.close()


def unmark_store(url: str) -> bool:
    """Let a store be used again whose mail was moved elsewhere. False: it was not marked."""
    if _is_sqlite(url, "--unmark"):
        return moving.unmark_file(url.removeprefix(SQLITE))
    from service.store.postgres.moving import unmark_database

    return unmark_database(url)


def _is_sqlite(url: str, option: str) -> bool:
    if url.startswith(SQLITE):
        return True
    if url.startswith(POSTGRES):
        return False
    raise ConfigurationError(f"{option}: {_KINDS}")


def _source(url: str) -> Source:
    if url.startswith(SQLITE):
        return moving.SQLiteSource.open(url.removeprefix(SQLITE))
    from service.store.postgres.moving import PostgresSource

    return PostgresSource.open(url)


def _target(url: str) -> Target:
    if url.startswith(SQLITE):
        return moving.SQLiteTarget.open(url.removeprefix(SQLITE))
    from service.store.postgres.moving import PostgresTarget

    return PostgresTarget.open(url)
