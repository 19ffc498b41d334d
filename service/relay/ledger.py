"""The ledger of one process that has nobody to tell: implements port.Ledger in memory.

For commands that look at a relay, and for pools that are made by hand. Processes that share a store use spool/ledger,
which is this one with the store behind it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from service.mail.trouble import Answer, RelayEvent, Standing, Trouble

News = Callable[[], None]


class ProcessLedger:
    """See port.Ledger."""

    holder = "here"

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._listeners: dict[str, list[News]] = {}
        self._logging_in: Counter[str] = Counter()  # without a right, by account

    def standing(self, account: str) -> Standing:
        """See port."""
        return self._standings.setdefault(account, Standing())

    def on_news(self, account: str, callback: News) -> None:
        """See port."""
        self._listeners.setdefault(account, []).append(callback)

    def no_news(self, account: str, callback: News) -> None:
        """See port."""
        if callback in (listeners := self._listeners.get(account, [])):
            listeners.remove(callback)

    def _tell(self, account: str) -> None:
        for callback in list(self._listeners.get(account, ())):
            callback()

    async def ask_login(
        self, account: str, mark: str, prober: str, now: int, lease: float, force: float | None = None
    ) -> Answer:
        """See port. A prober of this process tells when it is done, so none is ever dead."""
        standing = self.standing(account)
        answer = standing.answer(mark, prober, now, lambda _: False, force)
        if answer is Answer.GRANTED:
            standing.grant(mark, prober, now + int(lease * 1000))
        return answer

    def begin_login(self, account: str, at_once: int) -> bool:
        """See port."""
        if self._logging_in[account] >= at_once:
            return False
        self._logging_in[account] += 1
        return True

    def end_login(self, account: str) -> None:
        """See port."""
        self._logging_in[account] -= 1
        self._tell(account)

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> None:
        """See port."""
        self.standing(event.account).prove(mark, prober, event.at)
        self._tell(event.account)

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> None:
        """See port."""
        standing = self.standing(event.account)
        standing.record(trouble)
        standing.release(prober)
        self._tell(event.account)

    def release_login(self, account: str, prober: str) -> None:
        """See port."""
        self.standing(account).release(prober)
        self._tell(account)

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> None:
        """See port."""
        self.standing(account).record(trouble)
        self._tell(account)

    def forgive_trouble(self, account: str, trouble: Trouble) -> None:
        """See port."""
        self.standing(account).forgive(trouble)
        self._tell(account)

    def hold(self, trouble: Trouble, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        self.record_trouble(event.account, trouble, event)
        return _done()

    def clear(self, event: RelayEvent) -> Awaitable[None]:
        """See port."""
        self.standing(event.account).clear()
        self._tell(event.account)
        return _done()

    def alert(self, event: RelayEvent, kind: str) -> None:
        """See port."""


def _done() -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
