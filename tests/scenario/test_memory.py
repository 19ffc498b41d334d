"""Hostile bodies against a real process: each is refused, and memory stays flat."""

import gzip
import json
from pathlib import Path

import httpx
import psutil

from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess

MIB = 1024 * 1024
HOSTILE = [
    (b'{"text":"' + b"x" * 40 * MIB + b'"}', {}, 413),
    (gzip.compress(b" " * 40 * MIB), {"Content-Encoding": "gzip"}, 415),
    (b"[" * 100_000, {}, 400),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {}, 400),
    (b'{"ttl":NaN}', {}, 400),
    (b'{"subject":"\\ud800"}', {}, 400),
    (json.dumps({**ARTICLE, "to": ["a@b.example"] * 100_000}).encode(), {}, 422),
    (json.dumps({**ARTICLE, "headers": {f"X-{n}": "x" for n in range(20_000)}}).encode(), {}, 422),
]


def test_hostile_bodies_are_refused_and_memory_stays_flat(tmp_path: Path) -> None:
    with SinkProcess(tmp_path) as sink, ServiceProcess(tmp_path, sink.url) as service:
        process = psutil.Process(service.process.pid)
        with httpx.Client(base_url=service.url, timeout=30) as client:
            seen: list[float] = []
            for _ in range(6):
                for body, headers, status in HOSTILE:
                    try:
                        answer = client.post(
                            "/send", content=body, headers={"Content-Type": "application/json", **headers}
                        )
                    except httpx.WriteError:  # refused while it was still being sent
                        continue
                    assert answer.status_code == status, (status, answer.text[:300])
                seen.append(process.memory_info().rss / MIB)
            assert client.post("/send", json=ARTICLE, headers={"Prefer": "wait=5"}).status_code == 200
    assert max(seen[2:]) <= seen[1] + 24, f"memory grew: {seen}"
    assert max(seen) < 400, seen
