"""CHUNKING (RFC 3030): once a session has taken one octet as a chunk, a small message goes whole, in one write."""

import asyncio
from typing import Any

import pytest

from service.mail.outcome import Failure, Phase
from service.relay.pool import Pool
from service.relay.port import Outgoing
from service.settings import load
from tests.support.clock import SteppedClock
from tests.support.relaying import (
    BODY,
    MAIL,
    OPENED,
    SENT,
    begin,
    codes,
    envelope,
    outgoing,
    pool_for,
    run,
    send,
    take,
)
from tests.support.smtp_script import Peer, Script, ScriptedServer

OFFERED = (b"PIPELINING", b"SIZE 1000000", b"CHUNKING")
TAKEN = (b"250 2.1.0 ok", b"250 2.1.5 ok", b"250 2.0.0 taken")
SERVED = (b"250 2.1.0 ok", b"250 2.1.5 ok", b"250 2.0.0 1 octet")
CHUNK = b"BDAT %d LAST\r\n" % (len(BODY[0]) - 1) + BODY[0][1:]
UNKNOWN = b"502 5.5.2 command not recognized"


def trial(*names: str) -> bytes:
    """The first write for a message on a session that was not seen to know BDAT."""
    return envelope(*names).replace(b"DATA\r\n", b"BDAT 1\r\nS")


def whole(*names: str, content: bytes = BODY[0]) -> bytes:
    """The one write."""
    paths = b"".join(b"RCPT TO:<%s@b.example>\r\n" % name.encode() for name in names or ("a",))
    return MAIL + paths + b"BDAT %d LAST\r\n" % len(content) + content


async def show(peer: Peer) -> None:
    """Serve the session's first message: the first octet as a chunk, and the rest when that was answered."""
    await peer.hello(*OFFERED)
    await serve(peer)


async def serve(peer: Peer) -> None:
    """The same after the greeting."""
    await peer.expect(trial())
    await peer.say(*SERVED)
    await peer.expect(CHUNK)
    await peer.say(b"250 2.0.0 taken")


async def after_one(script: Script, message: Outgoing, *more: Outgoing) -> tuple[list[Any], Pool]:
    """What becomes of messages on a session that has carried one, with the exact bytes of `script`."""

    async def shown(peer: Peer) -> None:
        await show(peer)
        await script(peer)

    async with ScriptedServer(shown) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == SENT
        reports = [await send(pool, each) for each in (message, *more)]
        await pool.close(0)
    return reports, pool


# --- the first message of a session ------------------------------------------------------------------------------------


async def test_the_first_content_waits_for_its_first_octet_and_from_then_on_a_message_goes_in_one_write() -> None:
    async def script(peer: Peer) -> None:
        await show(peer)
        await peer.expect(whole())  # nothing was answered before all of it was here
        await peer.say(*TAKEN)
        await peer.expect(whole())
        await peer.say(*TAKEN, split=1)
        await peer.expect(b"QUIT\r\n")

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        for _ in range(3):
            report = await send(pool, outgoing())
            assert codes(report) == SENT
            assert report.mail_started
            assert report.content_started
        await pool.close(1)


async def test_each_session_shows_for_itself_that_it_knows_bdat() -> None:
    async with ScriptedServer(show, show) as server:
        pool = pool_for(server.port, "max_connections=1&max_messages_per_connection=1")
        assert [codes(await send(pool, outgoing())) for _ in range(2)] == [SENT, SENT]
        await pool.close(0)


@pytest.mark.parametrize("octet_is_read", [True, False])
@pytest.mark.parametrize("refusal", [UNKNOWN, b"500 what", b"550 5.7.1 no chunks here"])
async def test_a_relay_that_does_not_know_bdat_is_never_shown_content_as_commands(
    refusal: bytes, octet_is_read: bool
) -> None:
    """The message goes by DATA on the same session, to the recipients that were accepted, and so does what follows."""
    content = b"Subject: xy\r\n\r\nDATA\r\n"

    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial("a", "b"))
        await peer.say(b"250 ok", b"550 5.1.1 no such user", b"250 ok", refusal)
        await peer.expect(b"RSET\r\n")
        if octet_is_read:  # as the beginning of a line: SRSET
            await peer.say(UNKNOWN)
            await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await peer.expect(envelope("b"))
        await peer.say(*OPENED)
        await peer.expect(content + b".\r\n")
        await peer.say(b"250 taken")
        await take(peer)
        await peer.expect(b"QUIT\r\n")

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing("a@b.example", "b@b.example", content=(content,)))) == [
            (Phase.RCPT, 550, None),
            *SENT,
        ]
        assert not pool.learnt.chunking
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(1)


