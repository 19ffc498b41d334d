"""What relays answer, through the whole service: only a true address fault bounces and suppresses; the log says why."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import Service
from service.relay.port import Health
from tests.support.accounts import Unwilling
from tests.support.clock import SteppedClock
from tests.support.running import ARTICLE, running
from tests.support.sink import Sink
from tests.support.waiting import until

# relay (and sender): preset, what its sink says, at which recipient or at the dot
RELAYS = {
    "frequency": ("qq", "550 Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1", "rcpt"),
    "count": ("163", "451 MI:SFQ 163 smtp13,EcCowAAnL6vXQ2Jg 1617052631", "dot"),
    "login": ("163", "535 Error: authentication failed", "auth"),
    "crowded": ("163", "421 HL:ICC 163 smtp9,DcCowABnb6fWcNRbfN8pDA--.44049S2", "rcpt"),
    "worn": ("163", "450 MI:DMC 163 smtp12,EMCowAD3", "dot"),
    "stopped": ("ses", "554 Message rejected: Sending paused for this account. For more information, ask", "dot"),
    "address": ("163", "550 User not found: nobody@163.com", "rcpt"),
}
TO = "nobody@163.com"


@pytest.fixture
async def sinks() -> AsyncIterator[dict[str, Sink]]:
    made = {}
    for name, (_, reply, where) in RELAYS.items():
        sink = Sink(
            user=f"{name}@163.com",
            replies={TO: reply} if where == "rcpt" else {},
            data_replies=[reply] if where == "dot" else [],
            password="another" if where == "auth" else "AUTHCODE",
        )
        made[name] = await sink.start()
    yield made
    for sink in made.values():
        await sink.stop()


def relays_file(folder: Path, sinks: dict[str, Sink]) -> Path:
    """One relay for each sink, each for a sender of its own."""
    file = folder / "relays.toml"
    tables = [
        f"""[relays.{name}]
