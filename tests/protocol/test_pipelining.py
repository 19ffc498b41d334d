"""The content of one message and the envelope of the next in one write (RFC 2920 3.1), and everything that can go wrong then.

A peer that waits for the next envelope before it answers the final dot proves that both were sent together.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.mail.outcome import Failure, Phase, judge_reply
from service.mail.reply import make_reply
from service.relay.policy import policy_for
from service.relay.pool import Pool
from service.relay.port import Outgoing, Pipelining, Report
from service.settings import load
from tests.support.clock import SteppedClock
from tests.support.relaying import (
    CONTENT,
    OPENED,
    PIPELINED,
    SENT,
    begin,
    codes,
    envelope,
    outgoing,
    pool_for,
    take,
)
from tests.support.smtp_script import Peer, Script, ScriptedServer

RATE = judge_reply(policy_for("163"), Phase.DOT, make_reply(451, ["MI:SFQ"]))
A, B, C = (outgoing(f"{name}@b.example") for name in "abc")


async def reports(
    scripts: list[Script], *messages: Outgoing, options: str = "max_connections=1", **settings: object
) -> list[Report]:
    """All handed over at once to one connection."""
    async with ScriptedServer(*scripts) as server:
        pool = pool_for(server.port, options, **settings)
        waiting = [begin(pool, message) for message in messages]
        done = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        await pool.close(0.2)
    return done


async def test_a_busy_session_needs_one_round_trip_a_message() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        for name in "bc":
            await peer.expect(CONTENT + envelope(name))
            await peer.say(b"250 2.0.0 taken", *OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken")
        await peer.line()

    assert [codes(each) for each in await reports([script], A, B, C)] == [SENT] * 3


@pytest.mark.parametrize("split", [1, 2, 5])
async def test_replies_of_two_messages_may_come_in_any_pieces(split: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b"))
        await peer.say(b"250-2.0.0 taken", b"250 2.0.0 as 7", *OPENED, split=split)
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken", split=split)
        await peer.line()

    first, second = await reports([script], A, B)
    assert (codes(first), codes(second)) == (SENT, SENT)
    assert first.results[0].reply is not None
    assert first.results[0].reply.text == "taken as 7"


@pytest.mark.parametrize("reply", [b"554 5.7.1 content refused", b"451 4.3.0 later"])
async def test_a_refusal_at_the_dot_leaves_the_next_message_as_it_is(reply: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b"))
        await peer.say(reply, *OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken")
        await peer.line()

    first, second = await reports([script], A, B)
    assert codes(first) == [(Phase.DOT, int(reply[:3]), None)]
    assert codes(second) == SENT


async def fresh(peer: Peer) -> None:
    await peer.hello(*PIPELINED)
    await take(peer, "b")
    await peer.line()


async def say_421(peer: Peer) -> None:
    await peer.say(b"421 4.7.0 closing")


async def drop(peer: Peer) -> None:
    peer.drop()


async def stall(peer: Peer) -> None:
    await peer.rest()


@pytest.mark.parametrize(
    ("ending", "first"),
    [
        (say_421, (Phase.DOT, 421, None)),
        (drop, (Phase.DOT, None, Failure.LOST)),
        (stall, (Phase.DOT, None, Failure.TIMEOUT)),
    ],
)
async def test_when_the_session_ends_at_the_dot_the_next_message_goes_by_a_fresh_one(
    ending: Callable[[Peer], Awaitable[None]], first: tuple[Phase, int | None, Failure | None]
) -> None:
    """It was opened and never begun: it is charged nothing, and is in no doubt."""

    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b"))
        await ending(peer)

    done = await reports([script, fresh], A, B, dot_timeout=0.3)
    assert [codes(each) for each in done] == [[first], SENT]


@pytest.mark.parametrize("said", [(), (b"250 2.1.0 ok",), (b"250 2.1.0 ok", b"250 2.1.5 ok")])
async def test_a_session_lost_inside_of_the_next_envelope_is_that_messages_own_affair(said: tuple[bytes, ...]) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b"))
        await peer.say(b"250 2.0.0 taken", *said)
        peer.drop()

    first, second = await reports([script, fresh], A, B)
    assert codes(first) == SENT
    # nothing was said about it: it goes again; else it is reported, and was never in doubt
    assert codes(second) == SENT if not said else [(Phase(["rcpt", "data"][len(said) - 1]), None, Failure.LOST)]
    assert second.content_started == (not said)


async def test_the_next_messages_own_refusals_are_its_own() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b", "c"))
        await peer.say(b"250 2.0.0 taken", b"250 2.1.0 ok", b"550 5.1.1 nobody", b"450 4.2.0 later", b"354 go")
        await peer.expect(b".\r\n")  # 354 though nobody was accepted
        await peer.say(b"554 5.5.1 no recipients")
        await take(peer, "d")
        await peer.line()

    done = await reports([script], A, outgoing("b@b.example", "c@b.example"), outgoing("d@b.example"))
    assert [codes(each) for each in done] == [SENT, [(Phase.RCPT, 550, None), (Phase.RCPT, 450, None)], SENT]


async def test_a_transaction_that_nobody_was_accepted_in_is_reset_before_the_next() -> None:
    """MAIL was taken: without RSET the next one is `503 nested MAIL command`."""

    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(b"250 2.1.0 ok", b"550 5.1.1 nobody", b"554 5.5.1 no valid recipients")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 2.0.0 ok")
        await take(peer, "b")
        await peer.line()

    done = await reports([script], A, B)
    assert [codes(each) for each in done] == [[(Phase.RCPT, 550, None)], SENT]


async def test_part_of_the_next_messages_recipients_get_the_content() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b", "c"))
        await peer.say(b"250 2.0.0 taken", b"250 2.1.0 ok", b"550 5.1.1 nobody", b"250 2.1.5 ok", b"354 go")
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken")
        await peer.line()

    done = await reports([script], A, outgoing("b@b.example", "c@b.example"))
    assert [codes(each) for each in done] == [SENT, [(Phase.RCPT, 550, None), *SENT]]


async def test_a_421_to_the_next_mail_makes_it_go_by_a_fresh_session() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b"))
        await peer.say(b"250 2.0.0 taken", b"421 4.7.0 too many messages")

    assert [codes(each) for each in await reports([script, fresh], A, B)] == [SENT, SENT]


@pytest.mark.parametrize(
    ("options", "second"),
    [
        ("max_connections=1&pipelining=envelope", B),
        ("max_connections=1&max_messages_per_connection=1", B),
        ("max_connections=1", outgoing("b@b.example", at_most_once=True)),
    ],
)
async def test_nothing_is_opened_ahead_where_it_must_not_be(options: str, second: Outgoing) -> None:
    """By configuration, on the last message that a connection may carry, and for at_most_once."""

    async def one(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer, "a")
        if b"QUIT" in await peer_next(peer):
            await peer.say(b"221 bye")

    async def peer_next(peer: Peer) -> bytes:
        line = await peer.line()
        if line.startswith(b"MAIL"):
            assert line + await peer.line() + await peer.line() == envelope("b")
            await peer.say(*OPENED)
            await peer.expect(CONTENT)
            await peer.say(b"250 2.0.0 taken")
            return await peer.line()
        return line

    assert [codes(each) for each in await reports([one, fresh], A, second, options=options)] == [SENT, SENT]


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ("max_connections=1&pipelining=envelope", A, B),
        ("max_connections=1&max_messages_per_connection=1", A, B),
        ("max_connections=1", A, outgoing("b@b.example", at_most_once=True)),
        ("max_connections=1", outgoing("a@b.example", at_most_once=True), B),
    ],
)
async def test_nothing_more_of_it_reaches_a_session_that_ends_with_the_content_before(
    options: str, first: Outgoing, second: Outgoing
) -> None:
    """Whatever had gone out with the content would be there when the client has closed."""

    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"421 4.7.0 closing")
        assert await peer.rest() == b""

    done = await reports([script, fresh], first, second, options=options)
    assert [codes(each) for each in done] == [[(Phase.DOT, 421, None)], SENT]


@pytest.mark.parametrize("most", [1, 2])
async def test_the_last_message_that_a_connection_may_carry_is_followed_by_quit(most: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        for name in "bc"[: most - 1]:
            await peer.say(*OPENED)
            await peer.expect(CONTENT + envelope(name))
            await peer.say(b"250 2.0.0 taken")
        await peer.say(*OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken")
        await peer.expect(b"QUIT\r\n")

    async def next_connection(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer, "abc"[most])
        await peer.line()

    options = f"max_connections=1&max_messages_per_connection={most}"
    messages = [A, B, C][: most + 1]
    done = await reports([script, next_connection], *messages, options=options)
    assert [codes(each) for each in done] == [SENT] * len(messages)


async def test_an_at_most_once_message_is_never_followed_in_its_own_write() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer, "a")
        await take(peer, "b")
        await peer.line()

    careful = outgoing("a@b.example", at_most_once=True)
    assert [codes(each) for each in await reports([script], careful, B)] == [SENT, SENT]


async def test_large_content_goes_in_blocks_and_the_next_envelope_with_its_last() -> None:
    body = b"".join(b"%06d %s\r\n" % (n, b"x" * 60) for n in range(5000))

    async def script(peer: Peer) -> None:
        await peer.hello(b"PIPELINING")
        await peer.expect(b"MAIL FROM:<me@example.com>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n")
        await peer.say(*OPENED)
        await peer.expect(body + b".\r\nMAIL FROM:<me@example.com>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n")
        await peer.say(b"250 2.0.0 taken", *OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken")
        await peer.line()

    done = await reports([script], outgoing(content=(body,)), B)
    assert [codes(each) for each in done] == [SENT, SENT]


async def test_replies_that_no_longer_fit_lower_the_pipelining_of_the_relay() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(b"503 5.5.1 bad sequence", b"503 5.5.1 bad sequence", b"503 5.5.1 bad sequence")
        await peer.line()

    async with ScriptedServer(script, script, script) as server:
        pool = pool_for(server.port)
        levels = []
        for _ in range(3):
            report = await asyncio.wait_for(begin(pool, A), 10)
            assert codes(report) == [(Phase.MAIL, 503, None)]
            levels.append(pool.learnt.pipelining)
            await pool.close(0)
            pool = pool_for(server.port)
            pool.learnt.pipelining = levels[-1]
            if levels[-1] is Pipelining.OFF:
                break
    assert levels[:2] == [Pipelining.ENVELOPE, Pipelining.OFF]


async def test_after_an_hour_more_goes_out_at_once_again_and_a_try_that_fails_costs_no_message() -> None:
    async def out_of_step(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*[b"503 5.5.1 bad sequence"] * 3)

    def one_by_one(count: int) -> Script:
        async def script(peer: Peer) -> None:
            await peer.hello(*PIPELINED)
            for _ in range(count):
                assert await step(peer) == "a"
            await peer.expect(b"QUIT\r\n")

        return script

    async def in_a_group(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer, "a")
        await peer.line()

    clock = SteppedClock()
    async with ScriptedServer(out_of_step, one_by_one(2), one_by_one(1), in_a_group, out_of_step) as server:
        config = pool_for(server.port, "max_connections=1&pipelining=envelope").config
        pool = Pool(config, load(), clock)

        async def send() -> tuple[Phase, int | None, Failure | None]:
            (result,) = codes(await asyncio.wait_for(begin(pool, A), 10))
            return result

        assert await send() == (Phase.MAIL, 503, None)
        pool.learnt.pipelining = Pipelining.OFF
        assert [await send(), await send()] == SENT * 2
        clock.step(3600)
        assert [await send(), pool.learnt.pipelining] == [*SENT, Pipelining.ENVELOPE]
        clock.step(600)  # no session is used longer
        assert await send() == SENT[0]
        clock.step(600)
        assert await send() == (Phase.MAIL, 503, None), "nothing was taken: the message goes on"
        assert pool.learnt.pipelining is Pipelining.OFF
        await pool.close(0)


# --- what waits for a busy slot ---------------------------------------------------------------------------------------


class Gate:
    """A peer that holds the first message's final reply until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def first(self, peer: Peer) -> None:
        await peer.hello(b"SIZE")  # no PIPELINING: nothing is opened ahead
        for _ in range(2):
            await peer.line()
            await peer.say(b"250 ok")
        await peer.line()
        await peer.say(b"354 go")
        await peer.content()
        self.reached.set()
        await self.open.wait()
        await peer.say(b"250 2.0.0 taken")


