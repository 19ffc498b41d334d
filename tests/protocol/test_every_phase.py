"""Whatever a relay does at any step of the dialogue has a result that names the step, and leaves nobody in doubt wrongly.

The peer speaks without PIPELINING, so that each command stands alone; each is compared byte for byte. At one step it ends
the session: by 421, by closing the connection, or by saying nothing more.
"""

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.clock import SYSTEM
from service.mail.outcome import Failure, Phase
from service.mail.reply import MAX_TEXT
from service.relay.config import relay_from
from service.relay.conversation import Lost
from service.relay.pool import Pool
from service.relay.port import Report
from service.settings import load
from tests.support.relaying import (
    BODY,
    CONTENT,
    MAIL,
    OPENED,
    PIPELINED,
    SENT,
    codes,
    envelope,
    outgoing,
    pool_for,
    run,
    send,
    take,
)
from tests.support.smtp_script import Peer, Script, ScriptedServer
from tests.support.tls import TestAuthority

EHLO = b"EHLO localhost\r\n"
AUTH = b"AUTH PLAIN AG1lAENPREU=\r\n"  # \0me\0CODE
RCPT = b"RCPT TO:<a@b.example>\r\n"
USUAL: dict[str, tuple[bytes, tuple[bytes, ...]]] = {
    # step: what is read, and what is usually answered
    "greeting": (b"", (b"220 peer",)),
    "ehlo": (EHLO, (b"250-peer", b"250-SIZE 1000000", b"250 AUTH PLAIN")),
    "auth": (AUTH, (b"235 2.7.0 in",)),
    "mail": (MAIL, (b"250 2.1.0 ok",)),
    "rcpt": (RCPT, (b"250 2.1.5 ok",)),
    "data": (b"DATA\r\n", (b"354 go",)),
    "dot": (CONTENT, (b"250 2.0.0 taken",)),
}
PHASES = {
    "greeting": Phase.GREETING,
    "ehlo": Phase.EHLO,
    "auth": Phase.AUTH,
    "mail": Phase.MAIL,
    "rcpt": Phase.RCPT,
    "data": Phase.DATA,
    "dot": Phase.DOT,
}
SHORT = dict.fromkeys(("greeting_timeout", "command_timeout", "data_timeout", "dot_timeout"), 0.3)

Ending = Callable[[Peer], Awaitable[None]]


async def close(peer: Peer) -> None:
    await peer.say(b"421 4.3.2 closing")


async def drop(peer: Peer) -> None:
    peer.drop()


async def stall(peer: Peer) -> None:
    await peer.rest()


def ending_at(at: str, ending: Ending) -> Script:
    """The usual dialogue up to one step."""

    async def script(peer: Peer) -> None:
        for step, (wanted, replies) in USUAL.items():
            await peer.expect(wanted)
            if step == at:
                await ending(peer)
                return
            await peer.say(*replies)

    return script


async def with_login(*scripts: Script, messages: int = 1, **settings: object) -> list[Report]:
    """So many messages, one after the other, over one connection at a time, with a login."""
    async with ScriptedServer(*scripts) as server:
        url = f"smtp://me:CODE@127.0.0.1:{server.port}?plaintext=allow&max_connections=1"
        pool = Pool(relay_from("r", {"url": url}, "test"), load(**settings), SYSTEM)
        reports = [await send(pool, outgoing()) for _ in range(messages)]
        await pool.close(0.2)
    return reports


@pytest.mark.parametrize("step", PHASES)
async def test_a_421_at_any_command_is_the_result_of_that_command(step: str) -> None:
    (report,) = await with_login(ending_at(step, close))
    assert codes(report) == [(PHASES[step], 421, None)]
    assert report.results[0].reply is not None
    assert str(report.results[0].reply) == "421 4.3.2 closing"
    assert report.content_started == (step == "dot")
    assert report.mail_started == (step not in ("greeting", "ehlo", "auth"))


@pytest.mark.parametrize("step", PHASES)
async def test_a_connection_lost_at_any_command_is_told_with_that_command(step: str) -> None:
    (report,) = await with_login(ending_at(step, drop))
    assert codes(report) == [(PHASES[step], None, Failure.LOST)]
    assert report.content_started == (step == "dot")


@pytest.mark.parametrize("step", PHASES)
async def test_a_stall_at_any_command_has_a_deadline(step: str) -> None:
    (report,) = await with_login(ending_at(step, stall), **SHORT)
    assert codes(report) == [(PHASES[step], None, Failure.TIMEOUT)]
    assert report.content_started == (step == "dot")


