"""A store with mail in every state moves to PostgreSQL and back: the API answers the same, and the queue is sent once."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from service.clock import SYSTEM
from service.durations import Rate
from service.errors import ConfigurationError, StorageUnavailable
from service.mail.lifecycle import Event, State
from service.mail.quota import Per, parse_quota
from service.spool.keys import Keys
from service.store import open_store
from service.store.port import Store
from service.store.shown import Suppression
from service.store.values import IdempotencyKey, Take, Want
from service.store.whole import move_store, unmark_store
from tests.scenario.test_crash import wait_for
from tests.support import commands
from tests.support.postgres import shared_server
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE, running
from tests.support.sink_process import SinkProcess
from tests.support.store_data import ROUTE, accept_of, new_message, settlement_of
from tests.support.waiting import until

BATCHES, EACH = 4, 500
SETTLED = {
    Event.ACCEPTED: 300,
    Event.REFUSED: 20,
    Event.DEFER: 30,
    Event.FAULT: 10,
    Event.PARK: 10,
}
QUOTA = parse_quota("5000/d", Per.RELAY, "UTC", 1.0, 0.0, "r")
LATER = 3_600_000  # ms


@pytest.fixture
def database_url() -> Iterator[str]:
    """An empty database of the session's server."""
    url = shared_server().new_database()
    yield url
    shared_server().give_back(url)


def _silent(_: str) -> None:
    """Nobody watches the progress."""


def sqlite_url(folder: Path, name: str = "post.db") -> str:
    return f"sqlite:///{folder}/{name}"


async def fill(folder: Path, batches: int = 1) -> str:
    """Messages in every state; the token of an API key of their account."""
    url = sqlite_url(folder)
    store = open_store(url, SYSTEM, holder="filling")
    await store.open()
    _, token = await Keys(SYSTEM, store).create("default", "test", ("send", "read", "content", "admin"))
    await store.close()
    async with running(folder, capture=True, auth="keys", role="api", database_url=url, recipient_limit="off") as (
        client,
        _,
    ):
        client.headers["Authorization"] = f"Bearer {token}"
        for batch in range(batches):
            assert (await post_batch(client, batch)).status_code == 202
    store = open_store(url, SYSTEM, holder="settling")
    await store.open()
    await settle_some(store)
    await store.close()
    return token


async def post_batch(client: httpx.AsyncClient, batch: int) -> httpx.Response:
    messages = [
        {"to": f"u{batch}-{n}@example.org", "tags": {"batch": str(batch)}, "metadata": {"n": str(n)}}
        for n in range(EACH)
    ]
    body = {"base": {**ARTICLE, "from": "ada@example.com"}, "messages": messages}
    return await client.post("/send/batch", json=body, headers={"Idempotency-Key": f"batch-{batch}"})


async def settle_some(store: Store) -> None:
    lanes = await store.due_routes()
    want = Want(lanes[0].route, "r", sum(SETTLED.values()) + 7, quotas=(QUOTA,))
    claimed = await store.claim(lambda: [want], "settling", SYSTEM.now, 3600)
    deliveries = list(claimed.deliveries)
    for event, count in SETTLED.items():
        for _ in range(count):
            due_at = SYSTEM.now() + LATER if event is Event.DEFER else None
            await store.settle(settlement_of(deliveries.pop(), event, at=SYSTEM.now(), due_at=due_at))
    assert len(deliveries) == 7, "these are being sent when their process ends"
    await store.add_suppression(
        "default", Suppression("gone@example.org", "bad_address", "api", 1, None, "no such user")
    )
    await store.publish_template("hello", "digest", '{"template.toml": "a\\u0000b"}', 1, current=True)
    waiting = (await store.waiting(SYSTEM.now(), 5000)).first
    assert await store.cancel("default", waiting[0].id, SYSTEM.now())
    await others(store)


async def others(store: Store) -> None:
    """What never gets to a relay, in another account: a suppressed address, a ttl that is over, a subject with NUL."""
    now = SYSTEM.now()
    gone = Suppression("gone@example.org", "bad_address", "api", 1, None, "no such user")
    await store.add_suppression("acme", gone)
    late = new_message(3, expires_at=now - 1, created_at=now - LATER)
    await store.accept(accept_of(new_message(2, ("gone@example.org",), expires_at=now + LATER), late))
    assert (await store.expire(now, 10)) == 1
    assert not (await store.claim(lambda: [Want("acme||", "r", 1)], "settling", SYSTEM.now, 60)).deliveries
    canceled = replace(new_message(1, ("nul@example.org",)), subject="a\0b", id="msg_" + "0" * 26)
    await store.accept(accept_of(canceled, takes=(Take("bucket", Rate(10, 3600), 3),)))
    await store.cancel("acme", canceled.id, now)


@contextlib.asynccontextmanager
async def still_sending(url: str) -> AsyncIterator[None]:
    """Who opened the attempts lives, so that nobody closes them."""
    store = open_store(url, SYSTEM, holder="settling")
    await store.open()
    try:
        yield
    finally:
        await store.close()


