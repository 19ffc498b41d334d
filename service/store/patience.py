"""A database that is not there yet when a process starts: it is tried again, less and less often, for a bounded time.

Which faults pass by themselves is the dialect's to say: StorageUnavailable may pass, a ConfigurationError never does.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from service.errors import StorageUnavailable
from service.telemetry import Log, get_logger

T = TypeVar("T")
log = get_logger()

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0  # seconds


async def when_there(reach: Callable[[], T], within: float) -> T:
    """What `reach` returns, which runs in a thread; no try begins later than `within` seconds after the first.

    Who is stopped meanwhile leaves a `reach` behind that may wait on for a minute; it holds up no exit.

    Raises StorageUnavailable, that of the last try; whatever else `reach` raises, at once.
    """
    loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
    until = loop.time() + within
    while True:
        try:
            return await in_a_thread_of_its_own(reach)
        except StorageUnavailable as error:
            left = until - loop.time()
            if left <= 0:
                raise
            pause_now = min(pause, left)
            log.warning(
                Log.STORE_AWAITED, detail=error.detail, next_try_in=round(pause_now, 1), gives_up_in=round(left, 1)
            )
        await asyncio.sleep(pause_now)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def in_a_thread_of_its_own(work: Callable[[], T]) -> T:
    """What `work` returns. Its thread is not one of the loop's: those are waited for when the process ends, which a `work`
    that waits for others would hold up. It must be safe to be cut off.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(answer: Callable[[Any], None], what: T | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(lambda: None if done.done() else answer(what))

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            tell(done.set_exception, error)
        else:
            tell(done.set_result, result)

    threading.Thread(target=run, name="postroom-reach", daemon=True).start()
    return await done
