"""A delivery whose content is marked first goes whole too, once the mark is durable; and urgent mail goes so whenever it can."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from service.mail.outcome import Failure, Phase
from service.mail.quota import HIGH
from service.relay.pool import Pool
from service.relay.port import MayNotStart, Outgoing, Report
from tests.protocol.test_chunking import CHUNK, OFFERED, SERVED, TAKEN, show, trial, whole
from tests.support.relaying import CONTENT, OPENED, SENT, begin, codes, envelope, outgoing, pool_for, send
from tests.support.smtp_script import Peer, Script, ScriptedServer
from tests.support.waiting import until

LARGE = (b"Subject: x\r\n\r\n" + b"x" * 64 + b"\r\n",) * 1000


class Mark:
    """An `on_content` that takes as long as the test says."""

    def __init__(self) -> None:
        self.asked, self.durable = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.asked.set()
        await self.durable.wait()


@asynccontextmanager
async def closed_at_the_end(pool: Pool) -> AsyncIterator[Pool]:
    """Also when the test fails: a session that is cut off by nothing waits for its peer."""
    try:
        yield pool
    finally:
        await pool.close(0)


async def after_one(script: Script, message: Outgoing, act: Callable[[Pool], Awaitable[None]]) -> Report:
    """What becomes of a delivery on a session that has carried one message; `act` runs once it is handed over."""

    async def first(peer: Peer) -> None:
        await show(peer)
        await script(peer)

    async with ScriptedServer(first) as server, closed_at_the_end(pool_for(server.port)) as pool:
        assert codes(await send(pool, outgoing())) == SENT
        waiting = begin(pool, message)
        await asyncio.wait_for(act(pool), 5)
        return await asyncio.wait_for(waiting, 5)


async def test_nothing_of_it_is_written_before_its_mark_is_durable_and_then_all_at_once() -> None:
    async def script(peer: Peer) -> None:
        peer_reads = asyncio.ensure_future(peer.some())
        peer_reads.add_done_callback(lambda _: seen.append(mark.durable.is_set()))
        assert await peer_reads == whole()
        await peer.say(*TAKEN)

    async def act(_: Pool) -> None:
        await mark.asked.wait()
        for _ in range(50):  # turns of the loop, in which it could be written and read
            await asyncio.sleep(0)
        mark.durable.set()

    mark, seen = Mark(), list[bool]()
    report = await after_one(script, outgoing(on_content=mark), act)
    assert (codes(report), report.content_started, seen) == (SENT, True, [True])


@pytest.mark.parametrize("last_words", [b"421 4.4.2 idle for too long", b""])
async def test_a_session_that_ends_while_the_mark_is_written_leaves_nothing_in_doubt_and_no_mark_behind(
    last_words: bytes,
) -> None:
    """Its attempt ends, uncharged: one that waits for another login must not stand there as perhaps begun."""

    async def script(peer: Peer) -> None:
        await mark.asked.wait()
        await peer.say(*filter(None, [last_words]))
        if not last_words:
            peer.drop()
        assert await peer.rest() == b""

    async def act(pool: Pool) -> None:
        await mark.asked.wait()
        await until(lambda: not pool._slots[0].ready)
        mark.durable.set()

    mark = Mark()
    report = await after_one(script, outgoing(on_content=mark), act)
    assert codes(report) == [(Phase.CONNECT, None, Failure.SHUTDOWN)]
    assert not report.mail_started
    assert not report.content_started


@pytest.mark.parametrize(
    ("error", "failure"),
    [(MayNotStart("another sender owns it"), Failure.SHUTDOWN), (RuntimeError("a fault of ours"), Failure.INTERNAL)],
)
async def test_a_mark_that_is_refused_keeps_all_of_it_from_the_wire(error: Exception, failure: Failure) -> None:
    async def script(peer: Peer) -> None:
        assert await peer.rest() == b""

    async def refused() -> None:
        raise error

    async def act(_: Pool) -> None:
        pass

    report = await after_one(script, outgoing(on_content=refused), act)
    assert codes(report) == [(Phase.MAIL, None, failure)]
    assert not report.content_started


async def test_a_stop_while_the_mark_is_written_gives_it_back() -> None:
    async def script(peer: Peer) -> None:
        assert await peer.rest() == b""

    async def act(pool: Pool) -> None:
        await mark.asked.wait()
        await pool.close(0)

    mark = Mark()
    report = await after_one(script, outgoing(on_content=mark), act)
    assert codes(report)[0][2] is Failure.SHUTDOWN
    assert not report.mail_started


# --- which of two that wait is opened with the content before it ------------------------------------------------------


async def on_a_session_that_takes_chunks(script: Script, *messages: Outgoing) -> None:
    """The last one is handed over first, to carry the others: they wait while its content is held up by its mark."""

    async def first(peer: Peer) -> None:
        await show(peer)
        await script(peer)

    async with ScriptedServer(first) as server, closed_at_the_end(pool_for(server.port)) as pool:
        assert codes(await send(pool, outgoing())) == SENT
        mark = Mark()
        *following, carrier = messages
        waiting = [begin(pool, replace(carrier, on_content=mark))]
        await asyncio.wait_for(mark.asked.wait(), 5)
        waiting += [begin(pool, each) for each in following]
        mark.durable.set()
        for each in waiting:
            assert codes(await asyncio.wait_for(each, 5)) == SENT


async def large(peer: Peer) -> None:
    """Serve the commands of a large message, up to its content."""
    assert (await peer.line()).startswith(b"MAIL")
    await peer.line()
    await peer.expect(b"DATA\r\n")
    await peer.say(*OPENED)


async def test_what_goes_whole_if_it_waits_is_opened_with_a_large_content_unless_it_is_urgent() -> None:
    async def normal(peer: Peer) -> None:
        await large(peer)
        await peer.content()
        await peer.expect(envelope())  # with the content: nothing was answered yet
        await peer.say(b"250 taken", *OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 taken")

    async def urgent(peer: Peer) -> None:
        await large(peer)
        await peer.content()
        await peer.say(b"250 taken")
        await peer.expect(whole())
        await peer.say(*TAKEN)

    await on_a_session_that_takes_chunks(normal, outgoing(), outgoing(content=LARGE))
    await on_a_session_that_takes_chunks(urgent, outgoing(priority=HIGH), outgoing(content=LARGE))


async def test_a_session_that_opened_small_mail_with_a_large_content_goes_back_to_whole_messages() -> None:
    async def script(peer: Peer) -> None:
        await large(peer)
        await peer.content()
        await peer.expect(envelope())
        await peer.say(b"250 taken", *OPENED)
        await peer.expect(CONTENT)
        await peer.say(b"250 taken")
        await peer.expect(whole())
        await peer.say(*TAKEN)

    await on_a_session_that_takes_chunks(script, outgoing(), outgoing(), outgoing(content=LARGE))


async def test_the_first_message_of_a_session_shows_that_it_knows_bdat_though_it_is_marked_after_its_first_octet() -> (
    None
):
    async def script(peer: Peer) -> None:
        await peer.hello(*OFFERED)
        await peer.expect(trial())
        await peer.say(*SERVED)
        await mark.asked.wait()
        mark.durable.set()
        await peer.expect(CHUNK)
        await peer.say(b"250 taken")

    mark = Mark()
    async with ScriptedServer(script) as server, closed_at_the_end(pool_for(server.port)) as pool:
        assert codes(await send(pool, outgoing(on_content=mark))) == SENT
