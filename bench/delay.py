"""A TCP proxy that delays every byte by the same time, each way: `python -m bench.delay TARGET_PORT MILLISECONDS`.

Prints its own port. The bytes are not slowed down, only late: what was written together arrives together.
"""

import asyncio
import sys
from typing import Any

import uvloop


class _Side(asyncio.Protocol):
    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: _Side | None = None
        self.transport: Any = None
        self.early: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        for data in self.early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay, self._pass, data)

    def _pass(self, data: bytes) -> None:
        assert self.other is not None
        if self.other.transport is None:
            self.other.early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self.delay, self._close_other)

    def _close_other(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def _main(target: int, delay: float) -> None:
    loop = asyncio.get_running_loop()

    def accepted() -> _Side:
        near, far = _Side(delay), _Side(delay)
        near.other, far.other = far, near
        task = asyncio.ensure_future(loop.create_connection(lambda: far, "127.0.0.1", target))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return near

    tasks: set[asyncio.Future[object]] = set()
    server = await loop.create_server(accepted, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), float(sys.argv[2]) / 1000))
