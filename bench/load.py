"""A load generator that costs little: prebuilt requests over keep-alive connections, one process, uvloop.

`python -m bench.load HOST PORTS PATH CLIENTS COUNT TOKEN KIND` prints one JSON line: rate, percentiles, statuses. PORTS has
commas between, CLIENTS are spread over them.
KIND: `template` posts a templated mail with its own recipient and Idempotency-Key each, `low` the same in
priority low (the template's own is high); `empty` posts a small JSON body.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvloop

VARIABLES = {"product": "Lantern", "name": "Ada", "code": "481 920", "minutes": 10, "support": "help@lantern.example"}
TEMPLATED = ("template", "low")


def request(path: str, host: str, token: str, kind: str, number: int, run: str) -> bytes:
    """One HTTP/1.1 request."""
    body: dict[str, Any] = {"n": number}
    if kind in TEMPLATED:
        body = {
            "from": "Lantern <hello@lantern.example>",
            "to": f"user{number}@example.org",
            "template": {"name": "verify-email", "variables": VARIABLES},
        }
    if kind == "low":
        body["priority"] = "low"
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    if kind in TEMPLATED:
        head += f"Idempotency-Key: {run}-{number}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return head.encode() + b"\r\n" + text


class Client(asyncio.Protocol):
    """One connection: the next request goes out when the answer is whole."""

    def __init__(self, requests: Any, done: Any, latencies: list[float], statuses: dict[str, int]) -> None:
        self._requests, self._done, self._latencies, self._statuses = requests, done, latencies, statuses
        self._buffer = b""
        self._began = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        following = next(self._requests, None)
        if following is None:
            self._transport.close()
            self._done()
            return
        self._began = time.perf_counter()
        self._transport.write(following)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n")[0])
        if len(self._buffer) < end + 4 + length:
            return
        status = self._buffer[9:12].decode()
        self._buffer = b""
        self._answered(status)

    def _answered(self, status: str) -> None:
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._latencies.append(time.perf_counter() - self._began)
        self._next()


async def main(
    host: str, ports: Sequence[int], path: str, clients: int, count: int, token: str, kind: str
) -> dict[str, Any]:
    """Run the load: each port has the same number of clients, and whoever is free sends the next request."""
    run = str(time.time_ns())
    requests = iter([request(path, host, token, kind, number, run) for number in range(count)])
    latencies: list[float] = []
    statuses: dict[str, int] = {}
    left = clients
    finished = asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            finished.set()

    loop = asyncio.get_running_loop()
    began = time.monotonic()
    for number in range(clients):
        port = ports[number % len(ports)]
        await loop.create_connection(lambda: Client(requests, done, latencies, statuses), host, port)
    await finished.wait()
    seconds = time.monotonic() - began
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "rate": len(latencies) / seconds,
        "p50": cuts[49] * 1000,
        "p99": cuts[98] * 1000,
        "statuses": statuses,
        "seconds": seconds,
        "began": began,  # by a clock that the processes of a machine share
    }


if __name__ == "__main__":
    host, ports, path, clients, count, token, kind = sys.argv[1:8]
    listed = [int(each) for each in ports.split(",")]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(main(host, listed, path, int(clients), int(count), token, kind))))
