"""Sessions that the relay has closed while nobody used them: they are no connections, and count for nothing."""

import asyncio

from tests.support.relaying import PIPELINED, SENT, begin, codes, outgoing, pool_for, send, take
from tests.support.smtp_script import Peer, ScriptedServer
from tests.support.waiting import until


async def test_a_session_that_the_relay_closed_is_no_connection_any_more_and_the_one_that_is_open_is_used() -> None:
    async def closes_after_two(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await take(peer)
        peer.drop()

    async with ScriptedServer(closes_after_two, closes_after_two) as server:
        pool = pool_for(server.port, "max_connections=2")
        reports = await asyncio.wait_for(asyncio.gather(*(begin(pool, outgoing()) for _ in range(2))), 10)
        assert [codes(each) for each in reports] == [SENT, SENT]
        assert pool.status(0).connections == 2
        for left in (1, 0):
            assert codes(await send(pool, outgoing())) == SENT
            await until(lambda left=left: pool.status(0).connections == left)
        assert len(server.peers) == 2, "the one that was used last had been closed, so the other one was used"
        await pool.close(0)


async def test_what_waits_for_a_login_is_offered_to_no_session_that_the_relay_closed() -> None:
    """While the secret is not proven, one connection logs in, and only sessions that are open are offered beside it."""

    async def closes(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await over.wait()
        peer.drop()

    over = asyncio.Event()
    async with ScriptedServer(closes, closes) as server:
        pool = pool_for(server.port, "max_connections=5")
        await asyncio.wait_for(asyncio.gather(*(begin(pool, outgoing()) for _ in range(2))), 10)
        pool._condition.proven = lambda: False  # type: ignore[method-assign]
        assert pool.free(0) == 3, "two that are open, and one that may log in"
        over.set()
        await until(lambda: pool.free(0) == 1)
        await pool.close(0)
