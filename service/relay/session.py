"""Open a session: connect, TLS, EHLO, AUTH by aiosmtplib; then take the transport over for our own mail transactions.

This is the only importer of aiosmtplib. One SMTP object for each connection, never touched again after the swap;
one mechanism, so that one wrong secret is one failed login; STARTTLS is demanded or never used. It reports phase
and reply and judges nothing.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiosmtplib

from service.errors import ConfigurationError
from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply, decode, make_reply
from service.relay.config import RelayConfig, Tls
from service.relay.conversation import Conversation
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for each phase (RFC 5321 4.5.3.2 gives the outer bounds)."""

    connect: float = 15
    greeting: float = 30
    command: float = 60
    data: float = 120
    block: float = 180
    dot: float = 300
    total: float = 900

    @classmethod
    def of(cls, settings: Settings) -> "Timeouts":
        """From the settings."""
        return cls(
            settings.connect_timeout,
            settings.greeting_timeout,
            settings.command_timeout,
            settings.data_timeout,
            settings.block_timeout,
            settings.dot_timeout,
            settings.transaction_timeout,
        )


class SessionFailure(Exception):
    """No session: the phase it failed in, with the relay's reply or the failure."""

    def __init__(self, phase: Phase, *, reply: Reply | None = None, failure: Failure | None = None, detail: str = ""):
        self.phase, self.reply, self.failure, self.detail = phase, reply, failure, detail
        super().__init__(f"{phase}: {reply or failure}: {detail}")


@dataclass(slots=True)
class Session:
    """An authenticated connection that speaks our own transactions."""

    conversation: Conversation
    capabilities: dict[str, str]  # EHLO keywords in lower case, with their parameters
    words: str  # for the log: host, port, TLS version, mechanism
    opened: float  # monotonic seconds
    served: int = 0
    timings: dict[str, float] = field(default_factory=dict)  # ms: connect, tls, ehlo, auth

    @property
    def max_size(self) -> int | None:
        """What SIZE announced (RFC 1870), None when nothing or 0."""
        value = self.capabilities.get("size", "")
        return int(value) or None if value.isascii() and value.isdigit() else None

    def renew(self) -> None:
        """Take it for worn out: what follows goes over a new connection."""
        self.opened = float("-inf")

    async def quit(self, timeout: float = 5) -> None:
        """QUIT politely, then close."""
        await self.conversation.quit(timeout)

    def abort(self) -> None:
        """Close at once."""
        self.conversation.abort()


def tls_context(config: RelayConfig) -> ssl.SSLContext | None:
    """One context for all sessions of a relay: verified, TLS 1.2 or newer. Raises ConfigurationError."""
    if config.tls is Tls.NONE:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"relay {config.name}: ca_file: {config.ca_file}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def open_session(
    config: RelayConfig,
    context: ssl.SSLContext | None,
    timeouts: Timeouts,
    ehlo_name: str,
    monotonic: Callable[[], float],
) -> Session:
    """Connect and authenticate. Raises SessionFailure."""
    client = aiosmtplib.SMTP(
        hostname=config.host,
        port=config.port,
        local_hostname=ehlo_name,
        use_tls=config.tls is Tls.IMPLICIT,
        start_tls=False,  # its default is opportunistic; STARTTLS is demanded below instead
        tls_context=context,
        timeout=timeouts.greeting,
    )
    timings: dict[str, float] = {}

    async def step(phase: Phase, work: Awaitable[Any]) -> Any:
        began = monotonic()
        try:
            return await work
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            raise _failure(phase, error, config) from error
        finally:
            timings[phase.value] = (monotonic() - began) * 1000

    try:
        await step(Phase.CONNECT, client.connect(timeout=timeouts.connect))
        await step(Phase.EHLO, client.ehlo())
        if config.tls is Tls.STARTTLS:
            await step(Phase.TLS, _start_tls(client, config))
            await step(Phase.EHLO, client.ehlo())
        mechanism = await step(Phase.AUTH, _authenticate(client, config))
        # no await from AUTH's reply to here: nothing may arrive between it and the swap
        return _take_over(client, config, mechanism, timings, monotonic())
    except BaseException:
        with contextlib.suppress(Exception):
            client.close()
        raise


