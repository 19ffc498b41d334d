"""An idle service costs nothing, and an urgent mail does not wait for a poll: both at once."""

import time
from pathlib import Path
from statistics import median

import httpx
import psutil

from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess


def test_idle_cpu_is_at_most_one_percent_and_a_post_reaches_the_relay_within_ten_milliseconds(tmp_path: Path) -> None:
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        for _ in range(20):  # warm: sessions open, code paths seen
            assert client.post("/send", json=ARTICLE, headers={"Prefer": "wait=5"}).status_code == 200
        process = psutil.Process(service.process.pid)
        before, began = process.cpu_times(), time.monotonic()
        time.sleep(5)  # idle is what is measured
        after, seconds = process.cpu_times(), time.monotonic() - began
        busy = after.user + after.system - before.user - before.system
        waits = []
        for _ in range(20):
            message = client.post("/send", json=ARTICLE, headers={"Prefer": "wait=5"}).json()
            events = client.get(f"/messages/{message['id']}/events").json()["data"]
            # from the request's arrival to the end of the SMTP transaction: more than POST to MAIL FROM
            waits.append(_milliseconds(events[1]["at"]) - _milliseconds(events[0]["at"]))
    assert busy / seconds <= 0.01, f"{busy / seconds:.2%} of a core while idle"
    assert median(waits) <= 10, waits


def _milliseconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp() * 1000