async def step(peer: Peer) -> str:
    """Serve one message step by step; who got it."""
    mail = await peer.line()
    assert mail.startswith(b"MAIL"), mail
    await peer.say(b"250 ok")
    recipient = await peer.line()
    await peer.say(b"250 ok")
    await peer.line()
    await peer.say(b"354 go")
    await peer.content()
    await peer.say(b"250 2.0.0 taken")
    return recipient.decode()[9:10]


async def held(gate: Gate, script: Script) -> tuple[ScriptedServer, Script]:
    async def whole(peer: Peer) -> None:
        await gate.first(peer)
        await script(peer)

    return ScriptedServer(whole), whole


async def test_the_most_urgent_of_those_that_wait_goes_first() -> None:
    gate, order = Gate(), []

    async def rest(peer: Peer) -> None:
        order.extend([await step(peer) for _ in range(3)])
        await peer.line()

    server, _ = await held(gate, rest)
    async with server:
        pool = pool_for(server.port)
        waiting = [begin(pool, A)]
        await gate.reached.wait()
        for name, priority in (("b", 2), ("c", 1), ("d", 0)):
            waiting.append(begin(pool, outgoing(f"{name}@b.example", priority=priority)))
        gate.open.set()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        await pool.close(0.2)
    assert order == ["d", "c", "b"]


