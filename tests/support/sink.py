"""A real SMTP server (aiosmtpd) that demands TLS and AUTH as a provider does, and keeps what it gets."""

import asyncio
import logging
import ssl
import warnings
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

logging.getLogger("mail.log").setLevel(logging.CRITICAL)


@dataclass
class Received:
    """One message at the sink."""

    mail_from: str
    rcpt_tos: list[str]
    content: bytes
    tls: bool
    mechanism: str


@dataclass
class Sink:
    """Start with `await sink.start(...)`; messages arrive in `received`."""

    user: str = "zouchengzhuo@163.com"
    password: str = "AUTHCODE"
    received: list[Received] = field(default_factory=list)
    logins: list[tuple[str, bool]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    replies: dict[str, str] = field(default_factory=dict)  # recipient -> reply to RCPT
    smtputf8: bool = True
    size_limit: int = 64 * 1024 * 1024
    data_replies: list[str] = field(
        default_factory=list
    )  # to the first contents, in order; "drop" loses the connection; then 250

    async def start(
        self,
        *,
        implicit: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN"),
    ) -> "Sink":
        exclude = [name for name in ("PLAIN", "LOGIN") if name not in mechanisms]

        def protocol() -> SMTP:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return SMTP(
                    self,
                    hostname="sink.test",
                    authenticator=self._authenticate,
                    auth_required=True,
                    auth_require_tls=starttls is not None,
                    auth_exclude_mechanism=exclude,
                    require_starttls=starttls is not None,
                    tls_context=starttls,
                    enable_SMTPUTF8=self.smtputf8,
                    data_size_limit=self.size_limit,
                    loop=asyncio.get_running_loop(),
                )

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=implicit)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = (data.login.decode(), data.password.decode()) == (self.user, self.password)
        self.logins.append((mechanism, good))
        session.mechanism = mechanism
        return AuthResult(success=good, handled=False)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.replies:
            return self.replies[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mechanism = getattr(session, "mechanism", "")
        tls = session.ssl is not None
        self.received.append(Received(envelope.mail_from, list(envelope.rcpt_tos), envelope.content, tls, mechanism))
        self.arrived.set()
        if self.data_replies:
            reply = self.data_replies.pop(0)
            if reply == "drop":
                server.transport.abort()
            return reply
        return f"250 2.0.0 queued as {len(self.received)}"

    async def stop(self) -> None:
        self._server.close()
