"""Bring a PostgreSQL schema up to date: one process at a time, all steps or none.

A step whose file begins with `-- additive` leaves everything in place that the version before it uses. Such a step may be
there although this version does not know it: so replicas of the old version go on, and start again, while the new one
is rolled out.
"""

import psycopg
from psycopg import sql

from service.errors import StorageUnavailable
from service.store.migrate import migrate
from service.store.postgres.session import sentence
from service.store.postgres.statements import statement
from service.store.queries import Migration, load_migrations

_ADDITIVE = "-- additive\n"
_WAIT = 60  # seconds for another process that migrates, or for a table that is in use


class _Schema:
    def __init__(self, connection: "psycopg.Connection[tuple[int, str, bool]]", known: set[int]) -> None:
        self._connection, self._known = connection, known

    def applied(self) -> dict[int, str]:
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_steps"
            " (number integer PRIMARY KEY, checksum text NOT NULL, additive boolean NOT NULL)"
        )
        rows = self._connection.execute("SELECT number, checksum, additive FROM schema_steps").fetchall()
        return {number: checksum for number, checksum, additive in rows if number in self._known or not additive}

    def apply(self, migration: Migration) -> None:
        self._connection.execute(migration.sql.encode())
        self._connection.execute(
            "INSERT INTO schema_steps (number, checksum, additive) VALUES (%s, %s, %s)",
            (migration.number, migration.checksum, migration.sql.startswith(_ADDITIVE)),
        )


def migrate_database(url: str, connect_timeout: float) -> None:
    """Raises StorageUnavailable, and ConfigurationError for a schema that does not fit this version."""
    steps = load_migrations("postgres")
    try:
        with psycopg.connect(url, connect_timeout=max(int(connect_timeout), 2), prepare_threshold=None) as connection:
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(f"{_WAIT}s"))
            connection.execute(statement("open: schema lock").text.encode())
            migrate(_Schema(connection, {step.number for step in steps}), steps)
    except psycopg.Error as error:
        raise StorageUnavailable(f"POSTROOM_DATABASE_URL: {sentence(error)}") from None
