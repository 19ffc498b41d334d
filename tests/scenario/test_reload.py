"""The relays' files change while the service runs: nothing is lost, nothing is sent twice, nothing has to be restarted."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import Service
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE, running
from tests.support.sink import Sink
from tests.support.sink_process import SinkProcess
from tests.support.tls import TestAuthority
from tests.support.waiting import until, until_sent

FROM = "zouchengzhuo%40163.com"
LOOKING = {"relays_refresh": 0.1}


def relays(folder: Path, **tables: dict[str, Any]) -> Path:
    """The relays file with these, put in place as a whole."""
    lines = []
    for name, values in tables.items():
        lines += [f"[relays.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    file = folder / "relays.toml"
    file.with_suffix(".new").write_text("\n".join(lines))
    file.with_suffix(".new").replace(file)
    return file


def plain(sink: Sink | SinkProcess, user: str = "", **values: Any) -> dict[str, Any]:
    return {"url": f"smtp://{user}127.0.0.1:{sink.port}?plaintext=allow", **values}


def reloads(service: Service, result: str) -> Callable[[], bool]:
    """Whether there was one more, from now on."""
    counter = service.metrics.relays_reloads.labels(result)
    before = counter._value.get()
    return lambda: counter._value.get() > before


async def held_by(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    recipient = (await client.get(f"/messages/{id}")).json()["recipients"][0]
    return dict(recipient["held_by"] or {"reason": recipient["status"]})


async def until_held(client: httpx.AsyncClient, id: str, reason: str) -> None:
    async with asyncio.timeout(20):
        for _ in itertools.count():
            if (await held_by(client, id))["reason"] == reason:
                return
            await asyncio.sleep(0.01)


# --- under load ---------------------------------------------------------------------------------------------------------


def test_twenty_changes_under_load_lose_nothing_and_send_nothing_twice(tmp_path: Path) -> None:
    """Each change gives the relays new pools while others of theirs have mail in flight; every third takes one away."""
    (tmp_path / "sink").mkdir()
    with SinkProcess(tmp_path / "sink", delay_ms=20) as sink:
        both = {"a": plain(sink, max_connections=3), "b": plain(sink, max_connections=3)}
        file = relays(tmp_path, **both)
        with (
            ServiceProcess(tmp_path, "", relays_file=file, relays_refresh=0.05) as service,
            ThreadPoolExecutor(2) as threads,
        ):
            going = [True]
            senders = [threads.submit(send_while, service.url, going) for _ in range(2)]
            for change in range(20):
                tables = {name: {**values, "weight": 2 + change} for name, values in both.items()}
                if change % 3 == 2:
                    del tables["a"]
                seen = len(sink.copies())
                relays(tmp_path, **tables)
                names = sorted(tables)
                wait_for(lambda names=names, change=change: reloaded(service, names, change), service)
                wait_for(lambda seen=seen: len(sink.copies()) > seen, service)
            service.reload("relays.reloaded")  # by the signal, though nothing has changed
            going[0] = False
            accepted = [id for sender in senders for id in sender.result(30)]
            wait_for(lambda: len(sink.copies()) >= len(accepted), service)
            with httpx.Client(base_url=service.url) as client:
                wait_for(lambda: client.get("/messages?status=sent&limit=1").status_code == 200, service)
                listed = client.get("/messages?status=queued&limit=1").json()["data"]
                assert listed == [], "nothing is left over"
            assert service.process.poll() is None
        copies = sink.copies()
    assert sorted(copies) == sorted(accepted)
    assert set(copies.values()) == {1}
    assert not [line for line in service.lines if line.get("level") in ("error", "critical")]


def send_while(url: str, going: list[bool]) -> list[str]:
    """Message-IDs of all 202s; any other answer is a failure."""
    accepted = []
    with httpx.Client(base_url=url) as client:
        while going[0]:
            answer = client.post("/send", json=ARTICLE)
            assert answer.status_code == 202, answer.text
            accepted.append(answer.json()["message_id"].strip("<>"))
    return accepted


def reloaded(service: ServiceProcess, names: list[str], change: int) -> bool:
    """Whether the log tells of so many changes, and the last one left these relays."""
    told = [line for line in service.lines if line.get("event") == "relays.reloaded"]
    return len(told) > change and sorted(told[-1]["relays"]) == names


def wait_for(holds: Callable[[], bool], service: ServiceProcess, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, service.lines[-5:]
        time.sleep(0.01)


# --- one change at a time -----------------------------------------------------------------------------------------------


async def test_a_new_secret_sends_what_waited_for_a_refused_login(tmp_path: Path) -> None:
    sink = await Sink(password="RIGHT").start()
    (tmp_path / "secret").write_text("WRONG")
    file = relays(tmp_path, netease=plain(sink, f"{FROM}@", secret_file=str(tmp_path / "secret")))
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        id = (await client.post("/send", json=ARTICLE)).json()["id"]
        await until(lambda: service.relays.get("netease").status(0).health.value == "broken")
        await until_held(client, id, "relay")
        assert sink.logins == [("PLAIN", False)]
        (tmp_path / "secret").write_text("RIGHT")
        async with asyncio.timeout(20):
            await sink.arrived.wait()
        assert sink.logins == [("PLAIN", False), ("PLAIN", True)]
    await sink.stop()


async def test_mail_for_a_relay_that_is_gone_waits_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    sink, second = await Sink().start(), await Sink(user="me@example.com").start()
    netease, other = plain(sink, f"{FROM}:AUTHCODE@"), plain(second, "me%40example.com:AUTHCODE@", priority=2)
    file = relays(tmp_path, netease=netease, other=other)
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        await client.post("/relays/netease/pause")
        pinned = (await client.post("/send", json={**ARTICLE, "relay": "netease"})).json()["id"]
        await until_held(client, pinned, "relay")
        relays(tmp_path, other=other)
        await until(lambda: service.relays.names() == ("other",))
        held = await held_by(client, pinned)
        assert (held["reason"], held["relay"]) == ("no_relay", "netease")
        recipient = (await client.get(f"/messages/{pinned}")).json()["recipients"][0]
        assert "not configured" in recipient["held_back_by"]
        answer = await client.post("/send", json={**ARTICLE, "relay": "netease"})
        assert (answer.status_code, answer.json()["code"]) == (422, "relay_not_found")
        assert 'postroom_relay_open{relay="netease"}' not in (await client.get("/metrics")).text
        sent = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
        assert sent.json()["status"] == "sent", "the others go on"
        relays(tmp_path, netease=netease, other=other)
        await until(lambda: "netease" in service.relays.names())
        await until_held(client, pinned, "relay")  # the operator's pause is still there
        await client.post("/relays/netease/resume")
        await until_sent(client, pinned)
        assert (await client.get(f"/messages/{pinned}")).json()["recipients"][0]["relay"] == "netease"
        assert (len(sink.received), len(second.received)) == (1, 1)
    await sink.stop()
    await second.stop()


async def test_a_relay_that_is_added_takes_mail_that_waits(tmp_path: Path) -> None:
    sink, second = await Sink().start(), await Sink(user="me@example.com").start()
    first = plain(sink, f"{FROM}:AUTHCODE@")
    file = relays(tmp_path, first=first)
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, _):
        await client.post("/relays/first/pause")
        id = (await client.post("/send", json=ARTICLE)).json()["id"]
        relays(tmp_path, first=first, second=plain(second, "me%40example.com:AUTHCODE@"))
        async with asyncio.timeout(20):
            await second.arrived.wait()
        await until_sent(client, id)
    assert sink.received == []
    await sink.stop()
    await second.stop()


ONE, OTHER = f"{FROM}:AUTHCODE@", "me%40example.com:AUTHCODE@"


@pytest.mark.parametrize("user", ["", OTHER, "zuochengzhuo%40163.com:AUTHCODE@"])
async def test_mail_whose_sender_no_relay_takes_any_more_waits_for_one_that_does(tmp_path: Path, user: str) -> None:
    """Its relay is gone and another one is left, or it was given another login for a moment."""
    sink = await Sink().start()
    login = {"sender_must_equal_login": True}
    good, other = plain(sink, ONE, **login), plain(sink, OTHER, **login)
    file = relays(tmp_path, a=good, b=other)
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        await client.post("/relays/a/pause")
        ids = [(await client.post("/send", json={**ARTICLE, **pin})).json()["id"] for pin in ({}, {"relay": "a"})]
        for id in ids:
            await until_held(client, id, "relay")
        relays(tmp_path, **({"a": plain(sink, user, **login)} if user else {}), b=other)
        for id in ids:
            await until_held(client, id, "no_relay")
        assert (await client.post("/send", json=ARTICLE)).json()["code"] == "sender_not_accepted"
        relays(tmp_path, a=good, b=other)
        await until(
            lambda: "a" in service.relays.names() and service.relays.get("a").config.user == "zouchengzhuo@163.com"
        )
        await client.post("/relays/a/resume")
        for id in ids:
            await until_sent(client, id)
    assert len(sink.received) == 2
    await sink.stop()


@pytest.mark.parametrize("minds", ["sender_must_equal_login", "from"])
async def test_mail_that_was_accepted_before_any_relay_minded_its_sender_goes_by_one_that_takes_it(
    tmp_path: Path, minds: str
) -> None:
    sink, second = await Sink().start(), await Sink(user="me@example.com").start()
    file = relays(tmp_path, a=plain(sink, ONE))
    one, other = (
        {minds: True if minds == "sender_must_equal_login" else [each]} for each in ("163.com", "example.com")
    )
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        await client.post("/relays/a/pause")
        ids = [(await client.post("/send", json=ARTICLE)).json()["id"] for _ in range(8)]
        relays(tmp_path, a=plain(sink, ONE, **one), b=plain(second, OTHER, **other))
        await until(lambda: "b" in service.relays.names())
        for id in ids:
            await until_held(client, id, "relay")  # of a alone, which is paused
        await client.post("/relays/a/resume")
        for id in ids:
            await until_sent(client, id)
        recipient = (await client.get(f"/messages/{ids[0]}")).json()["recipients"][0]
        assert recipient["attempts"] == 1, "it was charged nothing on its way"
    assert (len(sink.received), len(second.received)) == (8, 0)
    await sink.stop()
    await second.stop()


@pytest.mark.parametrize("then", ["another relay", "another rule"])
@pytest.mark.parametrize("names", [False, True])
async def test_mail_whose_envelope_no_relay_takes_any_more_waits_like_that_whose_from_none_does(
    tmp_path: Path, names: bool, then: str
) -> None:
    """From is the login and the envelope's sender is not; the rule was set when the mail had been accepted. names: the routes
    tell the sender, since another relay minded it.
    """
    sink, second = await Sink().start(), await Sink(user="me@example.com").start()
    other = {"c": plain(second, OTHER, sender_must_equal_login=True)} if names else {}
    any_sender, login_only = plain(sink, ONE), plain(sink, ONE, sender_must_equal_login=True)
    file = relays(tmp_path, a=any_sender, **other)
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        await client.post("/relays/a/pause")
        bounces = {**ARTICLE, "envelope_from": "bounces+1~2@example.com"}
        ids = [(await client.post("/send", json=bounces)).json()["id"] for _ in range(3)]
        relays(tmp_path, a=login_only, **other)
        await until(lambda: service.relays.get("a").rule.must_equal_login)
        await client.post("/relays/a/resume")
        for id in ids:
            await until_held(client, id, "no_relay")
        meanwhile = (await client.post("/send", json=ARTICLE)).json()["id"]
        await until_sent(client, meanwhile)
        if then == "another rule":
            relays(tmp_path, a=any_sender, **other)
        else:
            relays(tmp_path, a=login_only, b=plain(second, OTHER), **other)
        for id in ids:
            await until_sent(client, id)
            (recipient,) = (await client.get(f"/messages/{id}")).json()["recipients"]
            assert (recipient["attempts"], recipient["relay"]) == (1, "a" if then == "another rule" else "b")
    paths = [each.mail_from for each in (*sink.received, *second.received)]
    assert sorted(paths) == sorted(["bounces+1~2@example.com"] * 3 + ["zouchengzhuo@163.com"])
    await sink.stop()
    await second.stop()


async def test_a_bad_file_changes_nothing_and_is_told_until_it_is_mended(tmp_path: Path) -> None:
    sink = await Sink().start()
    good = plain(sink, f"{FROM}:AUTHCODE@")
    file = relays(tmp_path, a=good)
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        pool = service.relays.get("a")
        for bad in (
            "[relays.a",
            "",
            f"[relays.a]\nurl = '{good['url']}'\ncolour = 1",
            "[relays.b]\nurl = 'smtp://h.example'",
        ):
            refused = reloads(service, "refused")
            file.write_text(bad)
            await until(refused)
            assert service.relays.get("a") is pool
            assert service.relays.names() == ("a",)
            assert "postroom_relays_current 0.0" in (await client.get("/metrics")).text
            sent = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
            assert sent.json()["status"] == "sent"
            assert (await client.get("/readyz")).status_code == 200
        unchanged = reloads(service, "unchanged")
        relays(tmp_path, a=good)
        await until(unchanged)
        assert service.relays.get("a") is pool, "what is as it was keeps its connections"
        assert "postroom_relays_current 1.0" in (await client.get("/metrics")).text
        assert len(sink.logins) == 1
    await sink.stop()


async def test_another_authority_counts_for_the_next_connection(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    good, other = TestAuthority(tmp_path / "one"), TestAuthority(tmp_path / "two")
    sink = await Sink().start(implicit=good.server_context())
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(other.ca_file.read_bytes())
    url = f"smtps://{FROM}:AUTHCODE@localhost:{sink.port}"
    file = relays(tmp_path, a={"url": url, "ca_file": str(trusted)})
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        id = (await client.post("/send", json=ARTICLE)).json()["id"]
        await until(lambda: service.relays.get("a").status(0).health.value == "broken")
        trusted.write_bytes(good.ca_file.read_bytes())
        async with asyncio.timeout(20):
            await sink.arrived.wait()
        await until_sent(client, id)
    await sink.stop()


async def test_what_is_in_flight_is_finished_by_the_old_connection(tmp_path: Path) -> None:
    """A transaction that waits for the reply to its final dot while its relay changes, and then is gone."""
    sink = SlowSink()
    await sink.start()
    first = plain(sink, f"{FROM}:AUTHCODE@", max_connections=1)
    file = relays(tmp_path, a=first)
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        id = (await client.post("/send", json=ARTICLE)).json()["id"]
        async with asyncio.timeout(20):
            await sink.arrived.wait()
        relays(tmp_path, a={**first, "weight": 2}, b={**first, "priority": 2})
        await until(lambda: "b" in service.relays.names())
        assert service.relays.get("a").free(0) == 0, "the provider counts old and new connections"
        behind = (await client.post("/send", json={**ARTICLE, "relay": "a"})).json()["id"]
        await until_held(client, behind, "connection")
        assert (await client.post(f"/messages/{behind}/cancel")).status_code == 200
        relays(tmp_path, b={**first, "priority": 2})
        await until(lambda: service.relays.names() == ("b",))
        sink.release.set()
        await until_sent(client, id)
        assert len(sink.received) == 1
        events = (await client.get(f"/messages/{id}/events")).json()["data"]
        assert events[-1]["data"]["relay"] == "a"
        await until(lambda: not service.relays._retiring, 20)
    await sink.stop()


async def test_a_relay_under_another_name_waits_for_the_connections_that_it_had_under_the_old_one(
    tmp_path: Path,
) -> None:
    """Its provider counts sessions by account; whatever other account comes with it waits for nothing."""
    sink, second = SlowSink(), await Sink(user="me@example.com").start()
    await sink.start()
    first = plain(sink, ONE, max_connections=1)
    file = relays(tmp_path, a=first)
    async with running(tmp_path, capture=False, relays_file=file, **LOOKING) as (client, service):
        ids = [(await client.post("/send", json=ARTICLE)).json()["id"]]
        async with asyncio.timeout(20):
            await sink.arrived.wait()
        for name in ("b", "c"):
            relays(tmp_path, **{name: first, "x": plain(second, OTHER, max_connections=1)})
            await until(lambda name=name: name in service.relays.names())
            assert service.relays.get(name).free(0) == 0
            assert service.relays.get("x").free(0) == 1
        ids.append((await client.post("/send", json={**ARTICLE, "relay": "c"})).json()["id"])
        await until_held(client, ids[1], "connection")
        sink.release.set()
        for id in ids:
            await until_sent(client, id)
        assert len(sink.received) == 2
    await sink.stop()
    await second.stop()


class SlowSink(Sink):
    """It answers the first content when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        reply = await super().handle_DATA(server, session, envelope)
        await self.release.wait()
        return reply


