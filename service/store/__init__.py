"""The only SQL. `open_store` picks the implementation by the URL; both speak store/port.py."""

from service.clock import Clock
from service.errors import ConfigurationError
from service.store.port import Store


def open_store(database_url: str, clock: Clock, *, holder: str) -> Store:
    """A store, not yet opened. `holder` names this process in its leases. Raises ConfigurationError."""
    if database_url.startswith("sqlite:///"):
        from service.store.sqlite.store import SQLiteStore

        return SQLiteStore(database_url.removeprefix("sqlite:///"), clock, holder)
    raise ConfigurationError("POSTROOM_DATABASE_URL: must be `sqlite:///path/to/file.db`")
