"""A relay whose answers to a recipient are told by the address, as a process of its own that no kill touches.

`busy...@` gets 450 twice and then 250, `gone...@` gets 550, all others 250. It offers PIPELINING. What it takes is one line
of JSON, written before the 250 to the final dot leaves; that reply is held for some milliseconds, so that many kills fall
between the two.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Self

from tests.support.checker import Copy
from tests.support.process import ROOT
from tests.support.waiting import wait_for

CONNECTIONS = 8  # of each process that sends to it
_BUSY_TIMES = 2
_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*<([^>]+)>")
_ADDRESS = re.compile(r"<([^>]*)>")


class _Session(asyncio.Protocol):
    def __init__(self, log: Any, delay: float, asked: Counter[str]) -> None:
        self._log, self._delay, self._asked = log, delay, asked
        self._buffer = b""
        self._paths: list[str] = []
        self._in_content = self._holding = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._say("220 relay.test")

    def _say(self, reply: str) -> None:
        self._transport.write(reply.encode() + b"\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._read()

    def _read(self) -> None:
        while not self._holding:  # RFC 2920 3.2: replies come in the order of the commands
            end = b"\r\n.\r\n" if self._in_content else b"\r\n"
            piece, found, rest = self._buffer.partition(end)
            if not found:
                return
            self._buffer = rest
            if self._in_content:
                self._take(piece)
            else:
                self._command(piece.decode())

    def _command(self, line: str) -> None:
        verb = line[:4].upper()
        if verb == "EHLO":
            self._say("250-relay.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
        elif verb == "MAIL":
            self._paths = []
            self._say("250 2.1.0 ok")
        elif verb == "RCPT":
            self._say(self._recipient(_ADDRESS.findall(line)[0]))
        elif verb == "DATA" and not self._paths:
            self._say("554 5.5.1 no valid recipients")
        elif verb == "DATA":
            self._in_content, self._buffer = True, b"\r\n" + self._buffer
            self._say("354 go on")
        elif verb == "QUIT":
            self._say("221 2.0.0 bye")
            self._transport.close()
        else:
            self._say("250 2.0.0 ok")

    def _recipient(self, address: str) -> str:
        if address.startswith("gone"):
            return "550 5.1.1 no such user"
        if address.startswith("busy"):
            self._asked[address] += 1
            if self._asked[address] <= _BUSY_TIMES:
                return "450 4.2.1 the mailbox is busy"
        self._paths.append(address)
        return "250 2.1.5 ok"

    def _take(self, content: bytes) -> None:
        self._in_content, self._holding = False, True
        name = _MESSAGE_ID.findall(content)
        line = {"message_id": name[0].decode() if name else "", "recipients": self._paths}
        self._log.write(json.dumps(line).encode() + b"\n")
        asyncio.get_running_loop().call_later(self._delay, self._taken)

    def _taken(self) -> None:
        if self._transport.is_closing():  # its sender was killed meanwhile
            return
        self._holding = False
        self._say("250 2.0.0 taken")
        self._read()


async def _main(port_file: Path, log_file: Path, delay: float) -> None:
    asked: Counter[str] = Counter()
    with log_file.open("ab", buffering=0) as log:
        server = await asyncio.get_running_loop().create_server(lambda: _Session(log, delay, asked), "127.0.0.1", 0)
        port_file.with_suffix(".new").write_text(str(server.sockets[0].getsockname()[1]))
        port_file.with_suffix(".new").rename(port_file)
        await server.serve_forever()


class JudgingSink:
    """The sink, started and ended by a test. `delay`: seconds before the reply to the final dot."""

    def __init__(self, folder: Path, delay: float = 0.005) -> None:
        self._folder, port_file, self._log = folder, folder / "judge.port", folder / "judge.log"
        port_file.unlink(missing_ok=True)
        self._log.touch()
        arguments = [str(port_file), str(self._log), str(delay)]
        self.process = subprocess.Popen([sys.executable, "-m", "tests.soak.sink", *arguments], cwd=ROOT)
        assert wait_for(port_file.exists, 30), "the sink did not start"
        self.port = int(port_file.read_text())

    def relays_file(self) -> Path:
        """For POSTROOM_RELAYS_FILE: with a quota, which claims take from."""
        file = self._folder / "relays.toml"
        file.write_text(
            f'[relays.main]\nurl = "smtp://127.0.0.1:{self.port}?plaintext=allow"\nmax_connections = {CONNECTIONS}\n'
            'max_messages_per_connection = 10000\nquotas = ["1000000/h"]\n'
        )
        return file

    def copies(self) -> list[Copy]:
        """What it took, in order."""
        lines = self._log.read_text().splitlines()
        return [Copy(each["message_id"], tuple(each["recipients"])) for each in map(json.loads, lines)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
