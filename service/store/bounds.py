"""How much a process may ask of a database server, and for how long it waits."""

from dataclasses import dataclass

_MARGIN = 2.0  # seconds by which the client waits longer than the server
_OF_LOCK_TIMEOUT = 0.6  # share for which a transaction may stand still


@dataclass(frozen=True, slots=True)
class Bounds:
    """Durations are seconds."""

    statement_timeout: float = 10.0
    lock_timeout: float = 5.0
    connect_timeout: float = 5.0
    wait: float = 0.0  # at the start, for a database that is not there yet
    connections: int = 4  # for reads and rare writes, beside one each for accepting, sending, the watch and hints
    listen_url: str | None = None  # for hints: a way past a pooler in transaction mode

    @property
    def deadline(self) -> float:
        """How long the client waits for a batch of statements."""
        return self.statement_timeout + _MARGIN

    @property
    def idle_timeout(self) -> float:
        """How long the server lets a transaction stand still, as one does whose process was stopped.

        That is shorter than others wait for the rows that it holds: they get them, and are not refused.
        """
        return self.lock_timeout * _OF_LOCK_TIMEOUT
