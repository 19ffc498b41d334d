"""PostgreSQL crashes and comes back while the service works: no false 202, and mail flows again by itself."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scenario.test_crash import Load, wait_for
from tests.support.postgres import PostgresServer, shared_server
from tests.support.process import ServiceProcess, every_message
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own, that a test may kill."""
    shared_server()  # skips where there can be none
    with PostgresServer() as made:
        yield made


def told(service: ServiceProcess) -> list[str]:
    """The events of its log."""
    return [line.get("event", "") for line in service.lines]


def ready(service: ServiceProcess) -> bool:
    return httpx.get(f"{service.url}/readyz", timeout=10).status_code == 200


@pytest.mark.timeout(180)
def test_a_crash_of_the_server_under_load_makes_no_false_202_and_needs_no_restart(
    server: PostgresServer, tmp_path: Path
) -> None:
    given = {"database_url": server.new_database(), "in_doubt_delay": 1, "lease": 3}
    accepted: list[str] = []
    with (
        SinkProcess(tmp_path, delay_ms=3) as sink,
        ServiceProcess(tmp_path, sink.url, **given) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        for _ in range(2):
            loads = [Load(service.url) for _ in range(4)]
            for load in loads:
                load.start()
            assert wait_for(lambda loads=loads: sum(len(load.accepted) for load in loads) > 60, 30)
            server.kill()
            assert wait_for(lambda: not ready(service), 5)
            refused = client.post("/send", json=ARTICLE)
            assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
            assert "Retry-After" in refused.headers
            server.start()
            began = time.monotonic()
            assert wait_for(lambda: ready(service), 10), "without a restart"
            assert wait_for(
                lambda: client.post("/send", json=ARTICLE).status_code == 202, 10 - (time.monotonic() - began)
            )
            for load in loads:
                load.stop()
                accepted += load.accepted
        assert wait_for(lambda: set(accepted) <= set(sink.copies()), 60), "whatever had a 202 is sent"
        assert wait_for(lambda: not client.get("/messages", params={"status": "sending"}).json()["data"], 30)
        doubts = sum(each["attempts_in_doubt"] for message in every_message(client) for each in message["recipients"])
    extra = sum(count - 1 for count in sink.copies().values())
    assert extra <= doubts, "a second copy only where an attempt was in doubt"


def test_the_server_that_is_silent_is_noticed_within_a_second_or_two_and_so_is_its_return(
    server: PostgresServer, tmp_path: Path
) -> None:
    """Stopped, not ended: connections stay open and nobody answers."""
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url, database_url=server.new_database()) as service,
        server.silent() as awake,
    ):
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.get(f"{service.url}/readyz", timeout=30).status_code)
        )
        assert wait_for(lambda: any(line.get("event") == "store.failed" for line in service.lines), 5)
        asking.start()
        asking.join(5)
        assert answers == [503], "it answers at once, though the database does not"
        assert wait_for(lambda: "loop.failed" in told(service), 20)
        awake()
        assert wait_for(lambda: ready(service), 10)
        assert httpx.post(f"{service.url}/send", json=ARTICLE).status_code == 202
        assert wait_for(lambda: "loop.recovered" in told(service), 60)
        assert [each for each in told(service) if each.startswith("loop.")] == ["loop.failed", "loop.recovered"]
