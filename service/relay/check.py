"""A check: every step of the way to a relay on a connection of its own, each with its time and what to do about it.

DNS, TCP, TLS, greeting, EHLO, AUTH, then MAIL FROM with the sender that the relay would carry, RSET and QUIT. No RCPT and
no content: nothing is sent and nothing is counted. All steps are told, also those that a failure kept from running.
Whether it may log in was decided before (relay/checking).
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from service.clock import Clock
from service.mail.address import email_key
from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply
from service.relay.config import RelayConfig
from service.relay.conversation import Lost
from service.relay.failure import SessionFailure
from service.relay.hints import NO_SENDER, hint_for
from service.relay.port import CheckStep, StepState
from service.relay.session import Progress, Session, Timeouts, open_session
from service.relay.tls import RelayContext, security_of, tls_context
from service.relay.url import Tls

_CHANGE_SOON = (
    "The certificate expires soon: its owner should renew it, or mail will stop. 证书即将过期：请服务器管理者及时更新。"
)
# the steps of `Progress`, in the order of the way
_IMPLICIT = ("dns", "connect", "tls", "greeting", "ehlo", "auth")
_STARTTLS = ("dns", "connect", "greeting", "tls", "ehlo", "auth")
_AFTER = ("sender", "quit")
_NOTHING_TO_TRY = "no address to try: the login is none, and `from` names neither an address nor a domain"


@dataclass(frozen=True, slots=True)
class Withheld:
    """Why no login is tried, and what to do about it."""

    words: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """All steps in order; why there was no session; whether a login was tried and accepted."""

    steps: Sequence[CheckStep]
    failure: SessionFailure | None
    logged_in: bool


async def check(
    config: RelayConfig,
    timeouts: Timeouts,
    ehlo_name: str,
    clock: Clock,
    *,
    sender: str = "",
    withheld: Withheld | None = None,
    certificate_warning: float = 14 * 86400.0,
) -> Checked:
    """Walk. sender: the address to ask with, "" for one that `sender_of` finds; withheld: with all but the login;
    certificate_warning: seconds before a certificate expires from which on somebody should know.

    Raises ConfigurationError for TLS keys that OpenSSL refuses.
    """
    # a context of its own: no ticket shortens the handshake, so the certificate is looked at
    context = await asyncio.to_thread(
        tls_context, config
    )  # which reads all authorities: that takes tens of milliseconds
    return await _Check(config, context, timeouts, ehlo_name, clock, sender, withheld, certificate_warning).run()


class _Check:
    def __init__(
        self,
        config: RelayConfig,
        context: RelayContext | None,
        timeouts: Timeouts,
        ehlo_name: str,
        clock: Clock,
        sender: str,
        withheld: Withheld | None,
        certificate_warning: float,
    ) -> None:
        self._config, self._timeouts, self._ehlo_name, self._clock = config, timeouts, ehlo_name, clock
        self._address, self._withheld = sender or sender_of(config), withheld
        self._certificate_warning = certificate_warning
        self._context = context
        self._progress = Progress()
        self._failure: SessionFailure | None = None
        self._ends = clock.monotonic() + timeouts.check
        self._later: list[CheckStep] = []

    async def run(self) -> Checked:
        """See check."""
        session = await self._opened()
        try:
            if session is not None:
                await self._sender(session)
                await self._quit(session)
        finally:
            if session is not None:
                session.abort()
        done = {step.name for step in self._later}
        missing = [CheckStep(name, StepState.NOT_RUN, None, "") for name in _AFTER if name not in done]
        logged_in = session is not None and bool(self._config.user) and self._withheld is None
        return Checked([*self._way(), *self._later, *missing], self._failure, logged_in)

    async def _opened(self) -> Session | None:
        seconds = self._timeouts.check
        config = self._config if self._withheld is None else replace(self._config, user="")  # which logs nobody in
        try:
            async with asyncio.timeout(seconds):
                return await open_session(
                    config, self._context, self._timeouts, self._ehlo_name, self._clock.monotonic, self._progress
                )
        except SessionFailure as failure:
            self._failure = failure
        except TimeoutError:
            phase = Phase.CONNECT if self._progress.step == "dns" else Phase(self._progress.step)
            failed = Failure.DNS if self._progress.step == "dns" else Failure.TIMEOUT
            self._failure = SessionFailure(phase, failure=failed, detail=f"the check's {seconds:g} s are over")
        return None

    # --- as far as the login -----------------------------------------------------------------------------------------

    def _way(self) -> Iterator[CheckStep]:
        failed = self._failure and _step_of(self._failure)
        over = False
        for key in _STARTTLS if self._config.tls is Tls.STARTTLS else _IMPLICIT:
            name = "tcp" if key == "connect" else key
            milliseconds = self._progress.timings.get(key)
            if key == failed:
                over = True
                assert self._failure is not None
                yield CheckStep(name, StepState.FAILED, milliseconds, _words(self._failure), self._hint(self._failure))
            elif key == "tls" and self._config.tls is Tls.NONE:
                yield CheckStep(
                    name, StepState.SKIPPED, None, "this relay has no TLS, which is allowed on loopback only"
                )
            elif over or (failed is not None and milliseconds is None):
                yield CheckStep(name, StepState.NOT_RUN, None, "")
            elif key == "auth" and self._withheld is not None:
                yield CheckStep(name, StepState.NOT_RUN, None, self._withheld.words, self._withheld.hint)
            elif key == "auth" and not self._config.user:
                yield CheckStep(name, StepState.SKIPPED, None, "this relay has no login")
            elif key == "tls":
                yield self._secured(milliseconds)
            else:
                yield CheckStep(name, StepState.OK, milliseconds, self._progress.details.get(key, ""))

    def _secured(self, milliseconds: float | None) -> CheckStep:
        if self._progress.tls is None:  # the greeting failed, and took the connection with it
            return CheckStep("tls", StepState.OK, milliseconds, "the handshake succeeded")
        security = security_of(self._progress.tls, self._clock.now())
        soon = security.days_left * 86400 < self._certificate_warning
        state = StepState.WARNING if soon else StepState.OK
        return CheckStep("tls", state, milliseconds, str(security), _CHANGE_SOON if soon else "")

    def _hint(self, failure: SessionFailure) -> str:
        return hint_for(failure, self._config)

    # --- after the login ---------------------------------------------------------------------------------------------

    async def _sender(self, session: Session) -> None:
        """Whether the relay takes the sender: MAIL FROM, then RSET."""
        address = self._address
        if self._withheld is not None:
            self._later.append(CheckStep("sender", StepState.NOT_RUN, None, "it needs the login"))
            return
        if not address or (not address.isascii() and "smtputf8" not in session.capabilities):
            words = f"{address} needs SMTPUTF8, which is not offered" if address else _NOTHING_TO_TRY
            self._later.append(CheckStep("sender", StepState.SKIPPED, None, words, NO_SENDER))
            return
        began = self._clock.monotonic()
        extension = "" if address.isascii() else " SMTPUTF8"
        try:
            reply = await self._answer(session, f"MAIL FROM:<{address}>{extension}\r\n".encode())
            milliseconds = self._since(began)
            if reply.positive:
                await self._answer(session, b"RSET\r\n")
        except Lost as lost:
            failure = SessionFailure(Phase.MAIL, failure=lost.failure, detail=lost.detail)
        else:
            if reply.positive:
                self._later.append(CheckStep("sender", StepState.OK, milliseconds, f"{address}: {reply}"))
                return
            failure = SessionFailure(Phase.MAIL, reply=reply)
        words = f"{address}: {_words(failure)}"
        self._later.append(CheckStep("sender", StepState.FAILED, self._since(began), words, self._hint(failure)))

    async def _quit(self, session: Session) -> None:
        began = self._clock.monotonic()
        if session.conversation.ended is not None:
            return
        try:
            reply = await self._answer(session, b"QUIT\r\n")
        except Lost as lost:
            words = f"no reply to QUIT: {lost.detail}"
            self._later.append(CheckStep("quit", StepState.WARNING, self._since(began), words))
        else:
            self._later.append(CheckStep("quit", StepState.OK, self._since(began), str(reply)))

    async def _answer(self, session: Session, command: bytes) -> Reply:
        """Raises Lost."""
        left = max(self._ends - self._clock.monotonic(), 0.001)
        session.conversation.write(command)
        return await session.conversation.reply(min(self._timeouts.command, left))

    def _since(self, began: float) -> float:
        return (self._clock.monotonic() - began) * 1000


def sender_of(config: RelayConfig) -> str:
    """The address that a check asks with, one that mail by this relay may come from; "" when none is known.

    The login where mail must be from it; else the first address of `from`; else the login, if its domain is one of
    `from` or any is; else the postmaster of the first domain, who is there wherever mail is (RFC 5321 4.5.1).
    """
    login = config.user if "@" in config.user else ""
    if config.rule.must_equal_login:
        return login
    addresses = [each for each in config.senders if "@" in each]
    if addresses or not config.senders:
        return addresses[0] if addresses else login
    fits = email_key(login).rpartition("@")[2] in config.senders if login else False
    return login if fits else f"postmaster@{config.senders[0]}"


def _step_of(failure: SessionFailure) -> str:
    return "dns" if failure.failure is Failure.DNS else failure.phase.value


def _words(failure: SessionFailure) -> str:
    told = [str(failure.reply)] if failure.reply is not None else []
    told += [failure.detail or str(failure.failure or "")] if failure.detail or failure.reply is None else []
    return "; ".join(told)
