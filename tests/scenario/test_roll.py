"""A rolling restart loses nothing, doubles nothing, and refuses no client that heeds /readyz. tests/soak/roll has the long form."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scenario.test_crash import wait_for
from tests.soak.roll import roll
from tests.support.postgres import shared_server
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/post.db"
        return
    url = shared_server().new_database()
    yield url
    shared_server().give_back(url)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("roles", [("all", "all"), ("api", "sender")], ids="+".join)
def test_stops_in_turn_under_load_lose_double_and_refuse_nothing(
    roles: tuple[str, str], database_url: str, tmp_path: Path
) -> None:
    summary = roll(tmp_path, database_url, roles, times=2, seed=20261125)
    assert summary.good, str(summary)
    assert len(summary.accepted) > 50


def test_who_waits_for_a_result_when_the_process_stops_is_told_that_it_was_accepted(tmp_path: Path) -> None:
    """Cut off without an answer, a client that has no Idempotency-Key would send it a second time."""
    answers: list[httpx.Response] = []
    with ServiceProcess(tmp_path, "smtp://127.0.0.1:9?plaintext=allow", hold="true", drain_grace=5) as service:

        def ask() -> None:
            answers.append(httpx.post(f"{service.url}/send", json=ARTICLE, headers={"Prefer": "wait=30"}, timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        assert wait_for(lambda: httpx.get(f"{service.url}/messages").json()["data"] != [], 10)
        service.process.send_signal(signal.SIGTERM)
        asking.join(30)
        service.process.wait(30)
    (answer,) = answers
    assert answer.status_code == 202
    assert answer.json()["id"].startswith("msg_")
    assert [line for line in service.lines if line.get("event") == "service.cut_off"] == []