preset = "{RELAYS[name][0]}"
url = "smtp://{name}%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
sender_must_equal_login = false
from = ["{name}@example.com"]
"""
        for name, sink in sinks.items()
    ]
    file.write_text("\n".join(tables))
    return file


async def log_of(client: httpx.AsyncClient, service: Service, id: str, lines: int) -> list[dict[str, Any]]:
    """The delivery log, as soon as it has so many lines."""
    moved = service.signals.watch(id)
    async with asyncio.timeout(15):
        while len(found := (await client.get(f"/messages/{id}/events")).json()["data"]) < lines:
            await moved.wait()
            moved.clear()
    return list(found)


async def test_only_a_true_address_fault_bounces_and_suppresses(tmp_path: Path, sinks: dict[str, Sink]) -> None:
    file = relays_file(tmp_path, sinks)
    given: dict[str, Any] = {"capture": False, "relays_file": file, "recipient_limit": "off"}
    async with running(tmp_path, **given) as (client, service):
        ids, logs = {}, {}
        for name in RELAYS:  # the bad address last: from then on nobody may send to it
            mail = {**ARTICLE, "from": f"{name}@example.com", "to": TO}
            answer = await client.post("/send", json=mail)
            assert answer.status_code == 202, answer.text
            ids[name] = answer.json()["id"]
            logs[name] = await log_of(client, service, ids[name], 3 if name == "worn" else 2)
        views = {name: (await client.get(f"/messages/{id}")).json() for name, id in ids.items()}
        suppressed = (await client.get("/suppressions")).json()["data"]
        relays = {each["name"]: each for each in (await client.get("/relays")).json()["data"]}

    told = {name: log[1]["data"] for name, log in logs.items()}
    assert {name: (data["class"], data["scope"], data["action"], data["charged"]) for name, data in told.items()} == {
        "frequency": ("rate", "relay", "RATE", False),
        "count": ("rate", "relay", "RATE", False),
        "login": ("auth-refused", "relay", "AUTH", False),
        "crowded": ("concurrency", "relay", "RATE", False),
        "worn": ("connection-limit", "connection", "RECONN", False),
        "stopped": ("account-disabled", "relay", "AUTH", False),
        "address": ("bad-address", "recipient", "PERM", True),
    }
    states = {name: view["recipients"][0]["status"] for name, view in views.items()}
    assert states == {
        "frequency": "deferred",
        "count": "deferred",
        "login": "queued",
        "crowded": "deferred",
        "worn": "sent",
        "stopped": "deferred",
        "address": "bounced",
    }
    for name in ("frequency", "count", "login", "crowded", "stopped"):
        assert views[name]["recipients"][0]["attempts"] == 0
        assert told[name]["relay_paused_until"] == relays[name]["until"]
        assert relays[name]["health"] == ("broken" if name in ("login", "stopped") else "waiting")
    assert "relay_paused_until" not in told["worn"]
    assert relays["worn"]["health"] == relays["address"]["health"] == "open"
    assert len(sinks["login"].logins) == 1, "one wrong secret is one failed login"
    assert len(sinks["worn"].logins) == 2, "over a new connection"
    assert [(each["email"], each["message"]) for each in suppressed] == [(TO, ids["address"])]


async def test_another_relay_takes_over_at_once_when_one_must_rest(tmp_path: Path) -> None:
    resting = Sink(user="first@163.com", replies={TO: "550 Domain frequency limited"})
    ready = Sink(user="second@163.com")
    tables = [
        f"[relays.{name}]\nurl = 'smtp://{sink.user.replace('@', '%40')}:AUTHCODE@127.0.0.1:{(await sink.start()).port}"
        f"?plaintext=allow&priority={priority}'"
        for priority, (name, sink) in enumerate({"first": resting, "second": ready}.items(), 1)
    ]
    (tmp_path / "relays.toml").write_text("\n".join(tables))
    async with running(tmp_path, capture=False, relays_file=tmp_path / "relays.toml") as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "to": TO}, headers={"Prefer": "wait=10"})
        assert (answer.status_code, answer.json()["status"]) == (200, "sent")
        log = (await client.get(f"/messages/{answer.json()['id']}/events")).json()["data"]
    assert [(each["data"]["relay"], each["data"]["class"]) for each in log[1:]] == [
        ("first", "rate"),
        ("second", "sent"),
    ]
    assert len(ready.received) == 1
    await resting.stop()
    await ready.stop()


class Narrow(Sink):
    """Takes two recipients in one transaction; says so at RCPT, or only at the dot."""

    at_dot = False

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if len(envelope.rcpt_tos) >= 2 and not self.at_dot:
            return "452 4.5.3 Error: too many recipients"
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if len(envelope.rcpt_tos) > 2:
            return "554 Transaction failed: Recipient count exceeds 2."
        return await super().handle_DATA(server, session, envelope)


@pytest.mark.parametrize("at_dot", [False, True])
async def test_too_many_recipients_come_in_several_transactions_at_once_and_uncharged(
    tmp_path: Path, at_dot: bool
) -> None:
    sink = Narrow()
    sink.at_dot = at_dot
    await sink.start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
    everybody = [f"{n}@example.org" for n in range(7)]
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "to": everybody}, headers={"Prefer": "wait=10"})
        assert answer.json()["status"] == "sent"
        view = (await client.get(f"/messages/{answer.json()['id']}")).json()
        assert [each["attempts"] for each in view["recipients"]] == [1] * 7
        await client.post("/send", json={**ARTICLE, "to": everybody}, headers={"Prefer": "wait=10"})
    carried = [each.rcpt_tos for each in sink.received]
    assert sorted(address for rcpt_tos in carried[: len(carried) // 2] for address in rcpt_tos) == everybody
    assert all(len(rcpt_tos) <= 2 for rcpt_tos in carried)
    await sink.stop()


async def test_ones_own_row_decides(tmp_path: Path) -> None:
    sink = await Sink(replies={TO: "550 Not on Tuesdays"}).start()
    (tmp_path / "relays.toml").write_text(
        f"""
[[rules]]
name = "tuesday"
codes = ["550"]
text = "not on tuesdays"
scope = "recipient"
action = "TEMP"
wait = "24h"