async def test_what_data_is_answered_after_a_refused_first_octet_decides() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(b"250 ok", b"250 ok", b"554 5.7.1 not you")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await peer.expect(envelope())
        await peer.say(b"250 ok", b"250 ok", b"554 5.7.1 not you either")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await take(peer)

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        report = await send(pool, outgoing())
        assert codes(report) == [(Phase.DATA, 554, None)]
        assert not report.content_started
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(0)


@pytest.mark.parametrize(
    ("answers", "decided", "learnt"),
    [
        ((b"421 4.7.0 closing",), (Phase.MAIL, 421, None), False),
        ((b"250 ok", b"421 4.7.0 closing"), (Phase.RCPT, 421, None), False),
        ((b"250 ok", b"250 ok", b"421 4.7.0 closing"), (Phase.DATA, 421, None), True),
        ((), (Phase.MAIL, None, Failure.LOST), False),
        ((b"250 ok",), (Phase.RCPT, None, Failure.LOST), False),
        ((b"250 ok", b"250 ok"), (Phase.DATA, None, Failure.LOST), True),
        ((b"250 ok", b"250 ok", b"354 go"), (Phase.DATA, None, Failure.PROTOCOL), True),
    ],
)
async def test_a_session_that_ends_before_its_first_content_leaves_nothing_in_doubt(
    answers: tuple[bytes, ...], decided: tuple[Phase, int | None, Failure | None], learnt: bool
) -> None:
    """Whoever ends it over the first octet gets DATA next time; not to learn it might hold a message up for ever."""

    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(*answers)
        if not answers or answers[-1].startswith(b"2"):
            peer.drop()
        assert await peer.rest() == b""

    async def next_one(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await (take(peer) if learnt else serve(peer))

    async with ScriptedServer(script, next_one) as server:
        pool = pool_for(server.port)
        report = await send(pool, outgoing())
        assert codes(report) == [decided]
        assert not report.content_started
        assert pool.learnt.chunking is not learnt
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(0)


async def test_a_session_that_ends_over_the_rset_after_a_refused_chunk_costs_a_reused_one_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(MAIL)
        await peer.line()
        await peer.expect(b"DATA\r\n")
        await peer.say(*OPENED)
        await peer.content()
        await peer.say(b"250 taken")
        await peer.expect(trial())
        await peer.say(b"250 ok", b"250 ok", UNKNOWN)
        for _ in range(2):
            await peer.expect(b"RSET\r\n")
            await peer.say(b"500 what")
        assert await peer.rest() == b""

    async def fresh(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await take(peer)

    async with ScriptedServer(script, fresh) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing(at_most_once=True))) == SENT
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(0)


async def test_a_passing_refusal_of_the_first_octet_decides_and_the_next_message_goes_by_data() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(b"250 ok", b"250 ok", b"451 4.3.0 later")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await take(peer)

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.DATA, 451, None)]
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(0)


async def test_when_nobody_is_accepted_the_first_octet_shows_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(b"250 ok", b"550 5.1.1 no such user", b"554 no valid recipients")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await peer.expect(trial())
        await peer.say(b"550 5.7.1 not you", b"503 bad sequence", b"503 bad sequence")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await peer.expect(trial())
        await peer.say(*SERVED)
        await peer.expect(CHUNK)
        await peer.say(b"250 taken")

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.RCPT, 550, None)]
        assert codes(await send(pool, outgoing())) == [(Phase.MAIL, 550, None)]
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(0)


