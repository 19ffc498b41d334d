"""HTTP in front of the service: the socket, uvicorn, and signals turned into the order in which a service ends.

What the service is made of, and in which order its parts stop, is app's.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from service.app import Service
from service.errors import ConfigurationError
from service.heads import protocol_of
from service.settings import Settings
from service.telemetry import Log, get_logger

log = get_logger()

_LAST_ANSWERS = 0.5  # seconds in which requests that are cut off may be told so
_YOUNG = 5000  # objects more than were freed, at which the collector looks for circles: at 700 it takes half as much time again
_TURN = 0.0005  # seconds for which a thread keeps the interpreter: who has committed wants it, to let the file go


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to `serve`, and one line for all requests that the end of the grace cuts off."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if cut := [task for task in self.server_state.tasks if task.cancelling()]:
            log.warning(Log.CUT_OFF, requests=len(cut))
            await asyncio.wait(cut, timeout=_LAST_ANSWERS)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """uvicorn tells as errors that it cancels requests, and of each a traceback; all of it is in the line above."""
    cut = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cut and not str(record.msg).startswith("Cancel %s running task")


async def serve(
    settings: Settings,
    *,
    capture: bool = False,
    ready: "asyncio.Future[int] | None" = None,
    until_stdin_ends: bool = False,
) -> int:
    """Run until SIGTERM or SIGINT, then drain; the exit status, 1 when one of our own loops failed.

    ready: gets the port once requests are answered. until_stdin_ends: who started us holds the other end.
    """
    service = await Service.start(settings, capture=capture)
    try:
        listener = _listen(settings)
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            service.http(),
            http=protocol_of(settings, service.clock, service.metrics),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(settings.drain_grace) or 1,
            timeout_keep_alive=75,  # seconds; longer than the usual proxy's 60, so that it is the proxy that closes
        )
        server = _Server(config)
        logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
        gc.collect()
        gc.freeze()  # what was loaded stays: a collection that looks through it again holds up the loop for tens of ms
        gc.set_threshold(_YOUNG)
        sys.setswitchinterval(_TURN)
        drain = _on_signals(server, service, settings)
        if until_stdin_ends:
            _on_end_of_stdin(drain)
        log.info(Log.LISTENING, host=settings.host, port=port, role=settings.role)
        if ready is not None:
            asyncio.get_running_loop().call_soon(ready.set_result, port)
        await server.serve([listener])
    finally:
        await service.stop()
    return int(service.failed)


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        both = settings.host == "::" and socket.has_dualstack_ipv6()  # then "::" is every address of either kind
        listener = socket.create_server(
            (settings.host, settings.port), family=family, backlog=2048, dualstack_ipv6=both
        )
    except OSError as error:
        names = "POSTROOM_HOST, POSTROOM_PORT (of a sender beside an api: POSTROOM_SENDER_PORT)"
        raise ConfigurationError(f"{names}: {settings.host}:{settings.port}: {error.strerror}") from None
    # asyncio's own loop sets it for no socket that names no protocol: each answer would wait 40 ms for an acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def _on_signals(server: uvicorn.Server, service: Service, settings: Settings) -> Callable[[], None]:
    """First signal: not ready, still accepting for the drain delay, then exit. Second: exit now. Answers what a signal
    does.
    """
    loop = asyncio.get_running_loop()

    def exit_now() -> None:
        service.stop_claiming()
        server.should_exit = True

    def drain() -> None:
        if service.readiness.draining:
            exit_now()
            return
        service.readiness.draining = True
        loop.call_later(settings.drain_delay, exit_now)

    service.on_failure = drain
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    return drain


def _on_end_of_stdin(drain: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            drain()

    loop.add_reader(0, look)
