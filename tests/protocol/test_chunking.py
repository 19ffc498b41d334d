"""CHUNKING (RFC 3030): a small message to a session that was just heard of goes whole, in one write."""

import asyncio
from typing import Any

import pytest

from service.mail.outcome import Failure, Phase
from service.relay.pool import Pool
from service.relay.port import Outgoing
from service.settings import load
from tests.support.clock import SteppedClock
from tests.support.relaying import BODY, CONTENT, MAIL, begin, codes, envelope, outgoing, pool_for, run, send, take
from tests.support.smtp_script import Peer, ScriptedServer

OFFERED = (b"PIPELINING", b"SIZE 1000000", b"CHUNKING")


def whole(*names: str, content: bytes = BODY[0]) -> bytes:
    """The one write."""
    paths = b"".join(b"RCPT TO:<%s@b.example>\r\n" % name.encode() for name in names or ("a",))
    return MAIL + paths + b"BDAT %d LAST\r\n" % len(content) + content


TAKEN = (b"250 2.1.0 ok", b"250 2.1.5 ok", b"250 2.0.0 taken")


async def test_a_small_message_goes_in_one_write_and_one_round_trip() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())  # nothing was answered before all of it was here
        await peer.say(*TAKEN)
        await peer.expect(whole())
        await peer.say(*TAKEN, split=1)
        await peer.expect(b"QUIT\r\n")

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        for _ in range(2):
            report = await send(pool, outgoing())
            assert codes(report) == [(Phase.DOT, 250, None)]
            assert report.mail_started
            assert report.content_started
        await pool.close(1)


async def test_octets_of_a_chunk_are_counted_and_never_stuffed() -> None:
    content = b"Subject: x\r\n\r\n.\r\n..two\r\nno end"

    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        size = b"SIZE=%d" % len(content)
        await peer.expect(whole(content=content).replace(b"SIZE=21", size))
        await peer.say(*TAKEN)

    report, _ = await run(script, outgoing(content=(content[:20], content[20:])))
    assert codes(report) == [(Phase.DOT, 250, None)]


async def test_some_refused_recipients_leave_the_message_to_the_others() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole("a", "b", "c"))
        await peer.say(b"250 ok", b"250 ok", b"450 4.2.1 later", b"550 5.1.1 no such user", b"250 taken")

    report, _ = await run(script, outgoing("a@b.example", "b@b.example", "c@b.example"))
    assert codes(report) == [(Phase.DOT, 250, None), (Phase.RCPT, 450, None), (Phase.RCPT, 550, None)]


async def test_a_354_to_the_last_chunk_is_told_as_it_is_and_ends_the_session() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(b"250 ok", b"250 ok", b"354 go on")
        assert await peer.rest() == b"", "not even RSET"

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.DOT, 354, None)]
    assert report.content_started


@pytest.mark.parametrize(
    ("replies", "decided", "reset"),
    [
        ((b"550 5.7.1 not you", b"503 bad sequence", b"503 bad sequence"), (Phase.MAIL, 550), False),
        ((b"250 ok", b"550 5.1.1 no such user", b"554 no valid recipients"), (Phase.RCPT, 550), True),
        ((b"250 ok", b"250 ok", b"554 5.7.1 spam"), (Phase.DOT, 554), True),
        ((b"250 ok", b"250 ok", b"452 4.3.1 full"), (Phase.DOT, 452), True),
    ],
)
async def test_the_first_refusal_decides_and_the_session_goes_on(
    replies: tuple[bytes, ...], decided: tuple[Phase, int], reset: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(*replies)
        if reset:
            await peer.expect(b"RSET\r\n")
            await peer.say(b"250 ok")
        await peer.expect(whole())
        await peer.say(*TAKEN)

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        report = await send(pool, outgoing())
        assert codes(report) == [(*decided, None)]
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        await pool.close(0)


@pytest.mark.parametrize("answered", range(3))
async def test_a_connection_lost_under_a_chunk_is_in_doubt_for_whom_nothing_was_refused(answered: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(*TAKEN[:answered])
        peer.drop()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.DOT, None, Failure.LOST)]
    assert report.content_started


