"""The port to the relays: what the spool may ask of a relay, and what a relay reports back.

A relay reports phase and reply; it does not judge them. mail/outcome.py decides, spool/dispatch acts.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol

from service.mail.envelope import Envelope, Offer
from service.mail.outcome import Failure, Phase, Policy, Verdict
from service.mail.quota import Quota
from service.mail.reply import Reply
from service.mail.seal import SenderRule


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One sealed delivery: the envelope and the exact bytes, in pieces. `key` names it in the log (its attempt id)."""

    key: int
    envelope: Envelope
    content: Sequence[bytes]
    priority: int = 1
    at_most_once: bool = False  # nothing else is in flight with it
    on_content: Callable[[], Awaitable[None]] | None = None  # awaited before the content
    may_proceed: Callable[[], bool] | None = (
        None  # asked right before the content: False (lease lost) drops the connection
    )


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """What became of one forward-path: the reply that decided it, or the failure that left it without one."""

    phase: Phase
    reply: Reply | None = None
    failure: Failure | None = None
    detail: str = ""  # for a failure: what the transport said, without secrets


@dataclass(slots=True)
class Report:
    """One mail transaction, told. `results` stand in the order of the envelope's forward-paths."""

    results: Sequence[RecipientResult]
    mail_started: bool  # MAIL FROM was handed to the transport
    content_started: bool  # the content's last block, holding the final dot, was handed to the transport
    session: str = ""  # e.g. "smtp.163.com:465 TLSv1.3 AUTH PLAIN, 3rd message"
    timings: Mapping[str, float] = field(default_factory=dict)  # milliseconds by phase
    served: int = 0  # how many messages its session has carried, this one included; 0: not known
    renew: Callable[[], None] | None = None  # what follows on that session goes over a new connection


class Pipelining(IntEnum):
    """How much goes out in one write; lowered for a relay whose replies no longer fit the commands."""

    OFF = 0
    ENVELOPE = 1  # MAIL, RCPT, DATA
    FULL = 2  # and the next envelope with the content


class Health(StrEnum):
    """Whether a relay takes mail now."""

    OPEN = "open"
    PAUSED = "paused"  # by an operator
    WAITING = "waiting"  # rate or quota: goes on by itself at `until`
    BROKEN = "broken"  # network, TLS or authentication: one probe at a time


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """A relay as `GET /relays` shows it."""

    name: str
    host: str
    port: int
    tls: str
    preset: str
    health: Health
    reason: str
    until: int | None  # ms; when a probe or the relay goes on
    connections: int
    max_connections: int
    in_flight: int
    sent: int
    last_reply: str
    last_error: str


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of a check: `dns`, `tcp`, `tls`, `ehlo`, `auth`; `hint` is plain words when it failed."""

    name: str
    ok: bool
    milliseconds: float
    detail: str
    hint: str = ""


class Relay(Protocol):
    """An upstream SMTP server with one account: a pool of long-lived authenticated sessions."""

    @property
    def name(self) -> str:
        """As configured."""

    @property
    def rule(self) -> SenderRule:
        """What it demands of the sender."""

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """What its provider lets the account send; the store counts."""

    @property
    def max_size(self) -> int | None:
        """Octets: the least of the configured limit and what EHLO's SIZE said; None when neither is known."""

    @property
    def endpoint(self) -> str:
        """`host:port`: what an offer is known by."""

    @property
    def offer(self) -> Offer | None:
        """What the last session was told, or another process's; None until anything is known."""

    def told(self, offer: Offer) -> None:
        """What another process's session was told; counts until a session of our own is."""

    def free(self, now: int) -> int:
        """How many deliveries could start now (0 while paused, waiting or broken)."""

    def ahead(self, now: int) -> int:
        """How many more may wait, one for each busy slot: their envelopes go out with the content before them."""

    def start(self, outgoing: Outgoing, done: Callable[[Report], None]) -> None:
        """Send on a free slot; `done` is called once, always, on the loop, with the report. Never raises."""

    @property
    def policy(self) -> Policy:
        """What its replies mean."""

    @property
    def max_recipients(self) -> int | None:
        """The most recipients it was found to take in one transaction; None while it took all."""

    def blame(self, verdict: Verdict, report: Report, reason: str) -> int | None:
        """Do to the relay or connection what a verdict on it says; answers until when (ms) it takes no mail."""

    def hold(self, reason: str) -> None:
        """An operator's pause; only `resume` ends it."""

    def resume(self) -> None:
        """End any pause."""

    def status(self, now: int) -> RelayStatus:
        """For `GET /relays`."""

    async def check(self) -> list[CheckStep]:
        """DNS, TCP, TLS, EHLO, AUTH, each with its time and, where it fails, a hint."""

    async def close(self, grace: float) -> None:
        """Finish what is in flight within `grace` seconds, QUIT, close."""


class Relays(Protocol):
    """The configured relays and the rule that picks among them."""

    def names(self) -> tuple[str, ...]:
        """All relay names, in order of priority."""

    def get(self, name: str) -> Relay:
        """Raises errors.RelayNotFound with a "did you mean"."""

    def candidates(self, sender: str, pinned: str | None) -> tuple[Relay, ...]:
        """Relays that may carry mail from `sender`, best first; only the pinned one when `pinned`."""

    def sender_decides(self) -> bool:
        """Whether the sender's address limits the choice (then it is part of the route)."""

    def on_capacity(self, callback: Callable[[], None]) -> None:
        """`callback` is called on the loop when a relay may have a free slot again."""

    async def close(self, grace: float) -> None:
        """Close all relays."""
