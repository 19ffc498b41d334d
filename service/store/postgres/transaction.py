"""One transaction: batches of named statements, each one round trip, and the counts of recipients by state.

The bounds (timeouts, planner) are set for each transaction anew, since behind a pooler nothing else would hold. COMMIT
goes out with the last batch: when its answer is lost, nobody knows whether it happened, and the caller must not claim
either.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from service.mail.lifecycle import State
from service.store.bounds import Bounds
from service.store.postgres.session import Rows, Session
from service.store.postgres.statements import BEGIN, COMMIT, ROLLBACK, Statement, statement


def opening(bounds: Bounds, patience: float | None = None) -> Statement:
    """The statement that sets the bounds of a transaction. patience: seconds for rows that others hold, if less."""
    return statement(
        "open: bounds",
        {
            "statement": f"{bounds.statement_timeout * 1000:.0f}ms",
            "lock": f"{max((patience or bounds.lock_timeout) * 1000, 1):.0f}ms",
            "idle": f"{bounds.idle_timeout * 1000:.0f}ms",
        },
    )


class Transaction:
    """See the module. It begins with its first batch. `patience`: see `opening`."""

    def __init__(self, session: Session, bounds: Bounds, shard: int, patience: float | None = None) -> None:
        self._session, self._bounds, self._shard, self._patience = session, bounds, shard, patience
        self._begun = False
        self.committing = False
        self.moves: Counter[str] = Counter()
        self.queued = False  # something waits now that did not before

    async def run(self, *statements: Statement) -> list[Rows]:
        """The rows of each statement. Raises psycopg.Error."""
        first = [] if self._begun else [BEGIN, opening(self._bounds, self._patience)]
        self._begun = True
        return (await self._session.run([*first, *statements]))[len(first) :]

    async def ask(self, name: str, bindings: Mapping[str, Any] | None = None) -> Rows:
        """The rows of one statement."""
        (rows,) = await self.run(statement(name, bindings))
        return rows

    async def commit(self, *statements: Statement) -> list[Rows]:
        """The last statements, the counts, and COMMIT. Raises psycopg.Error."""
        moves = sorted((state, delta) for state, delta in self.moves.items() if delta)
        counts = []
        if moves:
            states, deltas = map(list, zip(*moves, strict=True))
            counts = [statement("accept: counts", {"shard": self._shard, "states": states, "deltas": deltas})]
        if not self._begun and not statements and not counts:
            return []
        self.committing = True
        return (await self.run(*statements, *counts, statement("ping: still here"), COMMIT))[: len(statements)]

    async def rollback(self) -> None:
        """Undo it. Raises psycopg.Error when the connection is gone."""
        if self._begun:
            await self._session.run([ROLLBACK])

    def move(self, before: State | None, after: State | None, count: int = 1) -> None:
        """`count` recipients went from one state to another; None is outside."""
        if before is not None:
            self.moves[before.value] -= count
        if after is not None:
            self.moves[after.value] += count
