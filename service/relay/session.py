"""Open a session: TLS, EHLO, AUTH by aiosmtplib on a socket of ours; then take the transport over for our own transactions.

This is the only importer of aiosmtplib. One SMTP object for each connection, never touched again after the swap;
one mechanism, so that one wrong secret is one failed login; STARTTLS is demanded or never used. It reports phase
and reply and judges nothing. An access token that is stale, or was renewed meanwhile, is the one thing it tries again, once.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiosmtplib

from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply, decode, make_reply
from service.relay.config import RelayConfig
from service.relay.conversation import Conversation
from service.relay.dial import dial, resolve
from service.relay.failure import Cause, SessionFailure
from service.relay.fitting import size_in
from service.relay.hidden import Hidden, forms_of
from service.relay.logins import MECHANISMS, Dialogue, refused_because
from service.relay.oauth import Token
from service.relay.tls import RelayContext, cause_of, tls_context, words_of
from service.relay.url import Tls
from service.settings import Settings

__all__ = ["Session", "SessionFailure", "Timeouts", "Progress", "open_session", "tls_context"]


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
    check: float = 60

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
            settings.check_timeout,
        )


@dataclass(slots=True)
class Session:
    """An authenticated connection that speaks our own transactions."""

    conversation: Conversation
    capabilities: dict[str, str]  # EHLO keywords in lower case, with their parameters
    words: str  # for the log: host, port, TLS version, mechanism
    opened: float  # monotonic seconds
    served: int = 0
    serves_chunks: bool = False  # BDAT was answered by 250 on it
    fruitless: bool = True  # no message was taken on it
    timings: dict[str, float] = field(default_factory=dict)  # ms: dns, connect, tls, greeting, ehlo, auth

    @property
    def max_size(self) -> int | None:
        """What SIZE announced (RFC 1870), None when nothing or 0."""
        return size_in(self.capabilities)

    def renew(self) -> None:
        """Take it for worn out: what follows goes over a new connection."""
        self.opened = float("-inf")

    async def quit(self, timeout: float = 5) -> None:
        """QUIT politely, then close."""
        await self.conversation.quit(timeout)

    def abort(self) -> None:
        """Close at once."""
        self.conversation.abort()


@dataclass(slots=True)
class Progress:
    """How far an opening came. A check shows it; steps are named as in `Session.timings`."""

    step: str = "dns"  # the one that began last
    timings: dict[str, float] = field(default_factory=dict)  # milliseconds of each that began and ended
    details: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLObject | None = None


async def open_session(
    config: RelayConfig,
    context: RelayContext | None,
    timeouts: Timeouts,
    ehlo_name: str,
    monotonic: Callable[[], float],
    progress: Progress | None = None,
    hidden: Hidden | None = None,
) -> Session:
    """Connect and authenticate. Raises SessionFailure.

    hidden: what no reply of the relay may show; what is sent for the login is added to it.
    """
    progress, hidden = progress or Progress(), hidden or Hidden()
    opening = _Opening(config, context, timeouts, ehlo_name, monotonic, progress, hidden)
    try:
        return await opening.run()
    except SessionFailure as failure:
        if not await _other_token(config, opening.token, failure):
            raise
    again = _Opening(config, context, timeouts, ehlo_name, monotonic, progress, hidden)
    try:
        return await again.run()
    except SessionFailure as failure:
        _forget(config, again.token, failure)
        raise


async def _other_token(config: RelayConfig, token: Token | None, failure: SessionFailure) -> bool:
    """Whether the login was refused for its token, and there is another one now."""
    if not _forget(config, token, failure) or config.tokens is None or token is None:
        return False
    return await config.tokens.other_than(token)


def _forget(config: RelayConfig, token: Token | None, failure: SessionFailure) -> bool:
    """A token that was refused (RFC 4954 6: 535) is not used again; whether that is what happened."""
    refused = failure.phase is Phase.AUTH and failure.reply is not None and failure.reply.code == 535
    if refused and config.tokens is not None and token is not None:
        config.tokens.forget(token)
        return True
    return False


class _Opening:
    """One connection on its way to a session."""

    def __init__(
        self,
        config: RelayConfig,
        context: RelayContext | None,
        timeouts: Timeouts,
        ehlo_name: str,
        monotonic: Callable[[], float],
        progress: Progress,
        hidden: Hidden,
    ) -> None:
        self._config, self._context, self._timeouts, self._hidden = config, context, timeouts, hidden
        if secret := config.secret.get_secret_value():
            hidden.add(*forms_of(config.user, secret))
        self._ehlo_name, self._monotonic, self._progress = ehlo_name, monotonic, progress
        self._timings: dict[str, float] = {}
        progress.timings = self._timings
        self._client: Any = None
        self._mechanism = ""
        self.token: Token | None = None  # the login was tried with

    async def run(self) -> Session:
        """Raises SessionFailure; then nothing is left open."""
        try:
            await self._connect(await self._dial())
            await self._ehlo()
            if self._config.tls is Tls.STARTTLS:
                await self._start_tls()
                await self._ehlo()
            await self._authenticate()
            # no await from AUTH's reply to here: nothing may arrive between it and the swap
            return self._take_over()
        except BaseException:
            if self._client is not None:
                with contextlib.suppress(Exception):
                    self._client.close()
            raise

    @contextlib.contextmanager
    def _step(self, phase: Phase, name: str = "") -> Iterator[None]:
        name = name or phase.value
        self._progress.step, began = name, self._monotonic()
        try:
            yield
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise _failure(phase, error, self._hidden) from error
        finally:
            self._timings[name] = self._timings.get(name, 0.0) + (self._monotonic() - began) * 1000

    async def _dial(self) -> socket.socket:
        host, port, seconds = self._config.host, self._config.port, self._timeouts.connect
        with self._step(Phase.CONNECT, "dns"):
            addresses = await resolve(host, port, seconds)
        self._progress.details["dns"] = ", ".join(dict.fromkeys(map(str, addresses)))
        with self._step(Phase.CONNECT):
            connected = await dial(addresses, port, seconds)
        peer = connected.getpeername()
        self._progress.details["connect"] = f"{peer[0]} port {peer[1]}"
        return connected

    async def _connect(self, connected: socket.socket) -> None:
        """The greeting, and before it the handshake of implicit TLS."""
        implicit = self._config.tls is Tls.IMPLICIT
        self._client = aiosmtplib.SMTP(
            hostname=self._config.host,
            sock=connected,
            local_hostname=self._ehlo_name,
            use_tls=implicit,
            start_tls=False,  # its default is opportunistic; STARTTLS is demanded below instead
            tls_context=self._context,
            timeout=self._timeouts.greeting,
        )
        began = self._monotonic()
        with self._step(Phase.TLS if implicit else Phase.GREETING):
            response = await self._client.connect()  # from here on the socket is the loop's, which closes it
        self._progress.details["greeting"] = " ".join(_texts(response.message, self._hidden))
        if implicit:
            self._secured()
            done = getattr(self._progress.tls, "completed", None) or self._monotonic()
            self._timings["greeting"] = (self._monotonic() - done) * 1000
            self._timings["tls"] = (done - began) * 1000

    def _secured(self) -> None:
        self._progress.tls = self._client.transport.get_extra_info("ssl_object")

    async def _ehlo(self) -> None:
        with self._step(Phase.EHLO):
            await self._client.ehlo()
        self._progress.details["ehlo"] = ", ".join(
            self._hidden.take_out(f"{name} {value}".strip()).upper()
            for name, value in self._client.esmtp_extensions.items()
        )

    async def _start_tls(self) -> None:
        """RFC 3207. What came in clear behind the reply is dropped by aiosmtplib, and EHLO is said anew (4.2)."""
        if not self._client.supports_extension("starttls"):
            detail = f"{self._config.host} does not offer STARTTLS; nothing was sent"
            raise SessionFailure(Phase.TLS, failure=Failure.TLS, detail=detail, cause=Cause.NO_STARTTLS)
        with self._step(Phase.TLS):
            await self._client.starttls()
        self._secured()

    # --- login -------------------------------------------------------------------------------------------------------

    async def _authenticate(self) -> None:
        """Log in with the first mechanism of the relay's list that it announces; never with a second one."""
        config = self._config
        if not config.user:
            return
        with self._step(Phase.AUTH):
            self._mechanism = self._choose()
            secret = config.secret.get_secret_value()
            if not secret and config.tokens is None:  # providers count a login that can only be refused
                detail = "no secret is configured here; no login was tried"
                raise SessionFailure(Phase.AUTH, failure=Failure.CAPABILITY, detail=detail, cause=Cause.NO_SECRET)
            if config.tokens is not None:
                self.token = await config.tokens.current()
                secret = self.token.value
                self._hidden.add(*forms_of(config.user, secret))
            await self._converse(MECHANISMS[self._mechanism](config.user, secret))

    def _choose(self) -> str:
        offered = {method.upper() for method in self._client.server_auth_methods}
        mechanism = next((each for each in self._config.auth if each in offered), None)
        if mechanism is None:
            wanted, offers = " ".join(self._config.auth), self._hidden.take_out(" ".join(sorted(offered)))
            detail = f"{self._config.host} offers AUTH {offers or 'nothing'}, wanted {wanted}"
            raise SessionFailure(Phase.AUTH, failure=Failure.CAPABILITY, detail=detail, cause=Cause.NO_MECHANISM)
        return mechanism

    async def _converse(self, dialogue: Dialogue) -> None:
        """RFC 4954 4: each 334 is answered with the dialogue's next line, until another reply ends it."""
        because = ""
        line = next(dialogue)
        while True:
            self._hidden.add(line.decode().removeprefix(f"AUTH {self._mechanism}").strip())
            response = await self._client.execute_command(line)
            if response.code != 334:
                break
            because = refused_because(response.message)
            try:
                line = dialogue.send(response.message)
            except StopIteration:
                raise ValueError("the relay asks for more than the mechanism has to say") from None
        if response.code == 235:
            return
        reply = _reply(response.code, response.message, self._hidden)
        detail = self._hidden.take_out(because) if self.token is not None else ""
        raise SessionFailure(Phase.AUTH, reply=reply, detail=detail, mechanism=self._mechanism)

    # --- the swap ----------------------------------------------------------------------------------------------------

    def _take_over(self) -> Session:
        client, config = self._client, self._config
        transport, protocol = client.transport, client.protocol
        left = bytes(getattr(protocol, "_buffer", b""))
        if transport is None or transport.is_closing() or left:
            # a 421 in the same segment as the 235, or the connection is gone already
            reply = _parse_left(left, self._hidden)
            failure = None if reply else Failure.LOST
            raise SessionFailure(Phase.AUTH, reply=reply, failure=failure, detail="closed after AUTH")
        capabilities = {name.lower(): value.strip() for name, value in client.esmtp_extensions.items()}
        conversation = Conversation(transport, self._hidden)
        transport.set_protocol(conversation)
        tls = transport.get_extra_info("ssl_object")
        if self._context is not None and tls is not None:
            self._context.keep(tls)
        words = f"{config.host}:{config.port} {tls.version() if tls else 'no TLS'}"
        if self._mechanism:
            words += f" AUTH {self._mechanism}"
            self._progress.details["auth"] = f"{self._mechanism} as {config.shown_user}"
        return Session(conversation, capabilities, words, self._monotonic(), timings=dict(self._timings))


