"""An event loop on a clock that jumps: when nothing is left to do until the next timer, it is that time already.

Threads (commits of the store) are waited for in real time, during which the clock stands still. So minutes of a
dispatcher's life take as long as the work in them, and it wakes exactly when it asked to be woken.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

from service.store.sqlite import store as sqlite_store
from service.store.sqlite.one_thread import OneThread
from tests.support.clock import EPOCH, SteppedClock

T = TypeVar("T")
_STUCK = 10.0  # real seconds without a timer, a thread or a socket


class VirtualClock(SteppedClock):
    """Wall clock and monotonic clock are one, so that no rounding lets them drift apart."""

    def __init__(self) -> None:
        super().__init__()
        self._began = self._mono

    def step(self, seconds: float) -> None:
        self._mono += seconds
        self._now = EPOCH + int((self._mono - self._began) * 1000 + 1e-3)


class _Selector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Never waits for time: it moves the clock."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if self.loop.threads or timeout is None:
            events = super().select(_STUCK)
            if not events:
                raise RuntimeError("nothing will ever happen again")
            return events
        events = super().select(0)
        if not events:
            self.loop.clock.step(timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.threads = clock, 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.clock.monotonic()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        return self.counted(super().run_in_executor(executor, func, *args))

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Its threads end in real time: a timer would be due before they have."""
        await super().shutdown_default_executor()

    def counted(self, future: Any) -> Any:
        """A thread works on it."""
        self.threads += 1
        future.add_done_callback(self._returned)
        return future

    def _returned(self, _: Any) -> None:
        self.threads -= 1


def _run(thread: OneThread, work: Callable[..., Any], *arguments: Any) -> Any:
    """The commits' thread, which loops are not asked for."""
    future, loop = _RUN(thread, work, *arguments), asyncio.get_running_loop()
    return loop.counted(future) if isinstance(loop, VirtualLoop) else future


async def _apart(work: Callable[[], Any]) -> Any:
    """A thread of its own, of which loops do not know."""
    return await asyncio.to_thread(work)


_RUN = OneThread.run


def virtually(main: Callable[[VirtualClock], Coroutine[Any, Any, T]], clock: VirtualClock | None = None) -> T:
    """Run `main` on such a loop."""
    clock = clock or VirtualClock()
    with (
        patch.object(OneThread, "run", _run),
        patch.object(sqlite_store, "in_a_thread_of_its_own", _apart),
        asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner,
    ):
        return runner.run(main(clock))