async def test_a_421_to_mail_says_that_nothing_was_taken() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(b"421 4.7.0 closing")
        peer.drop()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.MAIL, 421, None)]


async def test_a_relay_that_offers_bdat_and_does_not_know_it_gets_data_from_then_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(b"250 ok", b"250 ok", b"502 5.5.2 command not recognized")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await peer.expect(envelope())
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.expect(CONTENT)
        await peer.say(b"250 taken")

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 502, None)]
        assert not pool.learnt.chunking
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        await pool.close(0)


async def test_after_an_hour_chunks_are_tried_again_and_a_refusal_costs_no_message() -> None:
    async def refusing(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(b"250 ok", b"250 ok", b"502 5.5.2 command not recognized")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await take(peer)
        await peer.line()

    async def first_as_before(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await take(peer)
        await peer.expect(whole())
        await peer.say(b"250 ok", b"250 ok", b"502 5.5.2 command not recognized")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await take(peer)
        await peer.line()

    clock = SteppedClock()
    async with ScriptedServer(refusing, first_as_before) as server:
        pool = Pool(pool_for(server.port).config, load(), clock)
        refused, sent = [(Phase.DOT, 502, None)], [(Phase.DOT, 250, None)]
        assert [codes(await send(pool, outgoing())) for _ in range(2)] == [refused, sent]
        clock.step(3600)
        assert [codes(await send(pool, outgoing())) for _ in range(3)] == [sent, refused, sent]
        await pool.close(0)


async def test_a_relay_that_ends_used_sessions_without_a_word_gets_no_more_chunks() -> None:
    """What went whole by such a session is in doubt, where DATA's envelope would have cost nothing."""

    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(*TAKEN)
        await peer.expect(whole())
        peer.drop()

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, None, Failure.LOST)]
        assert not pool.learnt.chunking
        await pool.close(0)


async def _nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (outgoing(), "chunking=false"),
        (outgoing(), "pipelining=off"),
        (outgoing(on_content=_nothing), ""),  # something must be durable before the content
        (outgoing(content=(b"Subject: x\r\n\r\n" + b"x" * 64 + b"\r\n",) * 1000), ""),
    ],
)
async def test_otherwise_data_is_used(message: Outgoing, options: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.line()
        for reply in (b"250 ok", b"250 ok"):
            await peer.say(reply)
            line = await peer.line()
        assert line == b"DATA\r\n"
        await peer.say(b"354 go")
        await peer.content()
        await peer.say(b"250 taken")

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port, f"max_connections=1&{options}")
        assert codes(await send(pool, message)) == [(Phase.DOT, 250, None)]
        await pool.close(0)


async def test_a_session_that_was_silent_for_long_gets_data_since_a_lost_chunk_would_be_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        await peer.say(*TAKEN)
        await peer.expect(envelope())
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.expect(CONTENT)
        await peer.say(b"250 taken")

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        await send(pool, outgoing())
        monkeypatch.setattr("service.relay.slot._STILL_OPEN", 0.0)
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        await pool.close(0)


async def test_a_lost_lease_keeps_all_of_it_from_the_wire() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        assert await peer.rest() == b""

    report, _ = await run(script, outgoing(may_proceed=lambda: False))
    assert not report.mail_started
    assert not report.content_started
    assert codes(report)[0][2] is Failure.SHUTDOWN


async def test_what_waits_ahead_still_goes_with_the_content_before_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(whole())
        held.set()
        await go.wait()
        await peer.say(*TAKEN)
        for _ in range(2):
            await peer.expect(whole())
            await peer.say(*TAKEN)

    held, go = asyncio.Event(), asyncio.Event()
    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        reports: list[Any] = [begin(pool, outgoing())]
        await held.wait()
        reports += [begin(pool, outgoing()), begin(pool, outgoing())]
        go.set()
        for report in reports:
            assert codes(await asyncio.wait_for(report, 5)) == [(Phase.DOT, 250, None)]
        await pool.close(0)