def _parse_left(left: bytes, hidden: Hidden) -> Reply | None:
    line = left.split(b"\r\n")[0]
    return make_reply(int(line[:3]), [hidden.take_out(decode(line[4:]))]) if line[:3].isdigit() else None


# --- what aiosmtplib raised, in our words -----------------------------------------------------------------------------


def _failure(phase: Phase, error: Exception, hidden: Hidden) -> SessionFailure:
    """Order matters: aiosmtplib's timeouts are also connection errors, and an SSLError is an OSError."""
    if _at_greeting(error):
        phase = Phase.GREETING
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return _of_response(phase, error, hidden)
    origin = error.__cause__ or error
    # asyncio gives a reset no words, and aiosmtplib would tell of a port that it does not know
    words = (str(origin) or "the connection was closed") if isinstance(origin, ConnectionError) else str(error)
    detail = hidden.take_out(words)[:300]
    if isinstance(origin, ssl.SSLError):
        return SessionFailure(Phase.TLS, failure=Failure.TLS, detail=words_of(origin), cause=cause_of(origin))
    if isinstance(error, TimeoutError | aiosmtplib.SMTPTimeoutError):
        cause = Cause.SILENT if phase is Phase.GREETING else None
        return SessionFailure(phase, failure=Failure.TIMEOUT, detail=detail, cause=cause)
    if isinstance(error, ConnectionError | OSError):
        cause = Cause.TLS_BROKEN_OFF if phase is Phase.TLS else None
        return SessionFailure(phase, failure=Failure.LOST, detail=detail, cause=cause)
    return SessionFailure(phase, failure=Failure.PROTOCOL, detail=detail)


