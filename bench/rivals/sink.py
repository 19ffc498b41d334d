"""The relay that all rivals send to: `python -m bench.rivals.sink DELAY_MS [CERTIFICATE_AND_KEY]`, and its handle, `Sink`.

It offers PIPELINING, CHUNKING and 8BITMIME, with a certificate also STARTTLS and AUTH, which it then demands. It counts
copies and forward-paths, and remembers the id of every copy before the 250 leaves: the X-Bench-Id of its header, or without one
the number that smtp-source gave its last recipient. A copy without the mark in both its parts is counted as cut; those whose bytes
do not show the marks as they are (base64) are kept and decoded when the ids are asked for, after the turn. Each reply is late
by the delay. A second port answers in JSON lines: `reset`, `state`, `ids`. It prints both ports.
"""

import asyncio
import email
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import uvloop

from bench.rivals.work import ID_FIELD, MARK

ROOT = Path(__file__).resolve().parents[2]
_ID = re.compile(rb"(?im)^" + ID_FIELD.encode() + rb":[ \t]*([^\r\n]+)")
_NUMBERED = re.compile(rb"<([0-9]+)user@")  # smtp-source of Postfix 3.7, from 1
_NUMBERED_LATER = re.compile(rb"<user([0-9]+)@")  # of 3.10, from 0
_TAKEN, _BYE, _MARK = b"250 2.0.0 taken\r\n", b"221 2.0.0 bye\r\n", MARK.encode()
_END = b"\r\n.\r\n"


class Records:
    """What the sink has seen since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all of it."""
        self.ids: list[str] = []
        self.nameless = self.octets = self.connections = self.forward_paths = 0
        self._doubtful: list[bytes] = []
        self.last = 0.0
        self._cpu = time.process_time()

    def take(self, content: bytes, recipients: list[bytes]) -> None:
        """One copy."""
        self.forward_paths += len(recipients)
        if (id := _id_of(content) or number_of(recipients[-1])) is None:
            self.nameless += 1
        else:
            self.ids.append(id)
        if content.count(_MARK) < 2:
            self._doubtful.append(content)
        self.octets += len(content)
        self.last = time.monotonic()

    def state(self) -> dict[str, Any]:
        """The counts, and the seconds of processor time since the reset."""
        names = ("nameless", "octets", "connections", "forward_paths", "last")
        counts = {name: getattr(self, name) for name in names}
        return {"copies": len(self.ids) + self.nameless, "cpu": time.process_time() - self._cpu, **counts}

    def cut(self) -> int:
        """How many of the copies have a part without its mark."""
        return sum(not whole(content) for content in self._doubtful)


def _id_of(content: bytes) -> str | None:
    found = _ID.search(content, 0, content.find(b"\r\n\r\n") + 2)
    return found[1].decode("ascii", "replace") if found else None


def number_of(path: bytes) -> str | None:
    """Which message of `smtp-source -N -t user@...` it is, from 1 on, by its forward-path in angle brackets."""
    if found := _NUMBERED.search(path):
        return found[1].decode()
    return str(int(found[1]) + 1) if (found := _NUMBERED_LATER.search(path)) else None


def whole(content: bytes) -> bool:
    """Whether both text and html of a message end as they should."""
    message = email.message_from_bytes(content.lstrip(b"\r\n"))
    leaves = [part.get_payload(decode=True) for part in message.walk() if part.get_content_maintype() == "text"]
    return len(leaves) == 2 and all(isinstance(leaf, bytes) and _MARK in leaf for leaf in leaves)


