"""A scripted SMTP peer: expect bytes, answer bytes, drop, stall. What it got is kept for exact comparison."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable


class Peer:
    """One connection, as the script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.got = b""

    async def expect(self, wanted: bytes) -> None:
        """Read exactly these bytes."""
        read = await asyncio.wait_for(self._reader.readexactly(len(wanted)), 5)
        self.got += read
        assert read == wanted, (read, wanted)

    async def line(self) -> bytes:
        """Read one line."""
        read = await asyncio.wait_for(self._reader.readline(), 5)
        self.got += read
        return read

    async def content(self) -> bytes:
        """Read up to the final dot."""
        read = b""
        while not read.endswith(b"\r\n.\r\n") and read != b".\r\n":
            read += await self.line()
        return read

    async def say(self, *lines: bytes, split: int = 0) -> None:
        """Answer; `split` writes that many octets at a time."""
        data = b"".join(line + b"\r\n" for line in lines)
        step = split or len(data) or 1
        for at in range(0, len(data), step):
            self._writer.write(data[at : at + step])
            await self._writer.drain()
            if split:
                await asyncio.sleep(0)

    async def hello(self, *extensions: bytes) -> None:
        """Greeting and EHLO."""
        await self.say(b"220 peer")
        assert (await self.line()).startswith(b"EHLO ")
        lines = [b"peer", *extensions]
        await self.say(*(b"250-" + line for line in lines[:-1]), b"250 " + lines[-1])

    async def some(self) -> bytes:
        """Read whatever comes next, at least one octet."""
        read = await asyncio.wait_for(self._reader.read(65536), 5)
        self.got += read
        return read

    async def rest(self) -> bytes:
        """Everything until the client closes."""
        read = await asyncio.wait_for(self._reader.read(), 5)
        self.got += read
        return read

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on in TLS; what is read from here on is what was in it."""
        await self._writer.start_tls(context)

    def drop(self) -> None:
        """Close hard."""
        self._writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Runs one script for each connection, in order; `check` raises what a script raised."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self._failures: list[BaseException] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.peers: list[Peer] = []
        self.port = 0

    async def __aenter__(self) -> "ScriptedServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if (task := asyncio.current_task()) is not None:
            self._tasks.append(task)
        try:
            if self._scripts:
                await self._scripts.pop(0)(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    async def ended(self) -> None:
        """Wait until all scripts that were begun have ended."""
        await asyncio.wait_for(asyncio.gather(*self._tasks, return_exceptions=True), 10)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._failures:
            raise self._failures[0]
