"""An address that needs SMTPUTF8 is refused at the door when no relay takes it, also by a process that opens no session."""

import asyncio
import socket
from pathlib import Path

from tests.support.running import ARTICLE, running
from tests.support.sink import Sink

EAI = {**ARTICLE, "to": "用户@例子.example"}


async def test_an_api_process_refuses_what_a_sender_learnt_that_no_relay_takes(tmp_path: Path) -> None:
    sink = await Sink(smtputf8=False).start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
    given = {"capture": False, "relay_url": url}
    async with running(tmp_path, role="api", **given) as (client, api):
        assert (await client.post("/send?dry_run=true", json=EAI)).status_code == 200, "nothing is known yet"
        async with running(tmp_path, role="sender", **given) as (_, sender):
            await client.post("/send", json=ARTICLE)
            async with asyncio.timeout(10):
                await sink.arrived.wait()
            await sender._janitor.exchange_offers()
        await api._janitor.exchange_offers()
        answer = await client.post("/send", json=EAI)
        assert (answer.status_code, answer.json()["code"]) == (422, "no_relay_for_message")
        assert "SMTPUTF8" in answer.text
        assert (await client.post("/send?dry_run=true", json=ARTICLE)).status_code == 200
    async with running(tmp_path, role="api", **given) as (client, _):
        assert (await client.post("/send", json=EAI)).status_code == 422, "it is known from the start on"
    await sink.stop()


async def test_a_size_that_a_relay_announced_is_a_limit_for_all(tmp_path: Path) -> None:
    sink = await Sink(size_limit=20_000).start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
    large = {**ARTICLE, "text": "x" * 30_000}
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        assert (await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})).status_code == 200
        answer = await client.post("/send", json=large)
        assert (answer.status_code, answer.json()["code"]) == (422, "no_relay_for_message")
        assert "takes at most 20000 octets" in answer.text
    await sink.stop()


async def test_a_relay_out_of_reach_teaches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    url = f"smtp://u:p@127.0.0.1:{port}?plaintext=allow"
    async with running(tmp_path, capture=False, relay_url=url) as (client, service):
        assert (await client.post("/send", json=EAI)).status_code == 202
        assert service.relays.get("default").offer is None
