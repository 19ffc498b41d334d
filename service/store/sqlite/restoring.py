"""The part of the store that an operator looks at after a backup was restored: is it a copy, what waits, let it go."""

from service.store.marks import COPIED
from service.store.shown import Waiting
from service.store.sqlite.plumbing import Plumbing
from service.store.sqlite.reads import Reader, Readers
from service.store.waiting import copied_at_of, waiting_of


class RestoringStore(Plumbing):
    """Implements what store/port.Store says of restored copies."""

    _lists: Readers

    async def copied_at(self) -> int | None:
        """See port."""
        return copied_at_of(self._read(lambda reader: reader.run("copied_at: mark", {"number": COPIED}).fetchall()))

    async def release_copy(self) -> bool:
        """See port."""
        return await self._write(
            lambda transaction: transaction.one("release_copy: mark", {"number": COPIED}) is not None
        )

    async def waiting(self, now: int, limit: int) -> Waiting:
        """See port."""
        given = {"now": now, "copied_at": await self.copied_at() or 0, "limit": limit}

        def read(reader: Reader) -> Waiting:
            names = ("waiting: lanes", "waiting: first", "waiting: attempts")
            return waiting_of(*(reader.run(name, given).fetchall() for name in names))

        return await self._read_in(self._lists, read)
