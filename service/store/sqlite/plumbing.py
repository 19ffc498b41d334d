"""How the store gets at its file: writes in the one writer's groups, point reads on the loop, longer reads in threads."""

from collections.abc import Callable
from typing import TypeVar

import apsw

from service.errors import StorageUnavailable
from service.store.sqlite.reads import Reader, Readers
from service.store.sqlite.transaction import Steps, Transaction
from service.store.sqlite.writer import Writer

T = TypeVar("T")


class Plumbing:
    """What every part of the store works with."""

    _writer: Writer
    _reader: Reader | None = None

    async def _write(self, work: Callable[[Transaction], T], size: int = 0) -> T:
        """A few rows, at once. `size`: octets of message bytes among them."""
        result: T = await self._writer.submit(work, size, size)
        return result

    async def _write_steps(self, work: Callable[[Transaction], Steps[T]], size: int = 0, largest: int = 0) -> T:
        """Many rows, with pauses."""
        result: T = await self._writer.submit(work, size, largest)
        return result

    def _read(self, work: Callable[[Reader], T]) -> T:
        """A point read on the loop."""
        if self._reader is None:
            raise StorageUnavailable(retry_after=1.0)
        try:
            return work(self._reader)
        except apsw.Error as error:
            raise StorageUnavailable(f"{type(error).__name__}: {error}", retry_after=1.0) from error

    async def _read_in(self, readers: Readers, work: Callable[[Reader], T]) -> T:
        """A longer read in a thread."""
        try:
            return await readers.run(work)
        except apsw.Error as error:
            raise StorageUnavailable(f"{type(error).__name__}: {error}", retry_after=1.0) from error