@pytest.mark.parametrize(
    ("ending", "code", "failure"), [(close, 421, None), (drop, None, Failure.LOST), (stall, None, Failure.TIMEOUT)]
)
async def test_starttls_may_end_in_the_same_ways_and_nothing_goes_in_clear(
    tmp_path: Path, ending: Ending, code: int | None, failure: Failure | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"220 peer")
        await peer.expect(EHLO)
        await peer.say(b"250-peer", b"250-STARTTLS", b"250 AUTH PLAIN")
        await peer.expect(b"STARTTLS\r\n")
        await ending(peer)

    async with ScriptedServer(script) as server:
        url = f"smtp+starttls://me:CODE@127.0.0.1:{server.port}?max_connections=1"
        values = {"url": url, "ca_file": str(TestAuthority(tmp_path).ca_file)}
        pool = Pool(relay_from("r", values, "test"), load(**SHORT), SYSTEM)
        report = await send(pool, outgoing())
        await pool.close(0)
    assert codes(report) == [(Phase.TLS, code, failure)]
    assert server.peers[0].got == EHLO + b"STARTTLS\r\n"


@pytest.mark.parametrize("ending", [close, drop, stall])
async def test_an_end_at_rset_changes_no_result_and_the_next_message_takes_a_fresh_session(ending: Ending) -> None:
    async def first(peer: Peer) -> None:
        await peer.hello(b"SIZE")
        await peer.expect(MAIL)
        await peer.say(b"250 2.1.0 ok")
        await peer.expect(RCPT)
        await peer.say(b"550 5.1.1 nobody")
        await peer.expect(b"RSET\r\n")
        await ending(peer)

    async def second(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await peer.line()

    async with ScriptedServer(first, second) as server:
        pool = pool_for(server.port, **SHORT)
        reports = [await send(pool, outgoing()) for _ in range(2)]
        await pool.close(0.2)
    assert [codes(report) for report in reports] == [[(Phase.RCPT, 550, None)], SENT]


@pytest.mark.parametrize("ending", [close, drop, stall])
async def test_an_end_at_quit_holds_nobody_up(ending: Ending) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await peer.expect(b"QUIT\r\n")
        await ending(peer)

    report, server = await run(script, outgoing())
    assert codes(report) == SENT
    assert server.peers[0].got.endswith(CONTENT + b"QUIT\r\n")


async def test_every_reply_may_come_byte_by_byte() -> None:
    async def script(peer: Peer) -> None:
        for wanted, replies in USUAL.values():
            await peer.expect(wanted)
            await peer.say(*replies, split=1)
        await peer.line()

    (report,) = await with_login(script)
    assert codes(report) == SENT


# --- lines that nobody asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("early", "result"),
    [
        (b"421 4.3.2 shutting down", (Phase.CONTENT, 421, None)),
        (b"451 4.3.0 disk full", (Phase.CONTENT, 451, None)),
        (b"552 5.3.4 too big", (Phase.CONTENT, 552, None)),
        (b"250 2.0.0 taken", (Phase.CONTENT, None, Failure.PROTOCOL)),
        (b"354 go", (Phase.CONTENT, None, Failure.PROTOCOL)),
    ],
)
@pytest.mark.parametrize("extensions", [PIPELINED, PIPELINED[1:]])
async def test_what_is_said_before_the_final_dot_is_no_answer_to_it(
    early: bytes, result: tuple[Phase, int | None, Failure | None], extensions: tuple[bytes, ...]
) -> None:
    """The dot never goes out, so nothing is in doubt; a 250 that nobody asked for never makes a message sent."""

    async def script(peer: Peer) -> None:
        await peer.hello(*extensions)
        if extensions is PIPELINED:
            await peer.expect(envelope())
            await peer.say(*OPENED, early)
        else:
            await peer.expect(MAIL)
            await peer.say(OPENED[0])
            await peer.expect(RCPT)
            await peer.say(OPENED[1])
            await peer.expect(b"DATA\r\n")
            await peer.say(OPENED[2], early)
        assert b"\r\n.\r\n" not in await peer.rest()

    report, _ = await run(script, outgoing())
    assert codes(report) == [result]
    assert not report.content_started