[relays.own]
url = "smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
"""
    )
    async with running(tmp_path, capture=False, relays_file=tmp_path / "relays.toml") as (client, service):
        id = (await client.post("/send", json={**ARTICLE, "to": TO})).json()["id"]
        data = (await log_of(client, service, id, 2))[1]["data"]
    assert (data["class"], data["action"], data["charged"]) == ("tuesday", "TEMP", True)
    await sink.stop()


async def test_words_that_no_row_knows_end_a_few_messages_and_hold_the_queue(tmp_path: Path) -> None:
    """`wait` sends them one after the other; the relay rests with the third, and what comes then is kept."""
    sink = await Sink(data_replies=[f"554 5.7.1 The mandate has lapsed, case {n}" for n in range(9)]).start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
    async with running(tmp_path, capture=False, relay_url=url, refusals_in_a_row=3) as (client, _):
        ends = []
        for _ in range(3):
            answer = await client.post("/send", json={**ARTICLE, "to": TO}, headers={"Prefer": "wait=10"})
            ends.append(answer.json()["status"])
        held = [(await client.post("/send", json={**ARTICLE, "to": TO})).json()["id"] for _ in range(5)]
        relay = (await client.get("/relays")).json()["data"][0]
        waiting = [(await client.get(f"/messages/{id}")).json()["recipients"][0] for id in held]
    assert ends == ["bounced"] * 3
    assert (relay["health"], relay["reason"]) == (
        "broken", "refuses-all: 3 messages in a row: 554 5.7.1 The mandate has lapsed, case",
    )  # fmt: skip
    assert [(each["status"], each["attempts"]) for each in waiting] == [("queued", 0)] * 5
    assert len(sink.received) == 3, "what came later was not even shown to it"
    await sink.stop()


async def at_rest(client: httpx.AsyncClient, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The recipients, once none is being sent: what was claimed as the relay broke is given back a moment later."""
    async with asyncio.timeout(20):
        for _ in itertools.count():
            views = [(await client.get(f"/messages/{id}")).json()["recipients"][0] for id in ids]
            if not any(each["status"] == "sending" for each in views):
                break
            await asyncio.sleep(0.01)
    return views


@pytest.mark.parametrize("phase", ["DOT", "RCPT"])
async def test_words_that_no_row_knows_end_no_more_than_the_row_and_what_is_under_way(
    phase: str, tmp_path: Path
) -> None:
    """docs/relays.md gives the bound: ten, and two for each connection."""
    addresses, words = [f"n{n}@example{n % 6}.com" for n in range(60)], "554 5.7.1 The mandate has lapsed"
    sink = Sink(replies=dict.fromkeys(addresses, words)) if phase == "RCPT" else Sink(data_replies=[words] * 60)
    await sink.start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow&max_connections=5"
    given: dict[str, Any] = {"relay_url": url, "recipient_limit": "off", "refusals_in_a_row": 10}
    async with running(tmp_path, capture=False, **given) as (client, service):
        messages = {"messages": [{**ARTICLE, "to": address} for address in addresses]}
        items = (await client.post("/send/batch", json=messages)).json()["results"]
        pool = service.relays.get("default")
        await until(lambda: pool.status(service.clock.now()).health is Health.BROKEN)
        views = await at_rest(client, [each["message"]["id"] for each in items])
    ended = [each["attempts"] for each in views if each["status"] == "bounced"]
    assert 10 <= len(ended) <= 10 + 2 * 5
    assert [each["status"] for each in views].count("queued") == 60 - len(ended), "the others wait"
    await sink.stop()


async def test_a_relay_that_puts_off_every_mail_costs_a_few_logins_and_the_queue_waits_for_it_uncharged(
    tmp_path: Path,
) -> None:
    async with Unwilling(SteppedClock(), "RIGHT") as relay:
        relay.words = b"451 4.3.0 Try again later"
        url = f"smtp://zouchengzhuo%40163.com:RIGHT@127.0.0.1:{relay.port}?plaintext=allow&max_connections=5"
        given: dict[str, Any] = {"relay_url": url, "recipient_limit": "off", "refusals_in_a_row": 10}
        async with running(tmp_path, capture=False, **given) as (client, service):
            messages = {"messages": [{**ARTICLE, "to": f"n{n}@example.com"} for n in range(100)]}
            items = (await client.post("/send/batch", json=messages)).json()["results"]
            pool = service.relays.get("default")
            await until(lambda: pool.status(service.clock.now()).health is Health.WAITING)
            assert service.dispatcher is not None
            await service.dispatcher.settle_all()
            shown = (await client.get("/relays")).json()["data"][0]
            views = [(await client.get(f"/messages/{each['message']['id']}")).json()["recipients"][0] for each in items]
    assert (shown["health"], shown["reason"]) == (
        "waiting", "no-message-taken: 10 messages in a row refused for now: 451 4.3.0 Try again later",
    )  # fmt: skip
    assert len(relay.logins) <= 5, "one for each connection"
    assert sum(each["attempts"] for each in views) == 9
