"""DKIM through the whole service: what arrives verifies, a retry is the same message, a rotation happens in its time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from service.app import Service
from service.clock import SYSTEM
from service.mail.dkim_keys import DkimKey, generate
from service.spool.signing import load_ring
from tests.support.dkim_verifiers import by_dkimpy
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE, running
from tests.support.sink import Sink

SECOND = '[domains."163.com"]\nkeys = [{ selector = "e2", file = "ed.pem" }]\n'


@pytest.fixture
def dkim_file(tmp_path: Path) -> Path:
    (tmp_path / "rsa.pem").write_bytes(generate("rsa"))
    (tmp_path / "ed.pem").write_bytes(generate("ed25519"))
    file = tmp_path / "dkim.toml"
    file.write_text(
        '[domains."163.com"]\nkeys = [{ selector = "r1", file = "rsa.pem" }, { selector = "e1", file = "ed.pem" }]\n'
    )
    return file


def end_first_key(file: Path, until: datetime) -> None:
    file.write_text(file.read_text().replace('file = "rsa.pem"', f'file = "rsa.pem", until = {until.isoformat()}'))


def keys_of(file: Path) -> tuple[DkimKey, ...]:
    return load_ring(file).keys


@contextlib.asynccontextmanager
async def sending(folder: Path, sink: Sink, **settings: object) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    await sink.start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
    async with running(folder, capture=False, relay_url=url, **settings) as (client, service):
        yield client, service
    await sink.stop()


async def test_what_arrives_verifies_and_the_log_names_the_keys(tmp_path: Path, dkim_file: Path) -> None:
    sink = Sink()
    async with sending(tmp_path, sink, dkim_file=dkim_file) as (client, _):
        preview = (await client.post("/send?dry_run=true", json=ARTICLE)).json()
        names = ["r1._domainkey.163.com (rsa-sha256)", "e1._domainkey.163.com (ed25519-sha256)"]
        assert preview["relays"][0]["dkim"] == names
        answer = (await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})).json()
        log = (await client.get(f"/messages/{answer['id']}/events")).json()["data"]
    assert by_dkimpy(sink.received[0].content, keys_of(dkim_file)) == ["pass", "pass"]
    assert [each["data"]["dkim"] for each in log if "dkim" in each["data"]] == [names]


async def test_a_message_of_a_megabyte_is_signed_too(tmp_path: Path, dkim_file: Path) -> None:
    sink = Sink()
    file = {"filename": "big.txt", "text": "0123456789abcdef  \n" * 100_000}
    async with sending(tmp_path, sink, dkim_file=dkim_file) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "attachments": [file]}, headers={"Prefer": "wait=20"})
        assert answer.json()["status"] == "sent", answer.text
    assert by_dkimpy(sink.received[0].content, keys_of(dkim_file)) == ["pass", "pass"]


async def test_every_attempt_carries_the_same_bytes(tmp_path: Path, dkim_file: Path) -> None:
    """The keys are those of the message's date: one that has ended by the time of the second attempt signs it too."""
    sink = Sink(data_replies=["451 4.3.0 later", "250 2.0.0 taken"])
    until = datetime.now(UTC) + timedelta(seconds=1)
    await asyncio.to_thread(end_first_key, dkim_file, until)
    async with sending(tmp_path, sink, dkim_file=dkim_file, retry_schedule="2.5") as (client, service):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=20"})
        assert answer.json()["status"] == "sent", answer.text
        assert len(service.signing.ring.for_sender("a@163.com", SYSTEM.now())) == 1, "the first key has ended"
    first, second = (each.content for each in sink.received)
    assert first == second
    assert by_dkimpy(first, keys_of(dkim_file)) == ["pass", "pass"]


async def test_sighup_brings_new_keys_and_a_broken_file_changes_nothing(tmp_path: Path, dkim_file: Path) -> None:
    sink = await Sink().start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
    with await asyncio.to_thread(ServiceProcess, tmp_path, url, dkim_file=dkim_file) as service:
        async with httpx.AsyncClient(base_url=service.url) as client:

            async def send() -> list[str]:
                answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
                assert answer.json()["status"] == "sent"
                return by_dkimpy(sink.received[-1].content, keys)

            def rewritten(text: str, event: str) -> None:
                dkim_file.write_text(text)
                service.reload(event)

            keys = keys_of(dkim_file)
            assert await send() == ["pass", "pass"]
            await asyncio.to_thread(rewritten, "broken =", "dkim.refused")
            assert await send() == ["pass", "pass"]
            await asyncio.to_thread(rewritten, SECOND, "dkim.reloaded")
            keys = keys_of(dkim_file)
            assert await send() == ["pass"]
        assert "PRIVATE" not in str(service.lines)
    await sink.stop()


async def test_another_sender_never_follows_a_copy_that_may_be_out(tmp_path: Path) -> None:
    """In doubt under one sender rule; then the relay's rule changes: the message is parked, not sent with another From."""
    sink = await Sink(data_replies=["drop"]).start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{sink.port}?plaintext=allow"
    mail = {**ARTICLE, "from": "other@163.com"}
    settings = {"in_doubt_delay": "1s", "capture": False}
    async with running(tmp_path, relay_url=url, **settings) as (client, _):
        answer = (await client.post("/send", json=mail)).json()
        async with asyncio.timeout(10):
            await sink.arrived.wait()
    strict = f"{url}&sender_must_equal_login=true&rewrite_from=true"
    async with running(tmp_path, relay_url=strict, **settings) as (_, service):
        view = await service.messages.wait("default", answer["id"], 10)
    assert [(each.state.value, each.last_kind) for each in view.recipients] == [("unknown", "sealed-differently")]
    assert len(sink.received) == 1
    await sink.stop()


async def test_a_wrong_key_file_stops_the_start_with_a_sentence(tmp_path: Path, dkim_file: Path) -> None:
    (tmp_path / "rsa.pem").write_text("nonsense")
    with pytest.raises(Exception, match=r"domains\.163\.com: keys\[0\]: file: rsa\.pem: is no private key"):
        async with running(tmp_path, dkim_file=dkim_file):
            pass
