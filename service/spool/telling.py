"""What this process has to tell the store about relays' accounts: of each account one thing after the other.

What is told later waits for what was told before, so that a relay that was mended can't be broken again by the news of
its failure, late. What the store can't take now stays in front, and is tried again when somebody asks or looks. Only an
operator's order is refused at once: somebody waits for the answer. What is told is the ledger's.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from service.errors import PostroomError
from service.telemetry import Log, get_logger

log = get_logger()

Work = Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class _Telling:
    work: Work
    answer: "asyncio.Future[None] | None"  # of somebody who waits
    kept: bool = False  # the store was away when it was tried, which was logged


class Tellings:
    """See the module."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[_Telling]] = {}
        self._tasks: dict[str, asyncio.Task[PostroomError | None]] = {}
        self._asking: Counter[str] = Counter()  # by account
        self.changes: Counter[str] = Counter()  # by account: what was told or asked, since the start

    def on_its_way(self, account: str) -> bool:
        """Whether the store may not know yet what was told here."""
        return bool(self._queues.get(account)) or self._asking[account] > 0

    @contextlib.contextmanager
    def asking(self, account: str) -> Iterator[None]:
        """What is asked within may change what the store says."""
        self.changes[account] += 1
        self._asking[account] += 1
        try:
            yield
        finally:
            self._asking[account] -= 1

    def tell(self, account: str, work: Work) -> None:
        """Tell it after all that was told of this account before, whenever the store can take it."""
        self._add(account, _Telling(work, None))

    def order(self, account: str, work: Work) -> "asyncio.Future[None]":
        """The same for somebody who waits: he is told of a failure, and then it is not tried again."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(account, _Telling(work, answer))
        return answer

    async def told(self, account: str) -> None:
        """Wait until the store has taken all of this account. Raises StorageUnavailable."""
        if self._queues.get(account):
            error = await asyncio.shield(self._begin(account))
            if error is not None:
                raise error

    async def all_told(self) -> None:
        """The same for every account."""
        for account in [account for account, queue in self._queues.items() if queue]:
            await self.told(account)

    def _add(self, account: str, telling: _Telling) -> None:
        self._queues.setdefault(account, deque()).append(telling)
        self.changes[account] += 1
        self._begin(account)

    def _begin(self, account: str) -> "asyncio.Task[PostroomError | None]":
        task = self._tasks.get(account)
        if task is None or task.done():
            task = self._tasks[account] = asyncio.ensure_future(self._tell_all(account))
        return task

    async def _tell_all(self, account: str) -> PostroomError | None:
        """Why the store takes none of it now; None: it has taken all."""
        queue = self._queues[account]
        while queue:
            try:
                await queue[0].work()
            except PostroomError as error:
                _put_off(queue, error)
                return error
            except Exception as error:  # our own fault must not stand before all that follows
                _fail(queue.popleft(), error)
            else:
                _succeed(queue.popleft())
        return None


def _put_off(queue: deque[_Telling], error: PostroomError) -> None:
    """Whoever waits for an answer gets it; the rest stays, in order."""
    kept = [each for each in queue if each.answer is None]
    for each in queue:
        if each.answer is not None:
            _fail(each, error)
    queue.clear()
    queue.extend(kept)
    if queue and not queue[0].kept:
        log.warning(Log.STORE_FAILED, during="ledger", detail=error.detail)
        queue[0].kept = True


def _fail(telling: _Telling, error: Exception) -> None:
    if telling.answer is None:
        log.critical(Log.LOOP_FAILED, during="ledger", exc_info=error)
    elif not telling.answer.done():
        telling.answer.set_exception(error)


def _succeed(telling: _Telling) -> None:
    if telling.answer is not None and not telling.answer.done():
        telling.answer.set_result(None)
