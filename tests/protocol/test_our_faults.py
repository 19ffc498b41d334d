"""A fault of our own code about one delivery ends neither its session's worker nor another delivery, and it has a report."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.mail.outcome import Failure, Phase
from service.relay.pool import Pool
from service.relay.port import Outgoing, Report
from service.relay.transaction import Transaction
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
    send,
    take,
)
from tests.support.smtp_script import Peer, ScriptedServer

A, B = outgoing("a@b.example"), outgoing("b@b.example")


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a fault of ours")


async def serve_any(peer: Peer) -> None:
    """As many messages as come, each accepted, in whatever pieces."""
    await peer.hello(*PIPELINED)
    while line := await peer.line():
        if line == b"DATA\r\n":
            await peer.say(b"354 go")
            if not (await peer.content()).endswith(b".\r\n"):
                return
        await peer.say(b"250 2.0.0 ok")


async def test_whoever_is_told_may_fail_and_the_next_message_goes_on() -> None:
    async with ScriptedServer(serve_any) as server:
        pool = pool_for(server.port)
        with capture_logs() as lines:
            told = asyncio.Event()

            def failing(report: Report) -> None:
                told.set()
                broken()

            pool.start(A, failing)
            await asyncio.wait_for(told.wait(), 10)
            assert codes(await send(pool, B)) == SENT
        await pool.close(0.2)
    assert [line["during"] for line in lines if line["event"] == "loop.failed"] == ["report"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pool: setattr(pool._condition, "succeeded", broken),
        lambda pool: pool.on_capacity(broken),
        lambda pool: setattr(pool.learnt, "succeeded", broken),
    ],
)
async def test_what_a_pool_makes_of_a_report_may_fail_and_the_report_comes_all_the_same(
    spoil: Callable[[Pool], None],
) -> None:
    async with ScriptedServer(serve_any) as server:
        pool = pool_for(server.port)
        spoil(pool)
        waiting = [begin(pool, each) for each in (A, B, A)]
        for report in await asyncio.wait_for(asyncio.gather(*waiting), 10):
            assert codes(report) == SENT
        assert codes(await send(pool, B)) == SENT
        assert pool.free(0) == 1
        await pool.close(0.2)


@pytest.mark.parametrize("extensions", [PIPELINED, (*PIPELINED, b"CHUNKING")])
async def test_a_lease_that_can_not_be_asked_for_keeps_the_content_back(extensions: tuple[bytes, ...]) -> None:
    async def first(peer: Peer) -> None:
        await peer.hello(*extensions)
        if extensions is PIPELINED:
            await peer.expect(envelope("a"))
            await peer.say(*OPENED)
        else:
            await peer.expect(envelope("a").replace(b"DATA\r\n", b"BDAT 1\r\nS"))
            await peer.say(b"250 ok", b"250 ok", b"250 ok")
        assert await peer.rest() == b""

    async with ScriptedServer(first, serve_any) as server:
        pool = pool_for(server.port)
        report = await send(pool, outgoing("a@b.example", may_proceed=broken))
        assert [(each.failure, each.detail) for each in report.results] == [
            (Failure.INTERNAL, "ZeroDivisionError: a fault of ours")
        ]
        assert not report.content_started
        assert codes(await send(pool, B)) == SENT
        await pool.close(0.2)


async def test_what_waits_ahead_may_fail_without_the_message_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fragile(Transaction):
        def fits(self) -> bool:
            return broken() if self.outgoing is B else super().fits()

    monkeypatch.setattr("service.relay.slot.Transaction", Fragile)
    done = await both(A, B)
    assert codes(done[0]) == SENT
    assert [(each.failure, done[1].content_started) for each in done[1].results] == [(Failure.INTERNAL, False)]


async def test_a_fault_after_the_dot_leaves_it_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot fails over what the reply teaches; what the relay said is told."""
    monkeypatch.setattr("service.relay.slot.out_of_step", broken)
    done = await both(A, B)
    assert codes(done[0]) == SENT, "it was taken, and is not sent again"
    assert codes(done[1]) == [(Phase.MAIL, None, Failure.INTERNAL)]
    assert not done[1].content_started


async def both(first: Outgoing, second: Outgoing) -> list[Report]:
    """Two at once to one connection; afterwards the slot must be free and whole."""

    async def script(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 2.0.0 taken")
        await peer.rest()

    async def again(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await take(peer, "a")
        await peer.rest()

    async with ScriptedServer(script, again, again) as server:
        pool = pool_for(server.port)
        waiting = [begin(pool, first), begin(pool, second)]
        done = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        free = asyncio.Event()
        pool.on_capacity(free.set)
        if not pool.free(0):
            await asyncio.wait_for(free.wait(), 10)
        assert (pool.free(0), pool.in_flight) == (1, 0)
        await pool.close(0.2)
    return done


async def test_an_idle_worker_survives_a_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warming is done without a message; a worker that ended there would leave its slot free for ever."""
    async with ScriptedServer(serve_any) as server:
        pool = pool_for(server.port, "max_connections=1&warm_connections=1")
        tried = asyncio.Event()

        async def failing() -> Any:
            tried.set()
            broken()

        with monkeypatch.context() as patch:
            patch.setattr(pool, "connect", failing)
            pool.keep_warm()
            await asyncio.wait_for(tried.wait(), 10)
        assert codes(await send(pool, A)) == SENT
        await pool.close(0.2)


async def test_no_login_is_tried_by_a_fault_before_it_and_the_delivery_has_its_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ScriptedServer(serve_any) as server:
        pool = pool_for(server.port)
        with monkeypatch.context() as patch:
            patch.setattr(pool, "connect", broken)
            report = await send(pool, A)
        assert codes(report) == [(Phase.CONNECT, None, Failure.INTERNAL)]
        assert codes(await send(pool, B)) == SENT
        await pool.close(0.2)


async def test_a_worker_that_is_cancelled_ends_even_within_a_transaction() -> None:
    """As a loop that is closed cancels whatever runs: it would wait for ever for one that goes on."""

    there = asyncio.Event()

    async def silent_at_the_dot(peer: Peer) -> None:
        await peer.hello(*PIPELINED)
        await peer.expect(envelope("a"))
        await peer.say(*OPENED)
        await peer.expect(CONTENT)
        there.set()
        await peer.rest()

    async with ScriptedServer(silent_at_the_dot) as server:
        pool = pool_for(server.port)
        report = begin(pool, A)
        await asyncio.wait_for(there.wait(), 10)
        (slot,) = pool._slots
        slot.task.cancel()
        ended, _ = await asyncio.wait([slot.task], timeout=5)
        assert ended == {slot.task}
        (result,) = (await report).results
        assert (result.phase, result.failure) == (Phase.DOT, Failure.SHUTDOWN)
        await pool.close(0.2)