class Session(asyncio.Protocol):
    """One SMTP connection."""

    def __init__(self, records: Records, delay: float, context: ssl.SSLContext | None) -> None:
        self._records, self._delay, self._context = records, delay, context
        self._buffer, self._searched = b"", 0
        self._secure = self._known = context is None
        self._content = False
        self._chunk = -1  # octets that a BDAT announced; -1: none
        self._chunks: list[bytes] = []
        self._last = False
        self._login = 0
        self._recipients: list[bytes] = []
        self._upgrade: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._records.connections += 1
        self._reply(b"220 sink\r\n")

    def _reply(self, replies: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._write, replies)
        else:
            self._write(replies)

    def _write(self, replies: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(replies)
        if replies.endswith(_BYE):
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = []
        while (reply := self._step()) is not None:
            replies.append(reply)
        if replies:
            self._reply(b"".join(replies))

    def _step(self) -> bytes | None:
        """The reply to what stands first in the buffer; None if that is not whole yet."""
        if self._chunk >= 0:
            return self._take_chunk()
        if self._content:
            return self._take_content()
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found or self._upgrade is not None:
            return None
        self._buffer = rest
        return self._answer(line)

    def _take_content(self) -> bytes | None:
        end = self._buffer.find(_END, self._searched)
        if end < 0:
            self._searched = max(len(self._buffer) - len(_END), 0)
            return None
        content, self._buffer = self._buffer[:end], self._buffer[end + len(_END) :]
        self._content, self._searched = False, 0
        self._records.take(content, self._recipients)
        return _TAKEN

    def _take_chunk(self) -> bytes | None:
        if len(self._buffer) < self._chunk:
            return None
        self._chunks.append(self._buffer[: self._chunk])
        self._buffer, self._chunk = self._buffer[self._chunk :], -1
        if self._last:
            self._records.take(b"".join(self._chunks), self._recipients)
            self._chunks = []
        return _TAKEN

    def _answer(self, line: bytes) -> bytes:
        command = line[:4].upper()
        if self._login:
            return self._go_on_logging_in()
        if command in (b"EHLO", b"HELO"):
            return self._greeting()
        if command == b"STAR":
            self._upgrade = asyncio.ensure_future(self._start_tls())
            return b""
        if command == b"AUTH":
            return self._log_in(line)
        if command == b"MAIL" and not (self._secure and self._known):
            return b"530 5.7.0 STARTTLS and AUTH first\r\n"
        return self._transact(command, line)

    def _transact(self, command: bytes, line: bytes) -> bytes:
        if command == b"RCPT":
            self._recipients.append(line)
        elif command == b"MAIL":
            self._recipients = []
        elif command == b"DATA":
            self._content = True
            self._buffer = b"\r\n" + self._buffer  # so that a lone dot is found as well
            return b"354 go on\r\n"
        elif command == b"BDAT":
            words = line.split()
            self._chunk, self._last = int(words[1]), len(words) > 2
            return b""
        elif command == b"QUIT":
            return _BYE
        return b"250 2.0.0 ok\r\n"

    def _greeting(self) -> bytes:
        extensions = [b"sink", b"PIPELINING", b"CHUNKING", b"8BITMIME", b"SIZE 50000000"]
        if not self._secure:
            extensions.append(b"STARTTLS")
        elif self._context is not None:
            extensions.append(b"AUTH PLAIN LOGIN")
        *first, last = extensions
        return b"".join(b"250-" + each + b"\r\n" for each in first) + b"250 " + last + b"\r\n"

    def _log_in(self, line: bytes) -> bytes:
        words = line.split()
        if words[1].upper() == b"LOGIN":
            self._login = 3 - len(words[1:])
            return b"334 VXNlcm5hbWU6\r\n" if self._login == 2 else b"334 UGFzc3dvcmQ6\r\n"
        if len(words) == 2:
            self._login = 1
            return b"334 \r\n"
        self._known = True
        return b"235 2.7.0 welcome\r\n"

    def _go_on_logging_in(self) -> bytes:
        self._login -= 1
        if self._login:
            return b"334 UGFzc3dvcmQ6\r\n"
        self._known = True
        return b"235 2.7.0 welcome\r\n"

    async def _start_tls(self) -> None:
        """RFC 3207 4: what came in clear behind the command is thrown away."""
        assert self._context is not None
        self._transport.pause_reading()
        self._buffer = b""
        await asyncio.sleep(self._delay)
        self._transport.write(b"220 2.0.0 go ahead\r\n")
        loop = asyncio.get_running_loop()
        try:
            self._transport = await loop.start_tls(self._transport, self, self._context, server_side=True)
        except OSError:
            return  # the peer went away
        self._secure, self._upgrade = True, None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._upgrade is not None:
            self._upgrade.cancel()


class Questions(asyncio.Protocol):
    """The second port: a word a line, an object a line."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for word in data.split():
            self._transport.write(json.dumps(self._answer(word)).encode() + b"\n")

    def _answer(self, word: bytes) -> Any:
        if word == b"reset":
            self._records.reset()
        if word == b"ids":
            return {"ids": self._records.ids, "cut": self._records.cut()}
        return self._records.state()


async def serve(delay: float, chain: str | None) -> None:
    """Listen until killed."""
    context = None
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
    records, loop = Records(), asyncio.get_running_loop()
    relay = await loop.create_server(lambda: Session(records, delay, context), "127.0.0.1", 0, backlog=1024)
    questions = await loop.create_server(lambda: Questions(records), "127.0.0.1", 0)
    print(*(server.sockets[0].getsockname()[1] for server in (relay, questions)), flush=True)
    await relay.serve_forever()


class Sink:
    """The sink as a process, asked over its second port. `port` is where it takes mail."""

    def __init__(self, delay_ms: int = 0, chain: Path | None = None) -> None:
        arguments = [str(delay_ms), *([str(chain)] if chain else [])]
        command = [sys.executable, "-m", "bench.rivals.sink", *arguments]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        try:
            self.port, questions = map(int, self._process.stdout.readline().split())
        except ValueError:
            self._process.kill()
            raise RuntimeError("the sink did not start") from None
        self._socket = socket.create_connection(("127.0.0.1", questions), 30)
        self._answers = self._socket.makefile()

    def _ask(self, word: str) -> Any:
        self._socket.sendall(f"{word}\n".encode())
        return json.loads(self._answers.readline())

    def reset(self) -> None:
        """Forget what came."""
        self._ask("reset")

    def state(self) -> dict[str, Any]:
        """Records.state."""
        return dict(self._ask("state"))

    def copies(self) -> tuple[list[str], int]:
        """The id of every copy, and how many of them are cut."""
        answer = self._ask("ids")
        return answer["ids"], answer["cut"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1]) / 1000, sys.argv[2] if len(sys.argv) > 2 else None))
