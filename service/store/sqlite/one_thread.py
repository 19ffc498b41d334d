"""One thread beside the loop, for calls that wait for the disk. They run in the order in which they are asked for.

An executor of the standard library does this too, with locks and a second future for each call, which take 13 microseconds.
This thread knows nothing of what it runs.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_Call = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class OneThread:
    """It begins with the first call."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def run(self, work: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Call `work` there; what it returns or raises is the future's. Who gives up waiting does not stop it."""
        if self._thread.ident is None:
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._calls.put((work, arguments, future, loop))
        return future

    def end(self) -> None:
        """Wait for what was asked for; nothing may be asked for after this."""
        self._calls.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            work, arguments, future, loop = call
            result, raised = None, None
            try:
                result = work(*arguments)
            except BaseException as error:
                raised = error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_answer, future, result, raised)
            del call, work, arguments, future, result, raised  # nothing of it is kept until the next call


def _answer(future: "asyncio.Future[Any]", result: Any, raised: BaseException | None) -> None:
    if future.done():  # its caller gave up
        return
    if raised is not None:
        future.set_exception(raised)
    else:
        future.set_result(result)