async def answers(url: str, folder: Path, token: str) -> dict[str, Any]:
    """What the API says of everything, and the limits beside it."""
    found: dict[str, Any] = {}
    async with running(folder, auth="keys", role="api", hold=True, database_url=url) as (client, service):
        client.headers["Authorization"] = f"Bearer {token}"
        ids = await all_ids(client, found)
        for id in ids[::20]:
            for path in (f"/messages/{id}", f"/messages/{id}/events", f"/messages/{id}/raw"):
                found[path] = (await client.get(path)).content
        for path in ("/suppressions", "/keys", "/messages?tag=batch:2&status=sent", "/messages?metadata.n=7"):
            found[path] = (await client.get(path)).json()
        found["templates"] = await service.store.template_files("hello", 1)
        found["quota"] = await service.store.quota_use([QUOTA], SYSTEM.now() // 86_400_000 * 86_400_000 + 86_399_000)
        found["counts"] = {state: n for state, n in (await service.store.stats(0)).counts.items() if n}
        found["replay"] = [await replayed(client, batch) for batch in range(BATCHES)]
        other = await client.post("/send/batch", json={"messages": [ARTICLE]}, headers={"Idempotency-Key": "batch-1"})
        found["mismatch"] = other.json()["code"]
    return found


async def all_ids(client: httpx.AsyncClient, found: dict[str, Any]) -> list[str]:
    ids: list[str] = []
    after: str | None = None
    while True:
        given = {"limit": "200", **({"after": after} if after else {})}
        page = (await client.get("/messages", params=given)).json()
        found[f"page {after}"] = page
        ids += [message["id"] for message in page["data"]]
        if (after := page["next"]) is None:
            return ids


async def replayed(client: httpx.AsyncClient, batch: int) -> bytes:
    answer = await post_batch(client, batch)
    assert answer.headers["Idempotent-Replayed"] == "true"
    return answer.content


@pytest.mark.timeout(180)
async def test_the_api_answers_the_same_after_a_move_and_what_was_queued_is_sent_once(
    database_url: str, tmp_path: Path
) -> None:
    token = await fill(tmp_path, BATCHES)
    origin = sqlite_url(tmp_path)
    async with still_sending(origin):
        before = await answers(origin, tmp_path, token)
    said: list[str] = []
    moved = move_store(origin, database_url, SYSTEM, said.append)
    assert moved.tables["messages"].rows == BATCHES * EACH + 3
    assert any(words.startswith("messages: 2,003 rows, ") for words in said), "progress is told"
    async with still_sending(database_url):
        after = await answers(database_url, tmp_path, token)
    for key, value in before.items():
        assert after[key] == value, key
    states = {State(each) for each in before["counts"]}
    assert states >= set(State) - {State.DELIVERED, State.COMPLAINED}, "every state that sending leads to"
    with pytest.raises(ConfigurationError, match="was moved to postgresql://"):
        await open_store(origin, SYSTEM, holder="late").open()
    await asyncio.to_thread(_queue_is_sent_once, database_url, tmp_path, token)


def _queue_is_sent_once(url: str, folder: Path, token: str) -> None:
    waiting = BATCHES * EACH - sum(SETTLED.values()) - 7 - 1
    headers = {"Authorization": f"Bearer {token}"}
    with (
        SinkProcess(folder) as sink,
        ServiceProcess(folder, sink.url, database_url=url, auth="keys", in_doubt_delay=3600) as service,
        httpx.Client(base_url=service.url, headers=headers) as client,
    ):
        assert wait_for(lambda: len(sink.copies()) == waiting, 60), (len(sink.copies()), waiting)
        fresh = client.post("/send", json={**ARTICLE, "from": "ada@example.com"}, headers={"Prefer": "wait=20"})
        assert (fresh.status_code, fresh.json()["status"]) == (200, "sent"), "numbers go on"
        assert wait_for(lambda: client.get("/messages", params={"status": "sending"}).json()["data"] == [], 20)
        doubtful = client.get("/messages", params={"status": "deferred", "limit": 200}).json()["data"]
    assert set(sink.copies().values()) == {1}
    assert len(sink.copies()) == waiting + 1
    assert len(doubtful) == SETTLED[Event.DEFER] + 7, "what was being sent is in doubt, and not sent again at once"


async def test_a_move_to_postgresql_and_back_leaves_the_same_rows(database_url: str, tmp_path: Path) -> None:
    await fill(tmp_path)
    there = move_store(sqlite_url(tmp_path), database_url, SYSTEM, _silent)
    back = move_store(database_url, sqlite_url(tmp_path, "back.db"), SYSTEM, _silent)
    assert back.tables == there.tables
    assert not any("partial" in name for name in os.listdir(tmp_path)), "nothing is left beside the new file"
    with pytest.raises(ConfigurationError, match="was moved to sqlite:///"):
        await open_store(database_url, SYSTEM, holder="late").open()
    assert unmark_store(database_url)
    store = open_store(sqlite_url(tmp_path, "back.db"), SYSTEM, holder="new")
    await store.open()
    key = IdempotencyKey("new", b"x")
    await store.accept(replace(accept_of(new_message(9)), key=key))
    assert sum((await store.stats(0)).counts.values()) == EACH + 4
    await store.close()


async def test_a_process_that_stood_still_during_a_move_takes_and_sends_nothing_afterwards(
    database_url: str, tmp_path: Path
) -> None:
    asleep = open_store(database_url, SYSTEM, holder="asleep")
    await asleep.open()
    now = SYSTEM.now()
    await asleep.accept(accept_of(replace(new_message(1), created_at=now, due_at=now, expires_at=now + LATER)))
    with psycopg.connect(database_url, autocommit=True) as connection:  # what is left to be seen of it a minute later
        connection.execute("UPDATE holders SET seen_at = seen_at - 61000")
    move_store(database_url, sqlite_url(tmp_path), SYSTEM, _silent)
    with pytest.raises(StorageUnavailable, match="moved elsewhere"):
        await asleep.claim(lambda: [Want(ROUTE, "r", 1)], "asleep", SYSTEM.now, 60)
    await until(lambda: not asleep.healthy())
    with pytest.raises(StorageUnavailable):
        await asleep.accept(accept_of(new_message(2)))
    await asleep.close()
    there = open_store(sqlite_url(tmp_path), SYSTEM, holder="new")
    await there.open()
    claimed = await there.claim(lambda: [Want(ROUTE, "r", 1)], "new", SYSTEM.now, 60)
    assert len(claimed.deliveries) == 1
    await there.close()
    assert unmark_store(database_url)


async def test_a_store_that_somebody_has_open_is_not_moved(database_url: str, tmp_path: Path) -> None:
    for url, other in ((sqlite_url(tmp_path), database_url), (database_url, sqlite_url(tmp_path, "new.db"))):
        store = open_store(url, SYSTEM, holder="busy-service")
        await store.open()
        with pytest.raises(ConfigurationError, match=r"--from: .* is open in busy-service"):
            await asyncio.to_thread(move_store, url, other, SYSTEM, _silent)
        await store.close()
    await asyncio.to_thread(move_store, sqlite_url(tmp_path), database_url, SYSTEM, _silent)


async def test_a_target_that_holds_anything_or_is_open_is_refused_and_the_source_stays_in_use(
    database_url: str, tmp_path: Path
) -> None:
    origin = sqlite_url(tmp_path)
    for url in (origin, database_url):
        store = open_store(url, SYSTEM, holder="busy-service")
        await store.open()
        if url == database_url:
            with pytest.raises(ConfigurationError, match=r"--to: .* is open in busy-service"):
                await asyncio.to_thread(move_store, origin, database_url, SYSTEM, _silent)
        await store.accept(accept_of(new_message(1)))
        await store.close()
    with pytest.raises(ConfigurationError, match=r"--to: .* is not empty: the table contents has 1 rows"):
        move_store(origin, database_url, SYSTEM, _silent)
    store = open_store(origin, SYSTEM, holder="again")
    await store.open()
    await store.close()


async def test_the_command_says_what_it_did_and_shows_no_password(database_url: str, tmp_path: Path) -> None:
    await fill(tmp_path)
    secret = database_url.replace("postgres@", "postgres:canary-77@")
    environment = {"PATH": os.environ["PATH"]}
    done = commands.run(["move", "--from", sqlite_url(tmp_path), "--to", secret], tmp_path, environment)
    assert (done.status, "rows moved and compared in" in done.out) == (0, True), done
    again = commands.run(["move", "--from", sqlite_url(tmp_path), "--to", secret], tmp_path, environment)
    assert again.status == 1
    assert "is not empty" in again.err
    served = commands.run(["migrate"], tmp_path, {**environment, "POSTROOM_DATABASE_URL": sqlite_url(tmp_path)})
    assert (served.status, "was moved to postgresql://127.0.0.1" in served.err) == (1, True)
    freed = commands.run(["move", "--unmark", sqlite_url(tmp_path)], tmp_path, environment)
    assert freed.out == "It can be used again.\n"
    assert "canary-77" not in done.out + done.err + again.err + served.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from", "sqlite:///no.db", "--to", "postgresql://x@127.0.0.1/x"], "--from: there is no file"),
        (["--from", "sqlite:///a.db", "--to", "sqlite:///b.db"], "the same kind of store"),
        (["--from", "mysql://a", "--to", "sqlite:///b.db"], "--from: must be `sqlite:///"),
        (["--from", "sqlite:///a.db"], "needs --from and --to"),
    ],
)
def test_a_move_that_cannot_be_is_refused_with_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = commands.run(["move", *arguments], tmp_path, {"PATH": os.environ["PATH"]})
    assert (done.status, sentence in done.err) == (1, True), done.err
