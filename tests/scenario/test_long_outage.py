"""Storage is away for longer than a lease while a relay answers: what a living process learnt of its mail is not lost.

Nobody is killed but the storage. So every 250 that came meanwhile is written down when the storage is back, nothing is in
doubt, and nothing goes twice.
"""

import errno
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenario.test_crash import wait_for
from tests.support.disk_trouble import DiskTrouble
from tests.support.postgres import PostgresServer, shared_server
from tests.support.process import ServiceProcess, every_message
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess

LEASE, AWAY = 2.0, 6.0  # seconds
GIVEN: dict[str, Any] = {
    "lease": LEASE,
    "in_doubt_delay": 1,
    "poll_interval": 4,
}  # results are tried again later than a rescuer looks
MESSAGES = 60


def judge(folder: Path, away: AbstractContextManager[None], *wrapper: str, **given: Any) -> None:
    """Mail is under way when the storage goes."""
    with (
        SinkProcess(folder, delay_ms=400) as sink,
        ServiceProcess(folder, sink.url, *wrapper, **GIVEN, **given) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        messages = [{"to": f"u{number}@example.org"} for number in range(MESSAGES)]
        assert client.post("/send/batch", json={"base": ARTICLE, "messages": messages}).status_code == 202
        assert wait_for(lambda: sum(sink.copies().values()) >= 8, 30)
        with away:
            time.sleep(AWAY)
        assert wait_for(lambda: len(sink.copies()) == MESSAGES, 60)
        assert wait_for(lambda: {each["status"] for each in every_message(client)} == {"sent"}, 30)
        doubts = sum(each["attempts_in_doubt"] for message in every_message(client) for each in message["recipients"])
        lost = [line for line in service.lines if line.get("event") == "delivery.lease_lost"]
    assert doubts == 0
    assert lost == []
    assert set(sink.copies().values()) == {1}


@contextmanager
def between(begin: Callable[[], object], end: Callable[[], object]) -> Any:
    begin()
    try:
        yield
    finally:
        end()


@pytest.mark.timeout(180)
def test_a_database_that_is_away_for_longer_than_a_lease_puts_nothing_in_doubt(tmp_path: Path) -> None:
    shared_server()  # skips where there can be none
    with PostgresServer() as server:
        judge(tmp_path, between(server.kill, server.start), database_url=server.new_database())


@pytest.mark.timeout(180)
def test_a_disk_that_refuses_for_longer_than_a_lease_puts_nothing_in_doubt(tmp_path: Path) -> None:
    disk = DiskTrouble(tmp_path)
    judge(
        tmp_path,
        between(lambda: disk.refuse("fsync", errno.EIO), disk.mend),
        *disk.wrapper,
        database_url=f"sqlite:///{tmp_path}/post.db",
    )
