"""What a provider does not take: another relay carries it, from the acceptance to the delivery, or the request learns why."""

import base64
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.support.running import ARTICLE, running
from tests.support.sink import Sink
from tests.support.waiting import until_sent

EXE = [{"filename": "setup.exe", "content": base64.b64encode(b"MZ").decode()}]


def relays(folder: Path, **tables: dict[str, Any]) -> Path:
    """The relays file with these."""
    lines = []
    for name, values in tables.items():
        lines += [f"[relays.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    (folder / "relays.toml").write_text("\n".join(lines))
    return folder / "relays.toml"


async def sinks(*users: str) -> list[Sink]:
    return [await Sink(user=user).start() for user in users]


def by(sink: Sink, **values: Any) -> dict[str, Any]:
    user = sink.user.replace("@", "%40")
    return {"url": f"smtp://{user}:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow", **values}


async def sent(client: httpx.AsyncClient, **fields: Any) -> str:
    """The relay that a message went by."""
    answer = await client.post("/send", json={**ARTICLE, **fields}, headers={"Prefer": "wait=20"})
    assert answer.json().get("status") == "sent", answer.text
    return str(answer.json()["recipients"][0]["relay"])


async def test_what_one_provider_refuses_goes_by_another_and_never_by_that_one(tmp_path: Path) -> None:
    first, second = await sinks("me@one.example", "me@two.example")
    strict = by(
        first,
        preset="tencentses",
        sender_must_equal_login=False,
        forbidden_extensions=[".exe"],
        quotas=[],
        max_bytes=100_000,
    )
    file = relays(tmp_path, strict=strict, other=by(second, priority=2))
    async with running(tmp_path, capture=False, relays_file=file) as (client, _):
        assert await sent(client) == "strict"
        for fields in (
            {"cc": "ada@example.org"},
            {"bcc": "ada@example.org"},
            {"attachments": EXE},
            {
                "html": '<img src="cid:a" alt="a">',
                "attachments": [{"filename": "a.png", "content": "iVBORw0K", "content_id": "a"}],
            },
            {"text": "a line of words\n" * 10_000},
        ):
            assert await sent(client, **fields) == "other", fields
    assert (len(first.received), len(second.received)) == (1, 5)
    await first.stop()
    await second.stop()


async def test_a_request_that_no_relay_takes_learns_each_relays_reason_at_the_field(tmp_path: Path) -> None:
    first, second = await sinks("me@one.example", "me@two.example")
    file = relays(tmp_path, one=by(first, cc=False), two=by(second, forbidden_extensions=[".exe"], priority=2))
    async with running(tmp_path, capture=False, role="api", relays_file=file) as (client, _):
        for body, refused in (
            (ARTICLE, []),
            ({**ARTICLE, "cc": "ada@example.org"}, ["one"]),
            ({**ARTICLE, "attachments": EXE}, ["two"]),
        ):
            preview = (await client.post("/send?dry_run=true", json=body)).json()
            assert [each["name"] for each in preview["refusals"]] == refused
            assert sorted(each["name"] for each in preview["relays"]) == sorted({"one", "two"} - set(refused))
        both = {**ARTICLE, "cc": "ada@example.org", "attachments": EXE}
        answer = await client.post("/send", json=both)
        assert (answer.status_code, answer.json()["code"]) == (422, "no_relay_for_message")
        assert [(each["pointer"], each["code"], each["detail"]) for each in answer.json()["errors"]] == [
            ("#/cc", "cc_not_taken", "relay one takes no Cc"),
            ("#/attachments/0/filename", "forbidden_attachment", "relay two takes no .exe files"),
        ]
        pinned = await client.post("/send", json={**ARTICLE, "cc": "ada@example.org", "relay": "one"})
        assert [each["pointer"] for each in pinned.json()["errors"]] == ["#/cc"]
        batch = await client.post("/send/batch", json={"messages": [ARTICLE, both]})
        assert [each["pointer"] for each in batch.json()["errors"]] == [
            "#/messages/1/cc",
            "#/messages/1/attachments/0/filename",
        ]
    await first.stop()
    await second.stop()


async def test_a_relay_that_is_added_while_mail_waits_gets_only_what_it_takes(tmp_path: Path) -> None:
    first, second = await sinks("me@one.example", "me@two.example")
    file = relays(tmp_path, one=by(first))
    async with running(tmp_path, capture=False, relays_file=file, relays_refresh=0.1) as (client, service):
        await client.post("/relays/one/pause")
        copied = (await client.post("/send", json={**ARTICLE, "cc": "ada@example.org"})).json()["id"]
        program = (await client.post("/send", json={**ARTICLE, "attachments": EXE})).json()["id"]
        plain = (await client.post("/send", json=ARTICLE)).json()["id"]
        strict = by(second, cc=False, preset="gmail", auth=["PLAIN", "LOGIN"], quotas=[], priority=0)
        relays(tmp_path, one=by(first), two=strict)
        await until_sent(client, plain)
        assert service.relays.names() == ("two", "one")
        for id in (copied, program):
            held = (await client.get(f"/messages/{id}")).json()["recipients"][0]["held_by"]
            assert (held["reason"], held["relay"]) == ("relay", "one")
        await client.post("/relays/one/resume")
        for id in (copied, program):
            await until_sent(client, id)
    assert (len(first.received), len(second.received)) == (2, 1)
    await first.stop()
    await second.stop()


async def test_more_recipients_than_a_transaction_takes_go_in_several_each_once(tmp_path: Path) -> None:
    (sink,) = await sinks("me@one.example")
    people = [f"reader-{number}@example.org" for number in range(7)]
    for quotas in ([], ["100/m", "1000/d recipients"]):
        file = relays(tmp_path, one=by(sink, max_recipients=3, quotas=quotas))
        async with running(tmp_path, capture=False, relays_file=file) as (client, _):
            sink.received.clear()
            await sent(client, to=people)
            assert sorted(len(each.rcpt_tos) for each in sink.received) == [1, 3, 3]
            assert sorted(itertools.chain(*(each.rcpt_tos for each in sink.received))) == people
            assert len({each.content for each in sink.received}) == 1, "each part shows all of them in To"
    await sink.stop()


async def test_a_sender_keeps_to_one_relay_under_load_and_changes_only_while_that_is_shut(tmp_path: Path) -> None:
    """One connection each: mail waits for its own relay although the other one is idle."""
    first, second = await sinks("me@one.example", "me@two.example")
    one, two = (by(sink, sticky=True, max_connections=1) for sink in (first, second))
    async with running(
        tmp_path, capture=False, relays_file=relays(tmp_path, one=one, two=two), recipient_limit="off"
    ) as (client, _):
        senders = [f"sender-{number}@example.com" for number in range(6)]
        bodies = [{**ARTICLE, "from": sender} for sender in senders * 8]
        await deliver(client, bodies)
        at = {sink.user: Counter(each.mail_from for each in sink.received) for sink in (first, second)}
        assert sum((at[first.user] + at[second.user]).values()) == len(bodies)
        assert not set(at[first.user]) & set(at[second.user]), "no sender was seen at both"
        assert at[first.user], "and both have some"
        assert at[second.user]
        counts = len(first.received), len(second.received)
        await deliver(client, [{**ARTICLE, "from": senders[0]}] * 20)
        assert counts[0] == len(first.received) or counts[1] == len(second.received), "the idle one helps nobody"
        await client.post("/relays/one/pause")
        before = len(second.received)
        await deliver(client, bodies[:6])
        assert len(second.received) == before + 6, "all go by the relay that is left"
        await client.post("/relays/one/resume")
        count = len(first.received)
        await deliver(client, bodies[:6])
        assert len(first.received) == count + len(at[first.user]), "and back to their own"
    await first.stop()
    await second.stop()


async def deliver(client: httpx.AsyncClient, bodies: list[dict[str, Any]]) -> None:
    answer = await client.post("/send/batch", json={"messages": bodies})
    assert answer.status_code == 202, answer.text
    for result in answer.json()["results"]:
        await until_sent(client, result["message"]["id"])
