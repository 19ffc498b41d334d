"""A wire between client and server that keeps what the client sent, octet for octet."""

import asyncio
import contextlib


class Tap:
    """Listens on `port`, hands everything on to another port; `sent` is what the clients wrote."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.sent = b""
        self.port = 0

    async def __aenter__(self) -> "Tap":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", self._target)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, ahead, keep=True), self._pump(behind, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool = False) -> None:
        try:
            while data := await reader.read(65536):
                if keep:
                    self.sent += data
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
