"""The port to the relays: what the spool may ask of a relay, and what a relay reports back.

A relay reports phase and reply; it does not judge them. mail/outcome.py decides, spool/dispatch acts.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol

from service.mail.envelope import Envelope, Offer
from service.mail.limits import Limits
from service.mail.outcome import Failure, Phase, Policy, Verdict
from service.mail.quota import Quota
from service.mail.reply import Reply
from service.mail.seal import SenderRule
from service.mail.trouble import Answer, RelayEvent, Standing, Trouble


class MayNotStart(Exception):
    """The content must not be started, and neither message nor relay is at fault; the words say why."""


@dataclass(slots=True)
class Outgoing:
    """One sealed delivery: the envelope and the exact bytes, in pieces. `key` names it in the log (its attempt id)."""

    key: int
    envelope: Envelope
    content: Sequence[bytes]
    priority: int = 1
    at_most_once: bool = False  # nothing else is in flight with it
    on_content: Callable[[], Awaitable[None]] | None = None  # awaited before the content; may raise MayNotStart
    may_proceed: Callable[[], bool] | None = (
        None  # asked right before the content: False (lease lost) drops the connection
    )


@dataclass(slots=True)
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
    fruitless: bool = False  # no message was taken on its session so far, this one included
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
    sent: int  # since the process began
    last_reply: str
    last_error: str
    reply_at: int = 0  # ms; when the last reply came, 0: never
    error_at: int = 0
    account: str = ""  # whose troubles and quotas these are; relays may share one
    troubles: Sequence[Trouble] = ()  # those that stand, and those that are remembered
    proven_at: int | None = None  # ms; the last login that succeeded, None: since then one was refused
    prober: str | None = None  # who is logging in, alone, as `process/relay`


class StepState(StrEnum):
    """What came of one step of a check."""

    OK = "ok"
    WARNING = "warning"  # it works, and somebody should look
    FAILED = "failed"
    NOT_RUN = "not_run"  # an earlier one failed
    SKIPPED = "skipped"  # this relay has no such step


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of a check. `hint` is plain words, what to do about it."""

    name: str
    state: StepState
    milliseconds: float | None  # None: it was not begun
    detail: str
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is no reason to say that the relay can't be used."""
        return self.state in (StepState.OK, StepState.WARNING, StepState.SKIPPED)


class Relay(Protocol):
    """An upstream SMTP server with one account: a pool of long-lived authenticated sessions."""

    @property
    def name(self) -> str:
        """As configured."""

    @property
    def kind(self) -> object:
        """Equal for relays that answer alike for now, whatever message they are asked about."""

    @property
    def rule(self) -> SenderRule:
        """What it demands of the sender."""

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """What its provider lets the account send; the store counts."""

    @property
    def limits(self) -> Limits:
        """What it takes of a message, as configured."""

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

    def spare(self, now: int) -> bool:
        """Whether one more of priority high may be started though nothing is free and as many wait as may."""

    def start(self, outgoing: Outgoing, done: Callable[[Report], None]) -> None:
        """Send on a free slot; `done` is called once, always, on the loop, with the report. Never raises."""

    @property
    def policy(self) -> Policy:
        """What its replies mean."""

    @property
    def max_recipients(self) -> int | None:
        """The most recipients it takes in one transaction, as known or as found; None while it took all."""

    def blame(self, verdict: Verdict, report: Report, reason: str) -> int | None:
        """Do to the relay or connection what a verdict on it says; answers until when (ms) it takes no mail."""

    def judged(
        self, message: str, verdicts: Sequence[Verdict], report: Report, recipients: Sequence[str] = ()
    ) -> Sequence[Verdict]:
        """Told how each transaction was judged: a share of refused contents that rises, and what repeats itself. Answers
        how it is judged in the light of those before.

        message: its id. verdicts, recipients (addresses): in the order of the report's results.
        """

    def alert(self, kind: str, detail: str) -> None:
        """Somebody must look: it is counted, and kept among the relay's events."""

    @property
    def account(self) -> str:
        """Whose troubles these are; relays may share one."""

    def hold(self, reason: str) -> Awaitable[None]:
        """An operator's pause, for all processes; only `resume` ends it.

        Begun by the call; awaited, it is durable. Raises errors.StorageUnavailable.
        """

    def resume(self) -> Awaitable[None]:
        """End all troubles of its account, for all processes, as `hold` begins them."""

    def keep_warm(self) -> None:
        """Have as many sessions open as are to be open without mail."""

    def status(self, now: int) -> RelayStatus:
        """For `GET /relays`."""

    async def check(self, sender: str = "", *, force: bool = False) -> Sequence[CheckStep]:
        """All steps on a connection of its own, each with its time and, where it fails, a hint. No mail is sent.

        sender: the address to ask with instead of one of the relay's; force: log in though the account rests, once in a
        while. Raises errors.CheckRunning.
        """

    async def close(self, grace: float) -> None:
        """Finish what is in flight within `grace` seconds, QUIT, close."""


