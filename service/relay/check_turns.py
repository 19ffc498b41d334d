"""Whose turn it is to check: one check of an account at a time, and how often a login may be forced.

Each check is a login that the provider counts, so whoever comes while one runs is sent away instead of standing in
line: a caller in a loop could fill that line for hours. It knows what this process did; what others did stands in the
ledger, and relay/check_login asks there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import CheckRunning


class CheckTurns:
    """Of one process. monotonic: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._running: dict[str, str] = {}  # the relay that is checked, by account
        self._forced: dict[str, float] = {}  # monotonic seconds of the last forced login, by account

    @contextmanager
    def turn(self, account: str, relay: str) -> Iterator[None]:
        """While it lasts nobody else checks a relay of this account. Raises CheckRunning."""
        if (other := self._running.get(account)) is not None:
            shared = "" if other == relay else f", which has the same account as {relay}"
            raise CheckRunning(f"A check of relay {other} is running{shared}: wait until it is done.")
        self._running[account] = relay
        try:
            yield
        finally:
            del self._running[account]

    def wait_to_force(self, account: str, interval: float) -> float:
        """Seconds until a login may be forced again; 0: now."""
        last = self._forced.get(account)
        return 0.0 if last is None else max(last + interval - self._monotonic(), 0.0)

    def forced(self, account: str) -> None:
        """A login is forced now."""
        self._forced[account] = self._monotonic()
