"""Wait for something that nobody announces."""

import asyncio
import itertools
from collections.abc import Callable


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Ask again and again. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        for _ in itertools.takewhile(lambda _: not holds(), itertools.count()):
            await asyncio.sleep(0.01)
