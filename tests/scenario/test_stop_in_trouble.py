"""SIGTERM while the database does not answer: the process ends by its grace, and says nothing that nobody understands."""

import contextlib
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.scenario.test_crash import wait_for
from tests.support.postgres import PostgresServer, shared_server
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess

GRACE = 3  # seconds
PATIENCE = 30  # seconds that a statement may take: who waits for its answer is far beyond the grace
LAST = 5.0  # seconds after it: a second for each of two last tries, the exit of a process, and a busy machine


def ask(url: str) -> None:
    """Whatever it is answered."""
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{url}/send", json=ARTICLE, timeout=30)


@pytest.mark.timeout(120)
def test_a_process_ends_by_its_grace_though_the_database_does_not_answer(tmp_path: Path) -> None:
    shared_server()  # skips where there can be none
    with (
        PostgresServer() as server,
        SinkProcess(tmp_path) as sink,
        ServiceProcess(
            tmp_path, sink.url, database_url=server.new_database(), database_timeout=PATIENCE, drain_grace=GRACE
        ) as service,
        server.silent(),
    ):
        asking = [threading.Thread(target=ask, args=(service.url,)) for _ in range(4)]
        for each in asking:
            each.start()
        assert wait_for(lambda: any(line.get("event") == "store.failed" for line in service.lines), 5)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(60)
        took = time.monotonic() - began
        for each in asking:
            each.join(10)
    assert took < GRACE + LAST
    assert service.process.returncode == 0
    assert [line for line in service.lines if "never retrieved" in str(line)] == []
    assert service.lines[-1].get("event") == "service.stopped", service.lines[-5:]
