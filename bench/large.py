"""Large messages beside small requests: what an attachment of many MiB costs, and how long it holds up everybody else.

Large messages are handed in one after the other; meanwhile another client asks for `/healthz` every few milliseconds and
waits for each answer, so that whatever keeps the event loop busy shows itself. All of it goes on to the relay. The
processor time is the service's, for all that it is asked for.
"""

import contextlib
import json
import os
import statistics
import threading
import time
from base64 import b64encode
from collections.abc import Iterator

import httpx
import psutil

from bench.__main__ import TOKEN, _sent, _until, postroom

MEBIBYTE = 1024 * 1024
_PAUSE = 0.002  # seconds between two looks
_PATIENCE = 60.0  # seconds for an answer


@contextlib.contextmanager
def beside(url: str) -> Iterator[list[float]]:
    """Milliseconds of each look at `/healthz`, which go on until the end of the block. Raises what a look raised."""
    took: list[float] = []
    faults: list[Exception] = []
    stop = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=url, timeout=_PATIENCE) as client:
            while not stop.is_set() and not faults:
                began = time.perf_counter()
                try:
                    client.get("/healthz").raise_for_status()
                except Exception as error:
                    faults.append(error)
                took.append((time.perf_counter() - began) * 1000)
                time.sleep(_PAUSE)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()
    if faults:
        raise faults[0]


def measure(relay_url: str, mebibytes: int, count: int) -> str:
    """A row of the table."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with (
        postroom(relay_url) as service,
        httpx.Client(base_url=service.url, headers=headers, timeout=_PATIENCE) as client,
    ):
        _post(client, mebibytes, 0)
        _until(lambda: _sent(service.port) >= 1)
        process = psutil.Process(service.process.pid)
        before = sum(process.cpu_times()[:2])
        with beside(service.url) as looks:
            took = [_post(client, mebibytes, number) for number in range(1, count + 1)]
            _until(lambda: _sent(service.port) >= count + 1)
        processor = (sum(process.cpu_times()[:2]) - before) / count * 1000
    p50, p99 = statistics.quantiles(looks, n=100, method="inclusive")[49::49]
    waits = f"{p50:9.1f}{p99:9.1f}{max(looks):9.1f}{len(looks):9}"
    return f"  {mebibytes:3} MiB{statistics.median(took):14.0f}{processor:14.0f}{waits}"


def _post(client: httpx.Client, mebibytes: int, number: int) -> float:
    """Milliseconds until it is accepted."""
    content = b64encode(os.urandom(mebibytes * MEBIBYTE)).decode()
    message = {"from": "hello@lantern.example", "to": f"user{number}@example.org", "subject": "Files", "text": "Here."}
    body = json.dumps({**message, "attachments": [{"filename": "a.bin", "content": content}]}).encode()
    began = time.perf_counter()
    client.post("/send", content=body).raise_for_status()
    return (time.perf_counter() - began) * 1000


def run(relay_url: str, what: str, *, quick: bool) -> None:
    """The table."""
    count = 10 if quick else 100
    print(f"\nLarge attachments, one after the other, into {what}, {count} each; milliseconds")
    print("              POST, median     processor   GET /healthz beside it: p50, p99, most, how many")
    for mebibytes in (1, 10) if quick else (1, 10, 18):
        print(measure(relay_url, mebibytes, count), flush=True)
