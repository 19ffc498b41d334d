"""How much a process may ask of a database server, and for how long it waits."""

from dataclasses import dataclass

_MARGIN = 2.0  # seconds by which the client waits longer than the server


@dataclass(frozen=True, slots=True)
class Bounds:
    """Durations are seconds."""

    statement_timeout: float = 10.0
    lock_timeout: float = 5.0
    connect_timeout: float = 5.0
    connections: int = 4  # for reads and rare writes, beside one each for accepting, sending, the watch and hints
    listen_url: str | None = None  # for hints: a way past a pooler in transaction mode

    @property
    def deadline(self) -> float:
        """How long the client waits for a batch of statements."""
        return self.statement_timeout + _MARGIN
