"""Wait for something that nobody announces."""

import asyncio
import itertools
import time
from collections.abc import Callable

import httpx


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Ask again and again. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        for _ in itertools.takewhile(lambda _: not holds(), itertools.count()):
            await asyncio.sleep(0.01)


async def until_sent(client: httpx.AsyncClient, id: str) -> None:
    """Until a message is sent, twenty seconds at most. Raises TimeoutError."""
    async with asyncio.timeout(20):
        for _ in itertools.count():
            if (await client.get(f"/messages/{id}")).json()["status"] == "sent":
                return
            await asyncio.sleep(0.01)


def wait_for(holds: Callable[[], bool], seconds: float) -> bool:
    """The same for threads and processes: whether it holds in the end."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
