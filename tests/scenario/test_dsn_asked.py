"""Delivery status notifications: what a request asks for reaches the relay's wire, and what makes no sense is refused."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.running import running
from tests.support.smtp_script import Peer, ScriptedServer

ASKED = {"from": "me@example.com", "to": "a@b.example", "subject": "x", "text": "hello"}


@pytest.mark.parametrize(
    ("dsn", "mail", "rcpt"),
    [
        ({"notify": ["failure", "delay"], "return": "headers"}, b" RET=HDRS", b" NOTIFY=FAILURE,DELAY"),
        ({"notify": "never"}, b"", b" NOTIFY=NEVER"),
        ({"return": "full"}, b" RET=FULL", b""),
    ],
)
async def test_what_is_asked_for_is_said_with_the_messages_id(
    tmp_path: Path, dsn: dict[str, Any], mail: bytes, rcpt: bytes
) -> None:
    lines: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.hello(b"DSN")
        for reply in (b"250 ok", b"250 ok", b"354 go"):
            lines.append(await peer.line())
            await peer.say(reply)
        await peer.content()
        await peer.say(b"250 taken")
        await peer.rest()

    async with ScriptedServer(script) as server:
        url = f"smtp://127.0.0.1:{server.port}?plaintext=allow"
        async with running(tmp_path, capture=False, relay_url=url) as (client, _):
            answer = await client.post("/send", json={**ASKED, "dsn": dsn}, headers={"Prefer": "wait=10"})
            assert answer.json()["status"] == "sent", answer.text
    id = answer.json()["id"].encode()
    assert lines[0] == b"MAIL FROM:<me@example.com>" + mail + b" ENVID=" + id + b"\r\n"
    assert lines[1] == b"RCPT TO:<a@b.example>" + rcpt + b" ORCPT=rfc822;a@b.example\r\n"


@pytest.mark.parametrize(
    ("dsn", "pointer"),
    [
        ({"notify": ["never", "failure"]}, "#/dsn/notify"),
        ({"notify": ["always"]}, "#/dsn/notify/0"),
        ({"return": "body"}, "#/dsn/return"),
        ({"envid": "x"}, "#/dsn/envid"),
    ],
)
async def test_what_makes_no_sense_is_refused_where_it_stands(
    tmp_path: Path, dsn: dict[str, Any], pointer: str
) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send", json={**ASKED, "dsn": dsn})
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
