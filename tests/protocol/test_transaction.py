"""The mail transaction against a scripted peer: the exact bytes on the wire, and what each reply leads to."""

import asyncio
from dataclasses import replace

import pytest

from service.clock import SYSTEM
from service.mail.outcome import Failure, Phase, judge_failure
from service.relay.port import Report
from tests.support.relaying import MAIL, PIPELINED, codes, outgoing, pool_for, run, send
from tests.support.smtp_script import Peer, Script, ScriptedServer


async def test_with_pipelining_the_envelope_is_one_write() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"250 ok", b"354 go")
        await peer.expect(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        await peer.say(b"250 2.0.0 queued as 7")
        await peer.line()

    report, _ = await run(script, outgoing("a@b.example", "c@d.example"))
    assert codes(report) == [(Phase.DOT, 250, None)] * 2
    assert report.content_started


async def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"SIZE")
        for command in (MAIL, b"RCPT TO:<a@b.example>\r\n"):
            await peer.expect(command)
            await peer.say(b"250 ok")
        await peer.expect(b"DATA\r\n")
        await peer.say(b"354 go")
        await peer.expect(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        await peer.say(b"250 ok")
        await peer.line()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.DOT, 250, None)]


async def test_a_354_to_the_final_dot_is_told_as_it_is_and_ends_the_session() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        await peer.say(b"354 go on")
        assert await peer.rest() == b"", "neither a second content nor QUIT"

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.DOT, 354, None)]
    assert report.content_started


@pytest.mark.parametrize("split", [1, 2, 3, 7])
async def test_replies_may_be_split_at_any_byte_and_have_many_lines(split: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250-one", b"250-two", b"250 three", b"250 ok", b"354 go", split=split)
        await peer.content()
        await peer.say(b"250-2.0.0 first", b"250 2.0.0 second", split=split)
        await peer.line()

    report, _ = await run(script, outgoing())
    (result,) = report.results
    assert result.reply is not None
    assert (result.reply.enhanced, result.reply.text) == ("2.0.0", "first second")


async def test_three_recipients_with_three_replies_send_the_content_to_the_one_accepted() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(
            MAIL + b"".join(b"RCPT TO:<%s@b.example>\r\n" % name for name in (b"a", b"b", b"c")) + b"DATA\r\n"
        )
        await peer.say(b"250 ok", b"250 ok", b"450 4.2.0 later", b"550 5.1.1 nobody", b"354 go")
        await peer.content()
        await peer.say(b"250 ok")
        await peer.line()

    report, _ = await run(script, outgoing("a@b.example", "b@b.example", "c@b.example"))
    assert codes(report) == [(Phase.DOT, 250, None), (Phase.RCPT, 450, None), (Phase.RCPT, 550, None)]


async def test_a_refused_mail_decides_and_what_follows_is_ignored() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"550 5.7.1 not you", b"503 bad sequence", b"503 bad sequence")
        await peer.line()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.MAIL, 550, None)]
    assert not report.content_started


async def test_354_though_nobody_was_accepted_is_ended_by_a_lone_dot() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"550 5.1.1 nobody", b"354 go")
        await peer.expect(b".\r\n")
        await peer.say(b"554 no valid recipients")
        await peer.line()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.RCPT, 550, None)]
    assert not report.content_started


async def test_a_refused_data_is_followed_by_rset_and_the_session_lives_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"451 4.3.0 not now")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 ok")
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        await peer.say(b"250 ok")
        await peer.line()

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.DATA, 451, None)]
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        await pool.close(0)
        assert len(server.peers) == 1


async def test_a_421_on_the_middle_recipient_decides_the_rest_and_closes() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"SIZE")
        await peer.expect(MAIL)
        await peer.say(b"250 ok")
        await peer.line()
        await peer.say(b"250 ok")
        await peer.line()
        await peer.say(b"421 4.3.2 closing")

    report, _ = await run(script, outgoing("a@b.example", "b@b.example", "c@b.example"))
    assert codes(report) == [(Phase.RCPT, 421, None)] * 3