def not_started(report: Report) -> bool:
    return not report.mail_started and report.results[0].failure is Failure.SHUTDOWN


async def test_one_delivery_may_wait_for_each_busy_slot() -> None:
    gate = Gate()

    async def rest(peer: Peer) -> None:
        await step(peer)
        await peer.line()

    server, _ = await held(gate, rest)
    async with server:
        pool = pool_for(server.port)
        assert (pool.free(0), pool.ahead(0)) == (1, 0)
        first = begin(pool, A)
        await gate.reached.wait()
        assert (pool.free(0), pool.ahead(0)) == (0, 1)
        second = begin(pool, B)
        assert (pool.free(0), pool.ahead(0)) == (0, 0)
        gate.open.set()
        await asyncio.wait_for(asyncio.gather(first, second), 10)
        assert (pool.free(0), pool.ahead(0)) == (1, 0)
        await pool.close(0.2)


@pytest.mark.parametrize("how", ["waited", "paused", "held", "closed"])
async def test_what_waits_is_given_back_uncharged(how: str) -> None:
    gate = Gate()

    async def rest(peer: Peer) -> None:
        await peer.line()

    server, _ = await held(gate, rest)
    async with server:
        pool = pool_for(server.port, start_wait=0.1 if how == "waited" else 60.0)
        first = begin(pool, A)
        await gate.reached.wait()
        second = begin(pool, B)
        ways: dict[str, Callable[[Pool], object]] = {
            "waited": lambda pool: None,
            "paused": lambda pool: pool.blame(RATE, Report([], False, False), "rate"),
            "held": lambda pool: pool.hold("by hand"),
            "closed": lambda pool: asyncio.ensure_future(pool.close(5)),
        }
        closing = ways[how](pool)
        assert not_started(await asyncio.wait_for(second, 5))
        if how == "waited":
            assert pool.ahead(0) == 0, "not asked for again while the slot is stuck"
        gate.open.set()
        assert codes(await asyncio.wait_for(first, 5)) == SENT
        if isinstance(closing, asyncio.Future):
            await closing
        await pool.close(0.2)


async def test_a_stop_leaves_the_one_in_doubt_and_gives_the_opened_one_back() -> None:
    reached = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT + envelope("b"))
        reached.set()
        await peer.rest()

    async with ScriptedServer(script) as server:
        pool = pool_for(server.port)
        first, second = begin(pool, A), begin(pool, B)
        await asyncio.wait_for(reached.wait(), 5)
        await pool.close(0.05)
        assert codes(await first) == [(Phase.DOT, None, Failure.SHUTDOWN)]
        assert not_started(await second)
