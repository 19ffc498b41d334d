"""How many batches are worked on at once; the others wait. Accounts take turns, and within one it is first come, first served.

Whoever has read its body asks for a turn, so that a slow client holds none, and before it is parsed, so that who waits holds no
more octets than are counted. Why a process should work on one batch at a time is the composition root's to know.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from service.errors import QueueFull, RequestTimeout, ShuttingDown
from service.spool.submit import RETRY_SOON

_LATER = 5  # seconds in Retry-After: who waited in vain had better not come at once
_LONG = 1.0  # seconds of waiting after which a client may have given up; asking costs half a millisecond


class Turns:
    """`at_once`: batches, None: all. `patience`: seconds for which one waits."""

    def __init__(self, at_once: int | None, patience: float) -> None:
        self._free, self._patience = at_once, patience
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # by account; the first is next
        self._stopped = False

    @asynccontextmanager
    async def turn(self, account: str, gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
        """Wait for it, and have it until the block ends. `gone`: whether the client has hung up, asked after a long wait.

        Raises QueueFull, ShuttingDown, RequestTimeout.
        """
        if self._free is None:
            yield
            return
        began = time.monotonic()
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait(account)
        try:
            if time.monotonic() - began >= _LONG and await gone():  # it comes again, perhaps without a key
                raise RequestTimeout("The client went away.")
            yield
        finally:
            self._give_on()

    @property
    def waiting(self) -> int:
        """Batches."""
        return sum(map(len, self._waiting.values()))

    def stop(self) -> None:
        """Nobody who waits will have a turn."""
        self._stopped = True
        for queue in self._waiting.values():
            for waiting in queue:
                if not waiting.done():
                    waiting.set_exception(ShuttingDown(retry_after=RETRY_SOON))
        self._waiting.clear()

    async def _wait(self, account: str) -> None:
        if self._stopped:
            raise ShuttingDown(retry_after=RETRY_SOON)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(mine)
        try:
            async with asyncio.timeout(self._patience):
                await mine
        except BaseException as error:
            self._forget(account, mine)
            if not mine.cancelled() and mine.done() and mine.exception() is None:
                self._give_on()  # it came as we gave up
            if isinstance(error, TimeoutError):
                raise QueueFull(
                    f"Nothing was accepted: other batches were worked on for {self._patience:g} s (POSTROOM_BATCH_WAIT;"
                    " POSTROOM_BATCHES_AT_ONCE).",
                    retry_after=_LATER,
                ) from None
            raise

    def _forget(self, account: str, mine: "asyncio.Future[None]") -> None:
        """Who gave up: a turn that never ends must not gather them."""
        queue = self._waiting.get(account)
        if queue is not None and mine in queue:
            queue.remove(mine)
            if not queue:
                del self._waiting[account]

    def _give_on(self) -> None:
        """To the next one who still waits, of the account that has waited longest for its turn."""
        assert self._free is not None
        while self._waiting:
            account, queue = self._waiting.popitem(last=False)
            waiting = queue.popleft()
            if queue:
                self._waiting[account] = queue
                if waiting.done():  # who gave up costs its account no turn
                    self._waiting.move_to_end(account, last=False)
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1
