"""The part of the store that an operator looks at after a backup was restored: is it a copy, what waits, let it go."""

from service.store.marks import COPIED
from service.store.postgres.database import Database
from service.store.postgres.statements import statement
from service.store.shown import Waiting
from service.store.waiting import copied_at_of, waiting_of


class Restoring:
    """Implements what store/port.Store says of restored copies."""

    _database: Database

    async def copied_at(self) -> int | None:
        """See port."""
        return copied_at_of(await self._database.ask("copied_at: mark", {"number": COPIED}))

    async def release_copy(self) -> bool:
        """See port."""
        return bool(
            await self._database.write(lambda transaction: transaction.ask("release_copy: mark", {"number": COPIED}))
        )

    async def waiting(self, now: int, limit: int) -> Waiting:
        """See port."""
        given = {"now": now, "copied_at": await self.copied_at() or 0, "limit": limit}
        names = ("waiting: lanes", "waiting: first", "waiting: attempts")
        return waiting_of(*await self._database.read_alone(*(statement(name, given) for name in names)))
