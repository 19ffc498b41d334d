"""The server half of Dovecot's authentication protocol (version 1.1), as far as Postfix's smtpd uses it.

It knows one user. Postfix passes on what a client says for a mechanism and lets in whom this says OK to.
"""

import asyncio
import base64
import contextlib
import os
from pathlib import Path
from typing import Self

_HELLO = (
    "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n"
    "SPID\t1\nCUID\t1\nCOOKIE\t0123456789abcdef0123456789abcdef\nDONE\n"
)


class DovecotAuth:
    """Listens on `path` while entered. `logins` is what was tried: mechanism, and whether it was good."""

    def __init__(self, path: Path, user: str, secret: str) -> None:
        self._path, self._user, self._secret = path, user, secret
        self.logins: list[tuple[str, bool]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        os.chmod(self._path, 0o666)  # smtpd is another user
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_HELLO.encode())
        said: list[str] = []  # in the one exchange that is under way: user, then secret
        with contextlib.suppress(asyncio.CancelledError):  # the loop ends before Postfix does
            while line := (await reader.readline()).decode().rstrip("\n"):
                command, *words = line.split("\t")
                if command == "AUTH":
                    said.clear()
                if command in ("AUTH", "CONT"):
                    said += _said(words)
                    writer.write(self._answer(words[0], "PLAIN" if "PLAIN" in words else "LOGIN", said))
        writer.close()

    def _answer(self, number: str, mechanism: str, said: list[str]) -> bytes:
        if len(said) < 2:
            return f"CONT\t{number}\t{_encoded('Password:' if said else 'Username:')}\n".encode()
        user, secret = said
        good = (user, secret) == (self._user, self._secret)
        self.logins.append((mechanism, good))
        return f"{'OK' if good else 'FAIL'}\t{number}\tuser={user}\n".encode()


def _said(words: list[str]) -> list[str]:
    """PLAIN says all at once (RFC 4616), LOGIN one after the other."""
    response = words[-1].removeprefix("resp=") if words[-1].startswith("resp=") or len(words) == 2 else ""
    texts = base64.b64decode(response).decode().split("\0")
    return [text for text in texts if text]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