@pytest.mark.parametrize("refusal", [b"554 5.7.1 spam", b"452 4.3.1 full"])
async def test_a_first_content_that_is_refused_leaves_the_session_and_what_it_has_shown(refusal: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(*SERVED)
        await peer.expect(CHUNK)
        await peer.say(refusal)
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await peer.expect(whole())
        await peer.say(*TAKEN)

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, int(refusal[:3]), None)]
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(0)


@pytest.mark.parametrize("answer", [b"421 4.7.0 closing", b""])
async def test_a_session_that_ends_under_its_first_chunk(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(*SERVED)
        await peer.expect(CHUNK)
        await peer.say(*filter(None, [answer]))
        if not answer:
            peer.drop()
        assert await peer.rest() == b""

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.DOT, 421, None) if answer else (Phase.DOT, None, Failure.LOST)]
    assert report.content_started


async def test_a_chunk_that_is_not_known_after_the_first_octet_was_taken_ends_the_session_and_data_is_used() -> None:
    """What came with the command may be read as commands now, so nothing more is said on that session."""

    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(*SERVED)
        await peer.expect(CHUNK)
        await peer.say(UNKNOWN)
        assert await peer.rest() == b""

    async def fresh(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await take(peer)

    async with ScriptedServer(script, fresh) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 502, None)]
        assert not pool.learnt.chunking
        assert codes(await send(pool, outgoing())) == SENT
        await pool.close(0)


async def test_octets_of_a_chunk_are_counted_and_never_stuffed() -> None:
    content = b"Subject: x\r\n\r\n.\r\n..two\r\nno end"
    size = b"SIZE=%d" % len(content)

    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial().replace(b"SIZE=21", size))
        await peer.say(*SERVED)
        await peer.expect(b"BDAT %d LAST\r\n" % (len(content) - 1) + content[1:])
        await peer.say(b"250 taken")
        await peer.expect(whole(content=content).replace(b"SIZE=21", size))
        await peer.say(*TAKEN)

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        for _ in range(2):
            assert codes(await send(pool, outgoing(content=(content[:20], content[20:])))) == SENT
        await pool.close(0)


# --- a session on which BDAT was seen ----------------------------------------------------------------------------------


async def test_some_refused_recipients_leave_the_message_to_the_others() -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(whole("a", "b", "c"))
        await peer.say(b"250 ok", b"250 ok", b"450 4.2.1 later", b"550 5.1.1 no such user", b"250 taken")

    reports, _ = await after_one(script, outgoing("a@b.example", "b@b.example", "c@b.example"))
    assert codes(reports[0]) == [*SENT, (Phase.RCPT, 450, None), (Phase.RCPT, 550, None)]


@pytest.mark.parametrize("first", [True, False])
async def test_a_354_to_the_last_chunk_is_told_as_it_is_and_ends_the_session(first: bool) -> None:
    async def script(peer: Peer) -> None:
        if first:
            await peer.hello(*OFFERED)
            await peer.expect(trial())
            await peer.say(*SERVED)
            await peer.expect(CHUNK)
            await peer.say(b"354 go on")
        else:
            await peer.expect(whole())
            await peer.say(b"250 ok", b"250 ok", b"354 go on")
        assert await peer.rest() == b"", "not even RSET"

    report = (await run(script, outgoing()))[0] if first else (await after_one(script, outgoing()))[0][0]
    assert codes(report) == [(Phase.DOT, 354, None)]
    assert report.content_started


