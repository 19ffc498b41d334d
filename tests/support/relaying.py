"""A pool against scripted peers: what goes in, what is reported, what is on the wire."""

import asyncio
from typing import Any

from service.clock import SYSTEM
from service.mail.envelope import Envelope
from service.mail.outcome import Failure, Phase
from service.relay.config import relay_from
from service.relay.pool import Pool
from service.relay.port import Outgoing, Report
from service.settings import load
from tests.support.smtp_script import Peer, Script, ScriptedServer

PIPELINED = (b"PIPELINING", b"SIZE 1000000")
BODY = (b"Subject: x\r\n\r\nhello\r\n",)
MAIL = b"MAIL FROM:<me@example.com> SIZE=21\r\n"


def outgoing(*to: str, content: tuple[bytes, ...] = BODY, **given: Any) -> Outgoing:
    """A delivery; without recipients it has one."""
    size = sum(map(len, content))
    smtputf8 = bool(given.pop("smtputf8", False))
    return Outgoing(1, Envelope("me@example.com", to or ("a@b.example",), size, smtputf8), content, **given)


def pool_for(port: int, options: str = "max_connections=1", **settings: Any) -> Pool:
    """A relay on loopback."""
    config = relay_from("r", {"url": f"smtp://127.0.0.1:{port}?plaintext=allow&{options}"}, "test")
    return Pool(config, load(**settings), SYSTEM)


def begin(pool: Pool, message: Outgoing) -> "asyncio.Future[Report]":
    """Hand over; the report comes."""
    done: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
    pool.start(message, done.set_result)
    return done


async def send(pool: Pool, message: Outgoing) -> Report:
    """Hand over and wait for the report."""
    return await asyncio.wait_for(begin(pool, message), 10)


async def run(script: Script, message: Outgoing, *more: Script, **settings: Any) -> tuple[Report, ScriptedServer]:
    """One delivery, start to end."""
    async with ScriptedServer(script, *more) as server:
        pool = pool_for(server.port, **settings)
        report = await send(pool, message)
        await pool.close(0)
    return report, server


def codes(report: Report) -> list[tuple[Phase, int | None, Failure | None]]:
    """What decided about each forward-path."""
    return [(each.phase, each.reply.code if each.reply else None, each.failure) for each in report.results]


def envelope(*names: str) -> bytes:
    """The commands of `outgoing("NAME@b.example", ...)` in one write."""
    paths = names or ("a",)
    return MAIL + b"".join(b"RCPT TO:<%s@b.example>\r\n" % name.encode() for name in paths) + b"DATA\r\n"


CONTENT = BODY[0] + b".\r\n"
OPENED = (b"250 2.1.0 ok", b"250 2.1.5 ok", b"354 go")
SENT = [(Phase.DOT, 250, None)]


async def take(peer: Peer, *names: str) -> None:
    """Serve one whole transaction that follows nothing and is followed by nothing."""
    await peer.expect(envelope(*names))
    await peer.say(*OPENED)
    await peer.expect(CONTENT)
    await peer.say(b"250 2.0.0 taken")
