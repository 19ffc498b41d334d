"""The only SQL. `open_store` picks the implementation by the URL; both speak store/port.py."""

from service.clock import Clock
from service.errors import ConfigurationError
from service.settings import Settings
from service.store.bounds import Bounds
from service.store.port import Store
from service.telemetry import Metrics

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")


_OF_A_LEASE = 0.3  # share for which a lock is waited for: a heartbeat that comes at a third of a lease still renews it


def bounds_of(settings: Settings) -> Bounds:
    """What the settings allow a process to ask of a database server."""
    listen_url = settings.database_listen_url
    return Bounds(
        statement_timeout=settings.database_timeout,
        lock_timeout=min(settings.database_lock_timeout, settings.lease * _OF_A_LEASE),
        connect_timeout=settings.database_connect_timeout,
        connections=settings.database_connections,
        listen_url=listen_url.get_secret_value() if listen_url else None,
    )


def open_store(
    database_url: str, clock: Clock, *, holder: str, bounds: Bounds | None = None, metrics: Metrics | None = None
) -> Store:
    """A store, not yet opened. `holder` names this process in its leases; `bounds` limits its use of a server; its
    commits are counted in `metrics`.

    Raises ConfigurationError.
    """
    if database_url.startswith(SQLITE):
        from service.store.sqlite.store import SQLiteStore

        return SQLiteStore(database_url.removeprefix(SQLITE), clock, holder, metrics)
    if database_url.startswith(POSTGRES):
        from service.store.postgres.session import check_url
        from service.store.postgres.store import PostgresStore

        check_url("DATABASE_URL", database_url)
        if bounds is not None and bounds.listen_url is not None:
            check_url("DATABASE_LISTEN_URL", bounds.listen_url)
        return PostgresStore(database_url, clock, holder, bounds or Bounds(), metrics)
    raise ConfigurationError(
        "POSTROOM_DATABASE_URL: must be `sqlite:///path/to/file.db` or `postgresql://user@host/database`"
    )
