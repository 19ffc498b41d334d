"""A sink on uvloop that offers AUTH: `python -m bench.own_sink [--step-by-step] [CERTIFICATE_AND_KEY]`.

With a certificate it speaks TLS from the start; `--step-by-step` offers neither PIPELINING nor CHUNKING. Prints its port.
"""

import asyncio
import ssl
import sys
from typing import Any

import uvloop

STEP_BY_STEP = "--step-by-step" in sys.argv
GROUPS = b"" if STEP_BY_STEP else b"250-PIPELINING\r\n250-CHUNKING\r\n"
EHLO = b"250-sink\r\n" + GROUPS + b"250-8BITMIME\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE 50000000\r\n"


class _Sink(asyncio.Protocol):
    def __init__(self) -> None:
        self.buffer = b""
        self.content = False
        self.chunk = -1  # octets that a BDAT announced; -1: none
        self.login = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        answers = []
        while True:
            if self.chunk >= 0:
                if len(self.buffer) < self.chunk:
                    break
                self.buffer, self.chunk = self.buffer[self.chunk :], -1
                answers.append(b"250 2.0.0 taken\r\n")
                continue
            if self.content:
                end = self.buffer.find(b"\r\n.\r\n")
                if end < 0:
                    break
                self.buffer, self.content = self.buffer[end + 5 :], False
                answers.append(b"250 2.0.0 taken\r\n")
                continue
            line, found, rest = self.buffer.partition(b"\r\n")
            if not found:
                break
            self.buffer = rest
            if line[:5].upper() == b"BDAT ":
                self.chunk = int(line.split()[1])
            else:
                answers.append(self.answer(line))
        if answers:
            self.transport.write(b"".join(answers))

    def answer(self, line: bytes) -> bytes:
        command = line[:4].upper()
        if self.login:
            self.login -= 1
            return b"334 UGFzc3dvcmQ6\r\n" if self.login else b"235 2.7.0 ok\r\n"
        if command == b"EHLO":
            return EHLO
        if line[:10].upper() == b"AUTH LOGIN":
            self.login = 2 if len(line) == 10 else 1
            return b"334 VXNlcm5hbWU6\r\n"
        if command == b"AUTH":
            return b"235 2.7.0 ok\r\n"
        if command == b"DATA":
            self.content = True
            self.buffer = b"\r\n" + self.buffer
            return b"354 go on\r\n"
        return b"221 bye\r\n" if command == b"QUIT" else b"250 2.0.0 ok\r\n"


async def _main(chain: str | None) -> None:
    context = None
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0, ssl=context, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(next((each for each in sys.argv[1:] if not each.startswith("--")), None)))