def _at_greeting(error: Exception) -> bool:
    """Whether `connect` failed after its handshake: then its cause is what reading the 220 raised, not the loop's."""
    read = aiosmtplib.SMTPServerDisconnected | aiosmtplib.SMTPTimeoutError
    return isinstance(error, aiosmtplib.SMTPConnectResponseError) or (
        isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(error.__cause__, read)
    )


def _of_response(phase: Phase, error: aiosmtplib.SMTPResponseException, hidden: Hidden) -> SessionFailure:
    reply = _reply(error.code, error.message, hidden)
    if 200 <= error.code < 600:
        cause = Cause.STARTTLS_REFUSED if phase is Phase.TLS else None
        return SessionFailure(phase, reply=reply, cause=cause)
    # aiosmtplib's -1, or digits that no reply has
    failure = Failure.TLS if phase is Phase.TLS else Failure.PROTOCOL
    return SessionFailure(phase, failure=failure, detail=reply.text[:300], cause=Cause.NO_SMTP)


def _texts(message: str, hidden: Hidden) -> list[str]:
    """The lines of a reply as aiosmtplib has them: UTF-8, else with their octets kept aside."""
    return [hidden.take_out(decode(line)) for line in message.encode("utf-8", "surrogateescape").splitlines()]


def _reply(code: int, message: str, hidden: Hidden) -> Reply:
    return make_reply(code, _texts(message, hidden))