async def test_a_process_that_only_accepts_follows_the_file_too(tmp_path: Path) -> None:
    url = {"url": "smtp://u:s@127.0.0.1:9?plaintext=allow"}
    file = relays(tmp_path, a=url)
    copied = {**ARTICLE, "cc": "somebody@example.com"}
    async with running(tmp_path, capture=False, role="api", relays_file=file, **LOOKING) as (client, service):
        assert (await client.post("/send?dry_run=true", json=copied)).status_code == 200
        relays(tmp_path, a={**url, "cc": False})
        await until(lambda: not service.relays.get("a").limits.cc)
        answer = await client.post("/send", json=copied)
        assert (answer.status_code, answer.json()["code"]) == (422, "no_relay_for_message")
        assert [error["pointer"] for error in answer.json()["errors"]] == ["#/cc"]


async def test_without_looking_only_a_signal_reads_the_file(tmp_path: Path) -> None:
    url = {"url": "smtp://u:s@127.0.0.1:9?plaintext=allow"}
    file = relays(tmp_path, a=url)
    async with running(tmp_path, capture=False, role="api", relays_file=file, relays_refresh=0) as (_, service):
        relays(tmp_path, a=url, b=url)
        changed = reloads(service, "changed")
        service.reload()
        await until(changed)
        assert service.relays.names() == ("a", "b")
