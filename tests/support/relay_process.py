"""Relays as one process of their own, healthy and sick, each on its port; what happened at each is on file.

`python -m tests.support.relay_process FOLDER MANNERS`: MANNERS is JSON, {name: [manner, ...]}. The connections of a relay
take its manners in turn. A manner says what is answered at a step other than the usual; the steps are greeting, ehlo,
auth, mail, rcpt, data and dot. An answer is a reply, or several with CRLF between them; the words `silence` and `drop`
are what they say. After a 421 the relay closes the connection. `pace` is the seconds that each octet of a reply takes,
from MAIL on. `extensions` are offered beside the usual ones; CHUNKING is served too.

FOLDER/relays.log has a line for each event: time, relay, number of the connection, `open`, `close`, `login` or `taken`, and
the Message-ID. What is taken is written down before its reply leaves.
"""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Manner = Mapping[str, Any]

_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*<([^>]+)>")
_USUAL = {
    "greeting": "220 relay.test",
    "auth": "235 2.7.0 ok",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go on",
    "dot": "250 2.0.0 taken",
    "rset": "250 2.0.0 ok",
    "bdat": "250 2.0.0 ok",  # a chunk that is not the last
    "quit": "221 2.0.0 bye",
}
_EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "AUTH PLAIN")


class _Connection(asyncio.Protocol):
    def __init__(self, name: str, number: int, manner: Manner, log: "_EventLog") -> None:
        self._name, self._number, self._manner, self._log = name, number, manner, log
        self._buffer = b""
        self._in_content = False
        self._chunk: int | None = None  # octets of the BDAT under way
        self._last = False  # whether that is the last; its end is answered as a final dot is
        self._silent = False
        self._slowly: asyncio.Queue[bytes] = asyncio.Queue()  # of replies, each an octet at a time
        self._dripping: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._note("open")
        self._answer("greeting")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("close")
        if self._dripping is not None:
            self._dripping.cancel()

    def _note(self, *words: str) -> None:
        self._log.write(self._name, str(self._number), *words)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._silent and not self._transport.is_closing():
            end, mark = (b"\r\n.\r\n", 5) if self._in_content else (b"\r\n", 2)
            at, mark = (self._buffer.find(end), mark) if self._chunk is None else (self._chunk, 0)
            if at < 0 or len(self._buffer) < at:
                return
            read, self._buffer = self._buffer[:at], self._buffer[at + mark :]
            if self._chunk is not None and not self._last:
                self._chunk = None
                self._answer("bdat")
            elif self._in_content or self._chunk is not None:
                self._in_content, self._chunk = False, None
                self._end_content(read)
            else:
                self._command(read)

    def _end_content(self, content: bytes) -> None:
        if self._manner.get("dot", "250").startswith("2"):
            found = _MESSAGE_ID.search(content)
            self._note("taken", found[1].decode() if found else "none")
        self._answer("dot")

    def _command(self, line: bytes) -> None:
        step = line[:4].decode("ascii", "replace").lower()
        if step == "auth":
            self._note("login")
        if step == "bdat":
            self._chunk, self._last = int(line.split()[1]), line.endswith(b" LAST")
            return
        self._answer(step)
        if step == "data" and self._manner.get("data", "354").startswith("354"):
            self._in_content = True
            self._buffer = b"\r\n" + self._buffer
        if step == "quit":
            self._transport.close()

    def _answer(self, step: str) -> None:
        answer = self._manner.get(step) or (self._ehlo() if step == "ehlo" else _USUAL.get(step, "502 5.5.2 what"))
        if answer == "silence":
            self._silent = True
        elif answer == "drop":
            self._transport.abort()
        else:
            self._say(answer.encode() + b"\r\n", step)
            if "421" in (line[:3] for line in answer.split("\r\n")):
                self._transport.close()

    def _ehlo(self) -> str:
        words = ["relay.test", *_EXTENSIONS, *self._manner.get("extensions", ())]
        return "\r\n".join([*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}"])

    def _say(self, reply: bytes, step: str) -> None:
        if "pace" not in self._manner or step in ("greeting", "ehlo", "auth"):
            self._transport.write(reply)
            return
        if self._dripping is None:
            self._dripping = asyncio.ensure_future(self._drip())
        self._slowly.put_nowait(reply)

    async def _drip(self) -> None:
        while True:
            for octet in await self._slowly.get():
                self._transport.write(bytes([octet]))
                await asyncio.sleep(self._manner["pace"])


class _EventLog:
    """Unbuffered, so that another process sees each line at once."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)

    def write(self, *words: str) -> None:
        self._file.write(f"{time.time():.6f} {' '.join(words)}\n".encode())


async def _main(folder: Path, manners: Mapping[str, Sequence[Manner]]) -> None:
    loop, log = asyncio.get_running_loop(), _EventLog(folder / "relays.log")
    ports = {}
    for name, in_turn in manners.items():
        turn = iter(range(sys.maxsize))

        def connection(name: str = name, in_turn: Sequence[Manner] = in_turn, turn: Any = turn) -> _Connection:
            number = next(turn)
            return _Connection(name, number, in_turn[number % len(in_turn)], log)

        server = await loop.create_server(connection, "127.0.0.1", 0, backlog=512)
        ports[name] = server.sockets[0].getsockname()[1]
    (folder / "relays.tmp").write_text(json.dumps(ports))
    (folder / "relays.tmp").rename(folder / "relays.ports")
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


@dataclass(frozen=True)
class Happened:
    """One line of the log: when (seconds of the wall clock), where, what, and the Message-ID of what was taken."""

    at: float
    relay: str
    connection: int
    what: str
    message_id: str = ""


class RelayProcess:
    """These relays, started and ended by a test."""

    def __init__(self, folder: Path, **manners: Manner | Sequence[Manner]) -> None:
        folder.mkdir(exist_ok=True)
        self._log = folder / "relays.log"
        given = {name: [manner] if isinstance(manner, Mapping) else list(manner) for name, manner in manners.items()}
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "tests.support.relay_process", str(folder), json.dumps(given)]
        self.process = subprocess.Popen(command, cwd=root)
        deadline = time.monotonic() + 20
        while not (folder / "relays.ports").exists():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.01)
        self.ports: dict[str, int] = json.loads((folder / "relays.ports").read_text())

    def url(self, name: str, scheme: str = "smtp") -> str:
        """With a login of its own, so that no two relays share an account."""
        return f"{scheme}://{name}%40example.com:CODE@127.0.0.1:{self.ports[name]}{'?plaintext=allow' if scheme == 'smtp' else ''}"

    def happened(self, what: str, relay: str | None = None) -> list[Happened]:
        """The events of one kind so far, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        events = [Happened(float(at), name, int(number), *words) for at, name, number, *words in map(str.split, lines)]
        return [each for each in events if each.what == what and relay in (None, each.relay)]

    def taken(self, relay: str | None = None) -> list[str]:
        """The Message-IDs that a relay took, or all; one for each copy."""
        return [each.message_id for each in self.happened("taken", relay)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def relays_file(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> Path:
    """A relays file with these tables; JSON's texts, numbers, truths and lists are also TOML's."""
    lines = []
    for name, values in tables.items():
        lines += [f"[relays.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    file = folder / "relays.toml"
    file.write_text("\n".join(lines))
    return file


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), json.loads(sys.argv[2])))