async def _start_tls(client: aiosmtplib.SMTP, config: RelayConfig) -> None:
    if not client.supports_extension("starttls"):
        raise SessionFailure(
            Phase.TLS, failure=Failure.TLS, detail=f"{config.host} does not offer STARTTLS; nothing was sent"
        )
    await client.starttls()


async def _authenticate(client: aiosmtplib.SMTP, config: RelayConfig) -> str:
    """Log in with the first mechanism of the preset that the relay announces; never with a second one."""
    if not config.user:
        return ""
    offered = {method.upper() for method in client.server_auth_methods}
    mechanism = next((each for each in config.auth if each in offered), None)
    if mechanism is None:
        detail = f"{config.host} offers AUTH {' '.join(sorted(offered)) or 'nothing'}, wanted {' '.join(config.auth)}"
        raise SessionFailure(Phase.AUTH, failure=Failure.CAPABILITY, detail=detail)
    login = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login, "CRAM-MD5": client.auth_crammd5}[mechanism]
    await login(config.user, config.secret.get_secret_value())
    return mechanism


def _take_over(
    client: aiosmtplib.SMTP, config: RelayConfig, mechanism: str, timings: dict[str, float], now: float
) -> Session:
    transport: Any = client.transport
    protocol: Any = client.protocol
    left = bytes(getattr(protocol, "_buffer", b""))
    if transport is None or transport.is_closing() or left:
        # a 421 in the same segment as the 235, or the connection is gone already
        reply = _parse_left(left)
        raise SessionFailure(
            Phase.AUTH, reply=reply, failure=None if reply else Failure.LOST, detail="closed after AUTH"
        )
    capabilities = {name.lower(): value.strip() for name, value in client.esmtp_extensions.items()}
    conversation = Conversation(transport)
    transport.set_protocol(conversation)
    tls = transport.get_extra_info("ssl_object")
    words = f"{config.host}:{config.port} {tls.version() if tls else 'no TLS'}"
    if mechanism:
        words += f" AUTH {mechanism}"
    return Session(conversation, capabilities, words, now, timings=timings)


def _parse_left(left: bytes) -> Reply | None:
    line = left.split(b"\r\n")[0]
    return make_reply(int(line[:3]), [decode(line[4:])]) if line[:3].isdigit() else None


def _failure(phase: Phase, error: Exception, config: RelayConfig) -> SessionFailure:
    """What aiosmtplib raised, in our words. Order matters: its timeouts are also connection errors."""
    detail = str(error)[:300].replace(config.secret.get_secret_value() or "\0", "[secret]")
    if isinstance(error, SessionFailure):
        return error
    if isinstance(error, aiosmtplib.SMTPResponseException):
        greeting = phase is Phase.CONNECT
        text = error.message.encode("utf-8", "surrogateescape")
        return SessionFailure(
            Phase.GREETING if greeting else phase, reply=make_reply(error.code, decode(text).splitlines())
        )
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLError | ssl.CertificateError):
        return SessionFailure(Phase.TLS, failure=Failure.TLS, detail=f"{cause}")
    if isinstance(cause, socket.gaierror):
        return SessionFailure(Phase.CONNECT, failure=Failure.DNS, detail=f"{config.host}: {cause.strerror}")
    if isinstance(error, TimeoutError | asyncio.TimeoutError | aiosmtplib.SMTPTimeoutError):
        return SessionFailure(phase, failure=Failure.TIMEOUT, detail=detail)
    if isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(cause, OSError):
        return SessionFailure(phase, failure=Failure.REFUSED, detail=f"{config.host}:{config.port}: {cause}")
    if isinstance(error, aiosmtplib.SMTPServerDisconnected | ConnectionError):
        return SessionFailure(phase, failure=Failure.LOST, detail=detail)
    return SessionFailure(phase, failure=Failure.PROTOCOL, detail=detail)