@pytest.mark.parametrize(
    ("replies", "decided", "reset"),
    [
        ((b"550 5.7.1 not you", b"503 bad sequence", b"503 bad sequence"), (Phase.MAIL, 550), False),
        ((b"250 ok", b"550 5.1.1 no such user", b"554 no valid recipients"), (Phase.RCPT, 550), True),
        ((b"250 ok", b"550 5.1.1 no such user", b"503 no valid recipients"), (Phase.RCPT, 550), True),
        ((b"250 ok", b"250 ok", b"554 5.7.1 spam"), (Phase.DOT, 554), True),
        ((b"250 ok", b"250 ok", b"452 4.3.1 full"), (Phase.DOT, 452), True),
    ],
)
async def test_the_first_refusal_decides_and_the_session_goes_on(
    replies: tuple[bytes, ...], decided: tuple[Phase, int], reset: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(whole())
        await peer.say(*replies)
        if reset:
            await peer.expect(b"RSET\r\n")
            await peer.say(b"250 ok")
        await peer.expect(whole())
        await peer.say(*TAKEN)

    reports, _ = await after_one(script, outgoing(), outgoing())
    assert [codes(each) for each in reports] == [[(*decided, None)], SENT]


@pytest.mark.parametrize("answered", range(3))
async def test_a_connection_lost_under_a_chunk_is_in_doubt_and_the_relay_gets_no_more_chunks(answered: int) -> None:
    """What went whole by such a session is in doubt, where DATA's envelope would have cost nothing."""

    async def script(peer: Peer) -> None:
        await peer.expect(whole())
        await peer.say(*TAKEN[:answered])
        peer.drop()

    (report,), pool = await after_one(script, outgoing())
    assert codes(report) == [(Phase.DOT, None, Failure.LOST)]
    assert report.content_started
    assert not pool.learnt.chunking


async def test_a_421_to_mail_says_that_nothing_was_taken_so_the_message_goes_by_a_fresh_session() -> None:
    async def script(peer: Peer) -> None:
        await show(peer)
        await peer.expect(whole())
        await peer.say(b"421 4.7.0 closing")
        assert await peer.rest() == b""

    async with ScriptedServer(script, show) as server:
        pool = pool_for(server.port)
        assert [codes(await send(pool, outgoing())) for _ in range(2)] == [SENT, SENT]
        await pool.close(0)


async def test_after_an_hour_chunks_are_tried_again_and_a_refusal_costs_no_message() -> None:
    async def refused(peer: Peer) -> None:
        await peer.expect(trial())
        await peer.say(b"250 ok", b"250 ok", UNKNOWN)
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await take(peer)

    async def first(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await refused(peer)
        await take(peer)
        await peer.line()

    async def an_hour_later(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await take(peer)  # its success ends the lesson
        await refused(peer)
        await take(peer)
        await peer.line()

    clock = SteppedClock()
    async with ScriptedServer(first, an_hour_later) as server:
        pool = Pool(pool_for(server.port).config, load(), clock)
        assert [codes(await send(pool, outgoing())) for _ in range(2)] == [SENT] * 2
        clock.step(3600)
        assert [codes(await send(pool, outgoing())) for _ in range(3)] == [SENT] * 3
        await pool.close(0)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (outgoing(), "chunking=false"),
        (outgoing(), "pipelining=off"),
        (outgoing(content=(b"\r\nhello, hello, hello\r\n",)), ""),  # its first octet is no harmless one
        (outgoing(at_most_once=True), ""),  # a session that is lost under it leaves less of it in doubt
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


async def test_a_session_that_was_silent_for_long_gets_data_since_a_lost_chunk_would_be_in_doubt() -> None:
    async def script(peer: Peer) -> None:
        await show(peer)
        await take(peer)

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        await send(pool, outgoing())
        pool.chunk_within = 0.0
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        await pool.close(0)


async def test_a_lost_lease_keeps_all_of_it_from_the_wire() -> None:
    async def script(peer: Peer) -> None:
        assert await peer.rest() == b""

    (report,), _ = await after_one(script, outgoing(may_proceed=lambda: False))
    assert not report.mail_started
    assert not report.content_started
    assert codes(report)[0][2] is Failure.SHUTDOWN


async def test_a_lost_lease_keeps_the_first_content_from_the_wire() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(*SERVED)
        assert await peer.rest() == b""

    report, _ = await run(script, outgoing(may_proceed=lambda: False))
    assert not report.content_started
    assert codes(report)[0][2] is Failure.SHUTDOWN


async def test_what_waits_for_the_first_content_goes_whole_after_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(*SERVED)
        await peer.expect(CHUNK)
        held.set()
        await go.wait()
        await peer.say(b"250 taken")
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
