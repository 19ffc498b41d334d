"""The place that a pool keeps for mail of priority high when every connection is busy and has one waiting."""

import asyncio

from service.mail.quota import HIGH
from tests.support.relaying import CONTENT, MAIL, SENT, begin, codes, outgoing, pool_for
from tests.support.smtp_script import Peer, ScriptedServer


async def test_one_urgent_delivery_may_come_on_top_and_goes_next() -> None:
    reached, opened = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hello(b"SIZE")  # no PIPELINING: nothing is opened ahead
        for name in (b"first", b"urgent", b"normal"):
            for command in (MAIL, b"RCPT TO:<%s@b.example>\r\n" % name):
                await peer.expect(command)
                await peer.say(b"250 2.0.0 ok")
            await peer.expect(b"DATA\r\n")
            await peer.say(b"354 go")
            await peer.expect(CONTENT)
            reached.set()
            await opened.wait()
            await peer.say(b"250 2.0.0 taken")
        await peer.line()

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert not pool.spare(0), "a connection is free"
        waiting = [begin(pool, outgoing("first@b.example"))]
        await asyncio.wait_for(reached.wait(), 5)
        waiting.append(begin(pool, outgoing("normal@b.example")))
        assert (pool.free(0), pool.ahead(0), pool.spare(0)) == (0, 0, True)
        waiting.append(begin(pool, outgoing("urgent@b.example", priority=HIGH)))
        assert not pool.spare(0), "one is enough"
        opened.set()
        assert [codes(each) for each in await asyncio.wait_for(asyncio.gather(*waiting), 10)] == [SENT] * 3
        pool.hold("by hand")
        assert not pool.spare(0)
        await pool.close(0.2)
