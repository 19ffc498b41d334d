"""Several processes on one store, each with a pool of its own for the same account, and a relay that is scripted."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from service.relay.config import RelayConfig, relay_from
from service.relay.pool import Pool
from service.settings import load
from service.spool.ledger import StoreLedger
from service.store import open_store
from service.store.port import Store
from service.telemetry import Metrics
from tests.support.clock import SteppedClock

EXTENSIONS = b"250-peer\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n"


@dataclass
class Provider:
    """Counts logins, answers 535 to all secrets but `secret`, and takes every message. `async with` starts it."""

    clock: SteppedClock
    secret: str = ""
    logins: list[float] = field(default_factory=list)  # when, seconds
    taken: int = 0
    port: int = 0
    silent: bool = False  # a login is never answered
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # a login has arrived

    async def __aenter__(self) -> "Provider":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 peer\r\n")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                writer.write(self._answer(line.strip()))
                if line.strip().upper() == b"DATA":
                    await reader.readuntil(b"\r\n.\r\n")
                    self.taken += 1
                    writer.write(b"250 2.0.0 taken\r\n")
        writer.close()

    def _answer(self, line: bytes) -> bytes:
        verb = line.partition(b" ")[0].upper()
        if verb == b"EHLO":
            return EXTENSIONS
        if verb == b"AUTH":
            return self._log_in(line)
        return {b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n")

    def _log_in(self, line: bytes) -> bytes:
        self.logins.append(self.clock.monotonic())
        self.asked.set()
        if self.silent:
            return b""
        given = base64.b64decode(line.split()[2]).split(b"\0")[2].decode()
        return b"235 2.7.0 ok\r\n" if given == self.secret else b"535 5.7.8 Error: authentication failed\r\n"

    def most_within(self, seconds: float, *, after: float = 0.0) -> int:
        """The most logins in any window of so many seconds, of those that came later than `after` from the first on."""
        times = [at for at in self.logins if at >= self.logins[0] + after]
        return max((sum(at <= other < at + seconds for other in times) for at in times), default=0)


class Unwilling(Provider):
    """Takes each login and no message: `words` to each MAIL."""

    words = b""

    def _answer(self, line: bytes) -> bytes:
        if line.upper().startswith((b"MAIL", b"RCPT")):
            return (self.words if line.upper().startswith(b"MAIL") else b"503 5.5.1 MAIL first") + b"\r\n"
        return super()._answer(line).replace(b"250-PIPELINING\r\n", b"")


def config_for(port: int, secret: str = "WRONG", **more: object) -> RelayConfig:
    """The account at the provider."""
    url = f"smtp://me%40163.com:{secret}@127.0.0.1:{port}?plaintext=allow&max_connections=5"
    return relay_from("r", {"url": url, "auth": ["PLAIN"], **more}, "test")


@dataclass
class Process:
    """What one process has of a relay."""

    store: Store
    ledger: StoreLedger
    pool: Pool
    metrics: Metrics
    loop: "asyncio.Task[None]"

    async def die(self) -> None:
        """Nothing more is told."""
        self.loop.cancel()
        await asyncio.gather(self.loop, return_exceptions=True)


@contextlib.asynccontextmanager
async def process(
    folder: Path, clock: SteppedClock, config: RelayConfig, name: str, role: str = "sender", **settings: object
) -> AsyncIterator[Process]:
    """A process with a ledger and one pool."""
    store = open_store(f"sqlite:///{folder}/post.db", clock, holder=name)
    await store.open()
    metrics = Metrics()
    ledger = StoreLedger(store, name, metrics)
    pool = Pool(config, load(role=role, **settings), clock, ledger)
    await ledger.refresh()
    made = Process(store, ledger, pool, metrics, asyncio.create_task(ledger.run()))
    try:
        yield made
    finally:
        await pool.close(0)
        await made.die()
        await ledger.close(5)
        await store.close()
