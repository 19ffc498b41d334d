"""An SMTP sink as a process of its own: fast, PIPELINING, and it remembers every copy, whatever is killed around it.

`python -m tests.support.sink_process PORT_FILE LOG_FILE [DELAY_MS]` listens on a free port and appends one line for each
message it has taken: the Message-ID. The line is written before the 250 leaves. DELAY_MS waits before that reply.

When it is told to end it lints the last messages that it took and writes what is wrong beside LOG_FILE: not before, so
that it stays fast.
"""

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.rfc_lint import lint

_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*<([^>]+)>")
_KEPT = 500  # messages to be linted
_KEPT_OCTETS = 1024 * 1024  # of one
Kept = deque[tuple[bytes, bool]]  # content as it came over the wire, and whether it came with SMTPUTF8


class _Sink(asyncio.Protocol):
    def __init__(self, log: Any, delay: float, kept: Kept) -> None:
        self._log, self._delay, self._kept = log, delay, kept
        self._utf8 = False
        self._holding = False
        self._buffer = b""
        self._content: list[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read()

    def _read(self) -> None:
        while not self._holding:  # replies come in the order of the commands (RFC 2920 3.2)
            if self._content is not None:
                end = self._buffer.find(b"\r\n.\r\n")
                if end < 0:
                    return
                content, self._buffer = self._buffer[:end], self._buffer[end + 5 :]
                self._content = None
                self._take(content)
                continue
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                return
            self._buffer = rest
            self._command(line.upper())

    def _take(self, content: bytes) -> None:
        found = _MESSAGE_ID.search(content)
        self._log.write((found[1] if found else b"none") + b"\n")
        self._log.flush()
        if len(content) < _KEPT_OCTETS:
            self._kept.append((content, self._utf8))
        reply = b"250 2.0.0 taken\r\n"
        if self._delay:
            self._holding = True
            asyncio.get_running_loop().call_later(self._delay, self._release, reply)
        else:
            self._transport.write(reply)

    def _release(self, reply: bytes) -> None:
        self._transport.write(reply)
        self._holding = False
        self._read()

    def _command(self, line: bytes) -> None:
        if line.startswith(b"EHLO"):
            self._transport.write(b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
        elif line.startswith(b"MAIL"):
            self._utf8 = b" SMTPUTF8" in line
            self._transport.write(b"250 2.1.0 ok\r\n")
        elif line == b"DATA":
            self._content = []
            self._buffer = b"\r\n" + self._buffer
            self._transport.write(b"354 go on\r\n")
        elif line == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 2.0.0 ok\r\n")


def _faults(kept: Iterable[tuple[bytes, bool]]) -> list[str]:
    """What the linter says of the messages, their dots unstuffed (RFC 5321 4.5.2)."""
    messages = ((content.replace(b"\r\n.", b"\r\n")[2:] + b"\r\n", utf8) for content, utf8 in kept)
    return [f"{fault} in {raw[:2000]!r}" for raw, utf8 in messages for fault in lint(raw, eai=utf8)]


async def _serve(port_file: Path, log: Any, delay: float, kept: Kept) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Sink(log, delay, kept), "127.0.0.1", 0)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    port_file.with_suffix(".tmp").write_text(str(server.sockets[0].getsockname()[1]))
    port_file.with_suffix(".tmp").rename(port_file)
    await ended.wait()
    server.close()


def _main(port_file: Path, log_file: Path, delay: float) -> None:
    """The log outlives the loop: connections that are still open are read until that one is closed."""
    kept: Kept = deque(maxlen=_KEPT)
    with log_file.open("ab", buffering=0) as log:
        asyncio.run(_serve(port_file, log, delay, kept))
    log_file.with_suffix(".faults").write_text("\n".join(_faults(kept)))


class SinkProcess:
    """The sink, started and ended by a test."""

    def __init__(self, folder: Path, delay_ms: int = 0) -> None:
        self._port_file, self._log = folder / "sink.port", folder / "sink.log"
        self._log.touch()
        root = Path(__file__).resolve().parents[2]
        arguments = [str(self._port_file), str(self._log), str(delay_ms)]
        self.process = subprocess.Popen([sys.executable, "-m", "tests.support.sink_process", *arguments], cwd=root)
        deadline = time.monotonic() + 20
        while not self._port_file.exists():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.01)
        self.port = int(self._port_file.read_text())

    @property
    def url(self) -> str:
        """For POSTROOM_RELAY_URL."""
        return f"smtp://127.0.0.1:{self.port}?plaintext=allow&max_connections=8&max_messages_per_connection=10000"

    def copies(self) -> dict[str, int]:
        """How often each Message-ID was taken."""
        counted: dict[str, int] = {}
        for line in self._log.read_text().split():
            counted[line] = counted.get(line, 0) + 1
        return counted

    def __enter__(self) -> "SinkProcess":
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        if failure is None:
            assert self._log.with_suffix(".faults").read_text() == ""


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) / 1000)