async def test_a_connection_lost_after_the_final_dot_is_in_doubt() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        peer.drop()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.DOT, None, Failure.LOST)]
    assert report.content_started


@pytest.mark.parametrize(
    ("setting", "phase", "stalls"),
    [("command_timeout", Phase.MAIL, 0), ("data_timeout", Phase.DATA, 2), ("dot_timeout", Phase.DOT, 3)],
)
async def test_each_phase_has_its_deadline(setting: str, phase: Phase, stalls: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(*[b"250 ok", b"250 ok", b"354 go"][:stalls])
        await peer.rest()

    report, _ = await run(script, outgoing(), **{setting: 0.2})
    assert codes(report) == [(phase, None, Failure.TIMEOUT)]


async def test_the_whole_transaction_has_a_deadline_against_a_byte_drip() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        for _ in range(100):
            await peer.say(b"250-drip")
            await asyncio.sleep(0.02)

    report, _ = await run(script, outgoing(), transaction_timeout=0.3)
    assert codes(report) == [(Phase.MAIL, None, Failure.TIMEOUT)]


@pytest.mark.parametrize(
    "noise", [b"hello there", b"25", b"250-" + b"x" * 9000, b"199 odd", b"600 odd", b"\x00\x01\x02\x03"]
)
async def test_bytes_that_are_no_smtp_end_the_conversation(noise: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.line()
        await peer.say(noise)
        await peer.rest()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.MAIL, None, Failure.PROTOCOL)]


async def test_a_gbk_reply_is_readable() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.line()
        await peer.say("550 用户不存在".encode("gbk"), b"503 x", b"503 x")
        await peer.rest()

    report, _ = await run(script, outgoing())
    assert report.results[0].reply is not None
    assert report.results[0].reply.text == "用户不存在"


async def test_an_idle_session_that_the_relay_closed_is_replaced_and_nothing_is_reported() -> None:
    async def first(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        await peer.say(b"250 ok")
        await peer.line()  # the next MAIL
        await peer.say(b"421 4.4.2 idle too long")

    async def second(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        await peer.say(b"250 again")
        await peer.line()

    async with ScriptedServer(first, second) as server:
        pool = pool_for(server.port)
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        await pool.close(0)
        assert len(server.peers) == 2


async def test_a_fresh_session_that_is_dropped_is_reported() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.line()
        peer.drop()

    report, _ = await run(script, outgoing())
    assert codes(report) == [(Phase.MAIL, None, Failure.LOST)]


async def test_a_lost_lease_drops_the_connection_before_the_content() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        assert await peer.rest() == b"", "not even a lone dot, which would deliver an empty mail"

    report, _ = await run(script, outgoing(may_proceed=lambda: False))
    assert not report.content_started
    assert codes(report) == [(Phase.CONTENT, None, Failure.SHUTDOWN)]


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        ((b".\r\n",), b"..\r\n.\r\n"),
        ((b"a\r\n.\r\nb\r\n",), b"a\r\n..\r\nb\r\n.\r\n"),
        ((b"a\r\n", b".b\r\n"), b"a\r\n..b\r\n.\r\n"),
        ((b"a\r\n..\r\n",), b"a\r\n...\r\n.\r\n"),
        ((b"no end",), b"no end\r\n.\r\n"),
        ((b"a.b\r\n",), b"a.b\r\n.\r\n"),
    ],
)
async def test_dots_are_stuffed_on_the_wire(content: tuple[bytes, ...], wire: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"PIPELINING")
        for _ in range(3):
            await peer.line()
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.expect(wire)
        await peer.say(b"250 ok")
        await peer.line()

    report, _ = await run(script, outgoing(content=content))
    assert codes(report) == [(Phase.DOT, 250, None)]


