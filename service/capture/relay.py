"""The development relay: a real SMTP server on loopback that keeps mail instead of sending it on.

It announces and serves PIPELINING, demands AUTH with any credentials, and answers a few recipients as sick relays
do, so that retries and bounces can be seen: `bounce@...` 550, `defer@...` 450, `full@...` 452.
"""

import asyncio
import logging
import warnings
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from service.capture.mailbox import CapturedMail, Mailbox
from service.clock import Clock

_SICK = {
    "bounce": "550 5.1.1 no such user (the capture relay refuses bounce@)",
    "defer": "450 4.2.0 try later (the capture relay defers defer@)",
    "full": "452 4.2.2 mailbox full (the capture relay defers full@)",
}
logging.getLogger("mail.log").setLevel(logging.ERROR)  # the library's own log, with a warning for each connection
MAX_SIZE = 64 * 1024 * 1024  # octets


class _Handler:
    def __init__(self, mailbox: Mailbox, clock: Clock) -> None:
        self._mailbox, self._clock = mailbox, clock

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        word = address.partition("@")[0].split("+")[0].lower()
        if word in _SICK:
            return _SICK[word]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        id = self._clock.new_id("cap_")
        sender = envelope.mail_from or ""
        self._mailbox.add(CapturedMail(id, self._clock.now(), sender, tuple(envelope.rcpt_tos), content))
        return f"250 2.0.0 captured as {id}"


def _anybody(*_: Any) -> AuthResult:
    return AuthResult(success=True)


class CaptureRelay:
    """One server; `start` binds, `stop` closes."""

    def __init__(self, mailbox: Mailbox, clock: Clock) -> None:
        self._handler = _Handler(mailbox, clock)
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on loopback."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _protocol(self) -> SMTP:
        with warnings.catch_warnings():
            # AUTH without TLS is what a relay on loopback is for; the library warns of it for each connection
            warnings.simplefilter("ignore", UserWarning)
            return self._make()

    def _make(self) -> SMTP:
        return SMTP(
            self._handler,
            hostname="capture.localhost",
            ident="Postroom capture relay",
            data_size_limit=MAX_SIZE,
            enable_SMTPUTF8=True,
            authenticator=_anybody,
            auth_required=True,
            auth_require_tls=False,
            loop=asyncio.get_running_loop(),
        )

    @property
    def url(self) -> str:
        """For POSTROOM_RELAY_URL."""
        # a secret is taken out of what a relay says: this one must not be a word of our own answers
        return f"smtp://capture:any-secret-does@127.0.0.1:{self.port}?plaintext=allow&max_connections=10"

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
