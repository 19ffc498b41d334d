"""Nobody waits for another's backlog: an account queues 100,000 messages for a slow relay, and others send one each.

The relay has two connections and answers after 50 ms, so there is no free slot while the backlog goes. bench/backlog.py
does the same with a million, and measures what else a backlog could cost.
"""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bench.filling import Backlog, fill
from service.clock import SYSTEM
from service.spool.keys import Keys
from service.store import open_store
from tests.support.postgres import shared_server
from tests.support.process import ServiceProcess
from tests.support.sink_process import SinkProcess

BACKLOG = 100_000
ALLOWED = 5.0  # seconds from the POST to the relay's 250
MESSAGE = {"from": "hello@lantern.example", "to": "ada@example.net", "subject": "x", "text": "x"}
DATABASES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/post.db",
    "postgres": lambda folder: shared_server().new_database(),
}


async def token_of(url: str, account: str) -> str:
    """A new key of an account, made before the service starts."""
    store = open_store(url, SYSTEM, holder="keys")
    await store.open()
    _, token = await Keys(SYSTEM, store).create(account, "test", ("send", "read"))
    await store.close()
    return token


def seconds_to_send(url: str, token: str, priority: str) -> float:
    """From the POST to the answer that the relay has taken it."""
    headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=30"}
    began = time.monotonic()
    answer = httpx.post(f"{url}/send", json={**MESSAGE, "priority": priority}, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["status"]) == (200, "sent"), answer.text
    return time.monotonic() - began


def waiting(url: str) -> float:
    """Recipients that are queued, as the service counts them."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith('postroom_recipients{state="queued"}')), 0)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(DATABASES))
async def test_a_message_of_another_account_and_an_urgent_one_do_not_wait_for_a_hundred_thousand(
    tmp_path: Path, name: str
) -> None:
    url = DATABASES[name](tmp_path)
    fill(url, Backlog(BACKLOG, ("crowd",)))
    crowd, calm = await token_of(url, "crowd"), await token_of(url, "calm")
    try:
        with SinkProcess(tmp_path, delay_ms=50) as sink:
            relay = f"smtp://127.0.0.1:{sink.port}?plaintext=allow&max_connections=2&max_messages_per_connection=10000"
            with ServiceProcess(tmp_path, relay, database_url=url, auth="keys") as service:
                waits = [
                    seconds_to_send(service.url, token, priority)
                    for token, priority in ((calm, "normal"), (crowd, "high"), (calm, "normal"))
                ]
                assert waiting(service.url) > BACKLOG / 2  # it was there all the time
        assert max(waits) <= ALLOWED, waits
    finally:
        if name == "postgres":
            shared_server().give_back(url)
