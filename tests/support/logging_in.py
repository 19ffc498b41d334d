"""Sessions against scripted peers: open one, see what was said and why there is none."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from service.clock import SYSTEM
from service.relay.config import RelayConfig, relay_from
from service.relay.session import Session, SessionFailure, Timeouts, open_session, tls_context
from tests.support.smtp_script import Peer, Script, ScriptedServer

T = TypeVar("T")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
QUICK = Timeouts(connect=5, greeting=5, command=5, check=15)
USER, SECRET = "ädä@example.com", "pässwörd 授权码"


def relay(port: int, scheme: str = "smtp", **keys: Any) -> RelayConfig:
    """A relay on loopback with a login."""
    login = (
        ""
        if keys.keys() & {"token_command", "token_file", "oauth2"}
        else ":p%C3%A4ssw%C3%B6rd%20%E6%8E%88%E6%9D%83%E7%A0%81"
    )
    query = "?plaintext=allow" if scheme == "smtp" else ""
    url = f"{scheme}://%C3%A4d%C3%A4%40example.com{login}@localhost:{port}{query}"
    return relay_from("r", {"url": url, **keys}, "test")


async def open_to(config: RelayConfig, timeouts: Timeouts = QUICK) -> Session:
    """A session, or SessionFailure."""
    return await open_session(config, tls_context(config), timeouts, "me.example", SYSTEM.monotonic)


async def refused(config: RelayConfig, timeouts: Timeouts = QUICK) -> SessionFailure:
    """Why there is no session."""
    try:
        session = await open_to(config, timeouts)
    except SessionFailure as failure:
        return failure
    session.abort()
    raise AssertionError("a session was opened")


def offering(*extensions: bytes) -> Callable[[Callable[[Peer], Coroutine[Any, Any, None]]], Script]:
    """A script that greets, offers, goes on, and then reads until the client has closed."""

    def decorate(goes_on: Callable[[Peer], Coroutine[Any, Any, None]]) -> Script:
        async def script(peer: Peer) -> None:
            await peer.hello(*extensions)
            await goes_on(peer)
            await peer.rest()

        return script

    return decorate


async def against(script: Script, *more: Script, **keys: Any) -> tuple[SessionFailure | Session, list[bytes]]:
    """What came of opening a session, and what each peer got after EHLO."""
    async with ScriptedServer(script, *more) as server:
        try:
            result: SessionFailure | Session = await open_to(relay(server.port, **keys))
        except SessionFailure as failure:
            result = failure
        else:
            result.abort()
        await server.ended()
    return result, [peer.got.removeprefix(b"EHLO me.example\r\n") for peer in server.peers]


def on_loop(name: str, work: Coroutine[Any, Any, T]) -> T:
    """Run on one of LOOPS."""
    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        return runner.run(work)
