"""The service behind PgBouncer in transaction mode: mail flows, hints find their own way or are done without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenario.test_crash import wait_for
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.postgres import shared_server
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed (apt-get install pgbouncer): poolers are NOT tested here"
)


@pytest.fixture
def database_url() -> Iterator[str]:
    """An empty database of the session's server, not by way of the pooler."""
    url = shared_server().new_database()
    yield url
    shared_server().give_back(url)


def hints_off(service: ServiceProcess) -> bool:
    return any(line.get("event") == "store.hints_off" for line in service.lines)


@pytest.mark.parametrize("direct", [False, True])
def test_an_api_and_a_sender_share_a_database_behind_a_pooler(database_url: str, tmp_path: Path, direct: bool) -> None:
    with PgBouncer(shared_server()) as pooler, SinkProcess(tmp_path) as sink:
        given: dict[str, Any] = {"database_url": pooler.through(database_url)}
        if direct:
            given |= {"database_listen_url": database_url, "poll_interval": 60}
        with (
            ServiceProcess(tmp_path, sink.url, role="sender", **given) as sender,
            ServiceProcess(tmp_path, sink.url, role="api", **given) as api,
            httpx.Client(base_url=api.url, timeout=30) as client,
        ):
            for number in range(40):
                body = {**ARTICLE, "to": f"u{number}@example.org"}
                assert client.post("/send", json=body, headers={"Idempotency-Key": f"k{number}"}).status_code == 202
            assert wait_for(lambda: len(sink.copies()) == 40, 30), "a poll may come only after a minute"
            assert direct or wait_for(lambda: hints_off(sender) and hints_off(api), 10)
    assert set(sink.copies().values()) == {1}
