"""Warm connections: open and logged in before there is mail, kept by NOOP, opened again when they end."""

import asyncio
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.relay.config import relay_from
from service.relay.pool import Pool
from tests.support.relaying import PIPELINED, SENT, codes, outgoing, pool_for, send, take
from tests.support.running import running
from tests.support.smtp_script import Peer, ScriptedServer
from tests.support.waiting import until

WARM = "max_connections=2&warm_connections=1"


def connections(pool: Pool) -> int:
    return pool.status(0).connections


async def test_a_session_is_open_before_there_is_mail_and_carries_the_first() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await peer.rest()

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port, WARM)
        pool.keep_warm()
        pool.keep_warm()  # one is under way
        await until(lambda: connections(pool) == 1)
        report = await send(pool, outgoing())
        assert codes(report) == SENT
        assert len(server.peers) == 1
        await pool.close(0)


async def test_it_is_kept_by_noop_where_others_get_quit() -> None:
    async def kept(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        for _ in range(2):
            await peer.expect(b"NOOP\r\n")
            await peer.say(b"250 ok")
        noops.set()
        await peer.rest()

    async def not_kept(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await peer.expect(b"QUIT\r\n")
        quits.set()

    noops, quits = asyncio.Event(), asyncio.Event()
    async with ScriptedServer(kept) as server:
        pool = pool_for(server.port, WARM, idle_timeout=0.05)
        pool.keep_warm()
        await asyncio.wait_for(noops.wait(), 5)
        await pool.close(0)
    async with ScriptedServer(not_kept) as server:
        pool = pool_for(server.port, "max_connections=2", idle_timeout=0.05)
        pool.keep_warm()
        await send(pool, outgoing())
        await asyncio.wait_for(quits.wait(), 5)
        await pool.close(0)


@pytest.mark.parametrize("answer", [b"421 4.4.2 idle", b""])
async def test_one_that_the_relay_ended_is_opened_again(answer: bytes) -> None:
    async def ended(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        if answer:
            await peer.expect(b"NOOP\r\n")
            await peer.say(answer)
        else:
            await is_open.wait()
        peer.drop()

    async def fresh(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await peer.rest()

    is_open = asyncio.Event()
    async with ScriptedServer(ended, fresh) as server:
        pool = pool_for(server.port, WARM, idle_timeout=0.05 if answer else 60)
        pool.keep_warm()
        await until(lambda: connections(pool) == 1)
        is_open.set()

        def second() -> bool:
            pool.keep_warm()
            return len(server.peers) == 2

        await until(second)
        await until(lambda: any(slot.ready for slot in pool._slots))
        assert codes(await send(pool, outgoing())) == SENT
        assert len(server.peers) == 2
        await pool.close(0)


async def test_a_paused_relay_is_not_kept_warm() -> None:
    async with ScriptedServer() as server:
        pool = pool_for(server.port, WARM)
        await pool.hold("for now")
        pool.keep_warm()
        assert not pool._slots
        await pool.close(0)
        assert not server.peers


async def test_a_login_that_fails_breaks_the_relay_as_with_mail() -> None:
    async def refuses(peer: Peer) -> None:
        await peer.say(b"554 5.7.1 no")
        await peer.rest()

    async with ScriptedServer(refuses) as server:
        pool = pool_for(server.port, WARM)
        pool.keep_warm()
        await until(lambda: pool.status(0).health != "open")
        assert pool.free(0) == 0
        await pool.close(0)
        assert len(server.peers) == 1


def test_more_warm_connections_than_connections_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="warm_connections: must not be more than max_connections"):
        relay_from("r", {"url": "smtps://a:b@h.example", "max_connections": 1, "warm_connections": 2}, "test")


async def test_the_service_opens_them_by_itself(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        there.set()
        await peer.rest()

    there = asyncio.Event()
    async with ScriptedServer(script) as server:
        url = f"smtp://127.0.0.1:{server.port}?plaintext=allow&{WARM}"
        async with running(tmp_path, capture=False, relay_url=url):
            await asyncio.wait_for(there.wait(), 10)
