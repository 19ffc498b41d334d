"""How many requests of a kind are worked on at once; the others wait, in the order in which they came.

Whoever has read its body takes a turn, so that a slow client holds none. Why a process should work on one batch at a time
is the composition root's to know.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import QueueFull


class Turns:
    """`at_once`: requests, None: all. `patience`: seconds for which one waits."""

    def __init__(self, at_once: int | None, patience: float) -> None:
        self._free = asyncio.Semaphore(at_once) if at_once else None
        self._patience = patience

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for it, and have it until the block ends. Raises QueueFull."""
        if self._free is None:
            yield
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise QueueFull(
                f"Other batches were worked on for {self._patience:g} s (POSTROOM_BATCH_WAIT).", retry_after=1
            ) from None
        try:
            yield
        finally:
            self._free.release()
