"""`postroom queue` on PostgreSQL says what is due by the server's clock, by which senders go, and not by its host's."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from service import cli, queue_commands
from service.clock import SYSTEM, Clock
from service.store.bounds import Bounds
from service.store.postgres import moments
from service.store.postgres import store as stores_module
from service.store.postgres.store import PostgresStore
from tests.support.postgres import shared_server
from tests.support.store_data import HOUR, accept_of, new_message

DAY = 24 * HOUR


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    made = shared_server().new_database()
    monkeypatch.setenv("POSTROOM_DATABASE_URL", made)
    yield made
    shared_server().give_back(made)


class WrongClock(Clock):
    """The system's, wrong by so many milliseconds."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead

    def now(self) -> int:
        return super().now() + self._ahead


async def two_messages(url: str) -> None:
    """One that has waited for five hours and a half, and one for tomorrow."""
    store = PostgresStore(url, SYSTEM, "a-right-host", Bounds())
    await store.open()
    now = SYSTEM.now()
    old, tomorrow = now - 5 * HOUR - HOUR // 2, now + DAY
    waits = new_message(1, created_at=old, due_at=old, expires_at=now + 9 * DAY)
    planned = new_message(2, created_at=now, scheduled_at=tomorrow, due_at=tomorrow, expires_at=now + 9 * DAY)
    await store.accept(replace(accept_of(waits, planned), now=now))
    await store.close()


@pytest.mark.parametrize("wrong", [-3 * DAY, 3 * DAY])
def test_what_is_due_and_for_how_long_it_waits_is_shown_by_the_servers_clock(
    wrong: int, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(two_messages(url))
    clock = WrongClock(wrong)
    for module in (cli, queue_commands, moments, stores_module):
        monkeypatch.setattr(module, "SYSTEM", clock)
    monkeypatch.setattr(cli, "configure_logging", lambda *_: None)  # it would last for all tests after this
    assert cli.main(["queue"]) == 0
    shown = capsys.readouterr().out
    (lane,) = [line for line in shown.splitlines() if line.startswith("acme")]
    assert re.fullmatch(r"acme +any +any +normal +queued +2 +1 +0 +0 +5h3\dm", lane), shown
    first = [line for line in shown.splitlines() if "msg_" in line]
    assert [" now " in line for line in first] == [True, False]
    assert cli.main(["queue", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert abs(queue_commands._moment(found["now"]) - SYSTEM.now()) < HOUR
    assert [lane["due"] for lane in found["lanes"]] == [1]
    (oldest,) = [queue_commands._moment(lane["oldest"]) for lane in found["lanes"]]
    assert min(queue_commands._moment(each["created_at"]) for each in found["first"]) == oldest
    assert all(queue_commands._moment(each["due_at"]) for each in found["first"])