class Relays(Protocol):
    """The configured relays and the rule that picks among them."""

    def names(self) -> tuple[str, ...]:
        """All relay names, in order of priority."""

    def get(self, name: str) -> Relay:
        """Raises errors.RelayNotFound with a "did you mean"."""

    def carriers(self, sender: str, pinned: str | None) -> Sequence[Relay]:
        """Relays that may carry mail from `sender`, in order of priority; only the pinned one when `pinned`."""

    def candidates(self, sender: str, pinned: str | None, needs: Sequence[str] = ()) -> Sequence[Relay]:
        """Relays that may carry mail from `sender` with these needs (mail/route), best first; only the pinned one when
        `pinned`. An empty sender is one that is not known.
        """

    def preferred(self, names: Sequence[str], now: int) -> Sequence[str]:
        """Of relays, best first, those that are given mail while they have no room: among equals that are sticky, the
        first that is open and none after it.
        """

    def sender_decides(self) -> bool:
        """Whether the sender's address has a part in the choice (then it is part of the route)."""

    def on_capacity(self, callback: Callable[[], None]) -> None:
        """`callback` is called on the loop when a relay may have a free slot again."""

    async def close(self, grace: float) -> None:
        """Close all relays."""


class Ledger(Protocol):
    """What processes tell each other about accounts; mail/trouble has the rules.

    What is told here counts in this process at once, and in others within about a second. Only `ask_login`, `hold` and
    `clear` wait for the store and may raise errors.StorageUnavailable; the others are queued by the call, in order, and
    are not lost while the store is away.
    """

    @property
    def holder(self) -> str:
        """This process."""

    def standing(self, account: str) -> Standing:
        """What is known now; to be read, never to be changed."""

    def on_news(self, account: str, callback: Callable[[], None]) -> None:
        """`callback` is called on the loop whenever the standing changed, by whomever; where others tell, once soon too."""

    def no_news(self, account: str, callback: Callable[[], None]) -> None:
        """It is not called any more."""

    async def ask_login(
        self, account: str, mark: str, prober: str, now: int, lease: float, force: float | None = None
    ) -> Answer:
        """Ask for the right to log in with the secret of this mark, for `lease` seconds at most. force: see Standing.answer."""

    def begin_login(self, account: str, at_once: int) -> bool:
        """Take one of so many places in this process for logins that need no right: if the secret is refused all the
        same, no more are refused with it. False: none is free, which is news once one is.
        """

    def end_login(self, account: str) -> None:
        """Leave the place, after it was told how that went."""

    def prove_login(self, mark: str, prober: str, event: RelayEvent) -> None:
        """A login succeeded. The event is kept if that opened a broken relay."""

    def fail_login(self, trouble: Trouble, prober: str, event: RelayEvent) -> None:
        """A login failed: the trouble is recorded and the right given back, both or neither."""

    def release_login(self, account: str, prober: str) -> None:
        """Give the right back; the login was not tried."""

    def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> None:
        """Keep a trouble. The event is kept if nobody had told of it yet."""

    def forgive_trouble(self, account: str, trouble: Trouble) -> None:
        """Nothing is left of it."""

    def hold(self, trouble: Trouble, event: RelayEvent) -> Awaitable[None]:
        """Keep an operator's pause."""

    def clear(self, event: RelayEvent) -> Awaitable[None]:
        """End all troubles of the event's account."""

    def alert(self, event: RelayEvent, kind: str) -> None:
        """Somebody must look. Each is counted; of each kind one a minute is kept."""
