"""Several service processes on one PostgreSQL: roles apart, two senders, and one of them killed."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scenario.test_crash import CONNECTIONS, Load, wait_for
from tests.support.postgres import shared_server
from tests.support.process import ServiceProcess, every_message
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess


@pytest.fixture
def database_url() -> Iterator[str]:
    """An empty database of the session's server."""
    url = shared_server().new_database()
    yield url
    shared_server().give_back(url)


def test_roles_apart_hand_mail_over_without_waiting_for_a_poll(database_url: str, tmp_path: Path) -> None:
    given = {"database_url": database_url, "poll_interval": 30}
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url, role="sender", **given),
        ServiceProcess(tmp_path, sink.url, role="api", **given) as api,
        httpx.Client(base_url=api.url, timeout=30) as client,
    ):
        client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})  # by then both hear each other
        began = time.monotonic()
        answer = client.post("/send", json=ARTICLE, headers={"Prefer": "wait=20"})
        assert (answer.status_code, answer.json()["status"]) == (200, "sent")
        assert time.monotonic() - began < 20, "a poll would come after 30 seconds"


def test_two_senders_share_the_queue_and_send_each_message_once(database_url: str, tmp_path: Path) -> None:
    given = {"database_url": database_url}
    count = 200
    with (
        SinkProcess(tmp_path, delay_ms=2) as sink,
        ServiceProcess(tmp_path, sink.url, role="sender", **given) as one,
        ServiceProcess(tmp_path, sink.url, role="sender", **given) as two,
        ServiceProcess(tmp_path, sink.url, role="api", **given) as api,
        httpx.Client(base_url=api.url, timeout=30) as client,
    ):
        body = {"base": ARTICLE, "messages": [{"to": f"u{n}@example.org"} for n in range(count)]}
        for _ in range(2):
            assert client.post("/send/batch", json=body).status_code == 202
        assert wait_for(lambda: len(sink.copies()) == 2 * count, 60)
        assert wait_for(lambda: client.get("/messages", params={"status": "sent", "limit": 1}).json()["data"], 10)
        shares = [float(sent_by(each)) for each in (one, two)]
    assert set(sink.copies().values()) == {1}
    assert min(shares) > 0, "both had a share"
    assert sum(shares) == 2 * count


def sent_by(service: ServiceProcess) -> str:
    """How many recipients this process has sent to, by its own count."""
    lines = httpx.get(f"{service.url}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("postroom_recipient_outcomes_total") and 'event="sent"' in line]
    return found[0].rpartition(" ")[2] if found else "0"


@pytest.mark.timeout(180)
def test_a_sender_that_is_killed_loses_nothing_and_its_mail_is_sent_by_the_other(
    database_url: str, tmp_path: Path
) -> None:
    given = {"database_url": database_url, "in_doubt_delay": 1, "lease": 3}
    with SinkProcess(tmp_path, delay_ms=3) as sink:
        killed = ServiceProcess(tmp_path, sink.url, role="sender", **given)
        with (
            ServiceProcess(tmp_path, sink.url, role="sender", **given),
            ServiceProcess(tmp_path, sink.url, role="api", **given) as api,
            httpx.Client(base_url=api.url, timeout=30) as client,
        ):
            loads = [Load(api.url) for _ in range(3)]
            for load in loads:
                load.start()
            assert wait_for(lambda: len(sink.copies()) > 50, 30)
            killed.kill()
            before = len(sink.copies())
            assert wait_for(lambda: len(sink.copies()) > before + 50, 30), "the other one goes on"
            for load in loads:
                load.stop()
            accepted = [each for load in loads for each in load.accepted]
            assert wait_for(lambda: set(accepted) <= set(sink.copies()), 60), "nothing accepted is lost"
            doubts = sum(
                each["attempts_in_doubt"] for message in every_message(client) for each in message["recipients"]
            )
    extra = sum(count - 1 for count in sink.copies().values())
    assert doubts <= CONNECTIONS, "in doubt are at most the open connections of the one that was killed"
    assert extra <= doubts, "a second copy only where an attempt was in doubt"