@pytest.mark.parametrize("body", [b"a\n.\nb\r\n", b"a\r.\rb\r\n", b"a\r\n.\rb\r\n", b"a\n.\r\nb\r\n", b"\r\n.\n\r\n"])
async def test_a_body_that_could_smuggle_a_second_message_never_reaches_the_wire(body: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        assert await peer.rest() in (b"", b"QUIT\r\n")

    report, _ = await run(script, outgoing(content=(body,)))
    assert codes(report) == [(Phase.MAIL, None, Failure.INTERNAL)]
    assert not report.mail_started


@pytest.mark.parametrize(
    "address", ["a@b.example>\r\nRCPT TO:<c@d.example", "a@b.example> SIZE=1", "a b@c.example", "a@b.example\n"]
)
async def test_an_address_that_could_be_read_as_a_command_never_reaches_the_wire(address: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        assert await peer.rest() in (b"", b"QUIT\r\n")

    report, _ = await run(script, outgoing(address))
    assert codes(report) == [(Phase.MAIL, None, Failure.INTERNAL)]


async def test_what_the_relay_lacks_is_told_before_mail() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"SIZE 10")
        await peer.rest()

    for message in (outgoing(), outgoing(smtputf8=True, content=(b"x\r\n",))):
        report, _ = await run(script, message)
        assert codes(report) == [(Phase.MAIL, None, Failure.CAPABILITY)]
        assert not report.mail_started


async def test_an_internationalised_message_says_so() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"PIPELINING", b"SMTPUTF8", b"8BITMIME")
        await peer.expect(
            "MAIL FROM:<me@example.com> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<用户@b.example>\r\nDATA\r\n".encode()
        )
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        await peer.say(b"250 ok")
        await peer.line()

    report, _ = await run(script, outgoing("用户@b.example", smtputf8=True))
    assert codes(report) == [(Phase.DOT, 250, None)]


async def test_large_content_goes_in_blocks_and_arrives_whole() -> None:
    body = (b"x" * 70 + b"\r\n.dot\r\n") * 20_000
    got = b""

    async def script(peer: Peer) -> None:
        nonlocal got
        await peer.hello(*PIPELINED[:1])
        for _ in range(3):
            await peer.line()
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        got = await peer.content()
        await peer.say(b"250 ok")
        await peer.line()

    report, _ = await run(script, outgoing(content=(b"head\r\n\r\n", body)))
    assert codes(report) == [(Phase.DOT, 250, None)]
    assert got.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.") == b"head\r\n\r\n" + body


async def test_a_session_is_ended_after_its_number_of_messages() -> None:
    def serving(count: int) -> Script:
        async def script(peer: Peer) -> None:
            await peer.hello(*PIPELINED)
            for _ in range(count):
                await peer.expect(MAIL + b"RCPT TO:<a@b.example>\r\nDATA\r\n")
                await peer.say(b"250 ok", b"250 ok", b"354 go")
                await peer.content()
                await peer.say(b"250 ok")
            await peer.expect(b"QUIT\r\n")
            await peer.say(b"221 bye")

        return script

    async with ScriptedServer(serving(2), serving(1)) as server:
        pool = pool_for(server.port)
        pool.learnt.max_messages = 2
        for _ in range(3):
            assert codes(await send(pool, outgoing())) == [(Phase.DOT, 250, None)]
        await pool.close(0)
        assert len(server.peers) == 2


async def test_closing_reports_what_is_in_flight_and_never_leaves_a_delivery_without_report() -> None:
    reached = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.line()
        reached.set()
        await peer.rest()

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        done: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        pool.start(outgoing(), done.set_result)
        await reached.wait()
        await pool.close(0.05)
        assert codes(await asyncio.wait_for(done, 5)) == [(Phase.MAIL, None, Failure.SHUTDOWN)]


async def test_a_broken_relay_is_probed_and_takes_mail_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def good(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.line()

    async with ScriptedServer(good) as server:
        pool = pool_for(server.port)
        opened = asyncio.Event()
        pool.on_capacity(opened.set)
        refused = replace(judge_failure(Phase.CONNECT, Failure.REFUSED), pauses=(0.05,))
        pool.blame(refused, Report([], False, False), "network: refused")
        assert pool.free(SYSTEM.now()) == 0
        await asyncio.wait_for(opened.wait(), 5)
        assert pool.free(SYSTEM.now()) == 1
        assert len(server.peers) == 1, "one probe"
        await pool.close(0)