async def test_a_421_between_the_blocks_of_a_large_content_ends_it_there() -> None:
    body = b"x" * 70 + b"\r\n"

    async def script(peer: Peer) -> None:
        await peer.hello(b"PIPELINING")
        for _ in range(3):
            await peer.line()
        await peer.say(*OPENED)
        for _ in range(5):
            await peer.expect(body)
        await peer.say(b"421 4.3.2 shutting down")
        await peer.rest()

    report, _ = await run(script, outgoing(content=(body * 1_000_000,)))
    assert codes(report) == [(Phase.CONTENT, 421, None)]
    assert not report.content_started


async def test_a_connection_that_ended_before_the_content_leaves_nothing_in_doubt() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope())
        await peer.say(*OPENED)
        peer.drop()

    async def until_ended() -> None:
        session = pool._slots[0].session
        assert session is not None
        with contextlib.suppress(Lost):
            await session.conversation.reply(5)

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        report = await send(pool, outgoing(on_content=until_ended))
        await pool.close(0)
    assert codes(report) == [(Phase.CONTENT, None, Failure.LOST)]
    assert not report.content_started


@pytest.mark.parametrize("noise", [b"250 2.0.0 and another thing", b"421 4.4.2 idle too long", b"not SMTP at all"])
async def test_a_line_after_the_last_reply_makes_the_session_unfit_and_costs_nothing(noise: bytes) -> None:
    async def first(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope())
        await peer.say(*OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken", noise)
        assert await peer.rest() == b"", "nothing of the next message goes to it"

    async def second(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer)
        await peer.line()

    async with ScriptedServer(first, second) as server:
        pool = pool_for(server.port)
        assert [codes(await send(pool, outgoing())) for _ in range(2)] == [SENT, SENT]
        await pool.close(0.2)


# --- sizes and alphabets ----------------------------------------------------------------------------------------------


async def test_a_reply_line_of_8_kib_is_read_whole_and_one_octet_more_is_no_smtp() -> None:
    def saying(length: int) -> Script:
        async def script(peer: Peer) -> None:
            await peer.hello(*PIPELINED)
            await peer.expect(envelope())
            await peer.say(b"550 5.7.1 " + b"x" * (length - 10), b"503 x", b"503 x")
            await peer.rest()

        return script

    report, _ = await run(saying(8192), outgoing())
    assert codes(report) == [(Phase.MAIL, 550, None)]
    assert report.results[0].reply is not None
    assert report.results[0].reply.text == "x" * MAX_TEXT
    report, _ = await run(saying(8193), outgoing())
    assert codes(report) == [(Phase.MAIL, None, Failure.PROTOCOL)]


async def test_a_reply_of_many_lines_is_read_up_to_64_kib() -> None:
    def saying(lines: int) -> Script:
        async def script(peer: Peer) -> None:
            await peer.hello(*PIPELINED)
            await peer.expect(envelope())
            await peer.say(*[b"550-" + b"x" * 1020] * (lines - 1), b"550 " + b"x" * 1020, b"503 x", b"503 x")
            await peer.rest()

        return script

    report, _ = await run(saying(64), outgoing())
    assert codes(report) == [(Phase.MAIL, 550, None)]
    report, _ = await run(saying(65), outgoing())
    assert codes(report) == [(Phase.MAIL, None, Failure.PROTOCOL)]


@pytest.mark.parametrize("step", PHASES)
async def test_a_gbk_reply_is_readable_at_every_command(step: str) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.say("550-服务不可用".encode("gbk"), "550 请稍后再试".encode("gbk"))
        while await peer.line():  # RSET or QUIT
            await peer.say(b"250 ok")

    (report,) = await with_login(ending_at(step, refuse))
    assert codes(report) == [(PHASES[step], 550, None)]
    assert report.results[0].reply is not None
    assert report.results[0].reply.text == "服务不可用 请稍后再试"


async def test_a_gbk_reply_to_each_of_several_recipients_is_its_own() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a", "b", "c"))
        await peer.say(OPENED[0], "550 用户不存在".encode("gbk"), OPENED[1], "452 空间不足".encode("gbk"), OPENED[2])
        await peer.expect(CONTENT)
        await peer.say("250 已收到".encode("gbk"))
        await peer.line()

    report, _ = await run(script, outgoing("a@b.example", "b@b.example", "c@b.example", content=BODY))
    assert [str(each.reply) for each in report.results] == ["550 用户不存在", "250 已收到", "452 空间不足"]
