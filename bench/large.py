"""Large messages beside small requests: what an attachment of many MiB costs, and how long it holds up everybody else.

Large messages are handed in one after the other; meanwhile another client asks for `/healthz` every few milliseconds and
waits for each answer, so that whatever keeps the event loop busy shows itself. All of it goes on to the relay.
"""

import json
import os
import statistics
import sys
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field

import httpx
import psutil

from bench.__main__ import TOKEN, postroom

MEBIBYTE = 1024 * 1024
_PAUSE = 0.002  # seconds between two looks
_PATIENCE = 60.0  # seconds until everything is sent


@dataclass(slots=True)
class Beside:
    """A client that looks at `/healthz` all the time; `took`: seconds of each answer."""

    url: str
    took: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Until `stop`."""
        with httpx.Client(base_url=self.url) as client:
            while not self._stop.is_set():
                began = time.perf_counter()
                client.get("/healthz").raise_for_status()
                self.took.append(time.perf_counter() - began)
                time.sleep(_PAUSE)

    def stop(self) -> None:
        """No more looks."""
        self._stop.set()

    def part(self, share: float) -> float:
        """Milliseconds within which so many of all answers came."""
        return sorted(self.took)[min(int(len(self.took) * share), len(self.took) - 1)] * 1000


def measure(relay_url: str, mebibytes: int, count: int) -> str:
    """A row of the table."""
    with postroom(relay_url) as service:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        process = psutil.Process(service.process.pid)
        took: list[float] = []
        beside = Beside(service.url)
        thread = threading.Thread(target=beside.look)
        with httpx.Client(base_url=service.url, headers=headers, timeout=_PATIENCE) as client:
            requests = [_request(mebibytes, number) for number in range(count + 1)]
            client.post("/send", content=requests.pop()).raise_for_status()
            thread.start()
            before = sum(process.cpu_times()[:2])
            for content in requests:
                began = time.perf_counter()
                client.post("/send", content=content).raise_for_status()
                took.append(time.perf_counter() - began)
            _until_sent(client, count + 1)
        beside.stop()
        thread.join()
        processor = (sum(process.cpu_times()[:2]) - before) / count * 1000
        waits = "".join(f"{beside.part(share):9.1f}" for share in (0.5, 0.99, 0.999, 1))
        return f"  {mebibytes:3} MiB{statistics.median(took) * 1000:14.0f}{processor:14.0f}{waits}"


def _request(mebibytes: int, number: int) -> bytes:
    content = b64encode(os.urandom(mebibytes * MEBIBYTE)).decode()
    message = {"from": "hello@lantern.example", "to": f"user{number}@example.org", "subject": "Files", "text": "Here."}
    return json.dumps({**message, "attachments": [{"filename": "a.bin", "content": content}]}).encode()


def _until_sent(client: httpx.Client, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while len(client.get("/messages", params={"status": "sent", "limit": 200}).json()["data"]) < count:
        if time.monotonic() > deadline:
            raise TimeoutError("not everything was sent")
        time.sleep(0.1)


def run(relay_url: str, what: str, *, quick: bool) -> None:
    """The table."""
    count = 10 if quick else 40
    print(f"\nLarge attachments, one after the other, into {what}, {count} each; milliseconds")
    print("              POST, median  processor, each   GET /healthz beside it: p50, p99, p99.9, most")
    for mebibytes in (1, 10) if quick else (1, 10, 18):
        print(measure(relay_url, mebibytes, count))
        sys.stdout.flush()
