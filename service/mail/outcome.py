"""THE POLICY: what a reply or a failure means for a recipient, and who is at fault.

A session detects (phase, reply or failure) and knows nothing of consequences; this file decides the event for the
state machine, the scope of the fault, and whether the recipient is charged an attempt. Only a fault of the message or
recipient charges it. RULES is read top down, the first match wins; a provider's own habits are rows before the
general ones. The next step is spool/dispatch, which turns a Verdict into one settlement.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.mail.lifecycle import Event
from service.mail.reply import Reply


class Phase(StrEnum):
    """How far a session had come."""

    CONNECT = "connect"
    GREETING = "greeting"
    TLS = "tls"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"  # content blocks, before the final dot was handed over
    DOT = "dot"  # the final dot is out; its reply decides


class Failure(StrEnum):
    """Why there is no reply."""

    DNS = "dns"
    REFUSED = "refused"  # connection refused or unreachable
    TIMEOUT = "timeout"
    LOST = "lost"  # EOF or reset
    TLS = "tls"  # handshake or certificate
    PROTOCOL = "protocol"  # the peer's bytes are no SMTP
    CAPABILITY = "capability"  # the relay lacks what the message needs (SIZE, SMTPUTF8, AUTH mechanism)
    SHUTDOWN = "shutdown"  # we are stopping, nothing was sent
    INTERNAL = "internal"  # our own bug, caught


class Scope(StrEnum):
    """Who is at fault."""

    NONE = "none"
    RECIPIENT = "recipient"
    MESSAGE = "message"
    CONNECTION = "connection"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows for one recipient, and for the relay."""

    event: Event
    scope: Scope
    kind: str  # the class in the delivery log, e.g. "bad-address"
    charged: bool
    wait: float = 0.0  # seconds, at least
    pause: float = 0.0  # seconds the relay takes no mail
    broken: bool = False  # the relay needs a probe
    suppress: bool = False  # the address enters the suppression list


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. Empty conditions match anything; `text` is searched in the reply's text, any case."""

    verdict: Verdict
    phases: frozenset[Phase] = frozenset()
    codes: range | None = None
    enhanced: re.Pattern[str] | None = None  # fullmatch on the enhanced code, "" when there is none
    text: re.Pattern[str] | None = None

    def matches(self, phase: Phase, reply: Reply) -> bool:
        """Whether this row speaks about that reply."""
        return (
            (not self.phases or phase in self.phases)
            and (self.codes is None or reply.code in self.codes)
            and (self.enhanced is None or self.enhanced.fullmatch(reply.enhanced) is not None)
            and (self.text is None or self.text.search(reply.text) is not None)
        )


_SESSION_PHASES = frozenset({Phase.CONNECT, Phase.GREETING, Phase.TLS, Phase.EHLO})
_2YZ, _4YZ, _5YZ = range(200, 300), range(400, 500), range(500, 600)
_NO_SUCH_USER = re.compile(
    r"\b(user|recipient|mailbox|account)\b.*\b(unknown|not found|not exist)|no such (user|recipient|mailbox)", re.I
)

_SENT = Verdict(Event.ACCEPTED, Scope.NONE, "sent", charged=True)
_AUTH_TEMPORARY = Verdict(Event.NOT_STARTED, Scope.RELAY, "auth-temporary", charged=False, pause=60)
_AUTH_REFUSED = Verdict(Event.NOT_STARTED, Scope.RELAY, "auth-refused", charged=False, pause=60, broken=True)
_GREETING_TEMPORARY = Verdict(Event.NOT_STARTED, Scope.RELAY, "refused-for-now", charged=False, pause=30)
_GREETING_REFUSED = Verdict(Event.NOT_STARTED, Scope.RELAY, "refused", charged=False, pause=60, broken=True)
_CLOSING = Verdict(Event.DEFER, Scope.CONNECTION, "closing", charged=False, wait=1)
_PROTOCOL = Verdict(Event.DEFER, Scope.CONNECTION, "protocol", charged=True)
_BAD_ADDRESS = Verdict(Event.REFUSED, Scope.RECIPIENT, "bad-address", charged=True, suppress=True)
_MAILBOX_FULL = Verdict(Event.DEFER, Scope.RECIPIENT, "mailbox-full", charged=True, wait=3600)
_RECIPIENT_TEMPORARY = Verdict(Event.DEFER, Scope.RECIPIENT, "temporary", charged=True)
_RECIPIENT_PERMANENT = Verdict(Event.REFUSED, Scope.RECIPIENT, "permanent", charged=True)
_TEMPORARY = Verdict(Event.DEFER, Scope.MESSAGE, "temporary", charged=True)
_PERMANENT = Verdict(Event.REFUSED, Scope.MESSAGE, "permanent", charged=True)

_RCPT = frozenset({Phase.RCPT})
RULES: tuple[Rule, ...] = (
    Rule(_SENT, frozenset({Phase.DOT}), _2YZ),
    Rule(_AUTH_TEMPORARY, frozenset({Phase.AUTH}), _4YZ),
    Rule(_AUTH_REFUSED, frozenset({Phase.AUTH})),
    Rule(_GREETING_TEMPORARY, _SESSION_PHASES, _4YZ),
    Rule(_GREETING_REFUSED, _SESSION_PHASES),
    # RFC 5321 3.8: 421 closes the channel; it speaks of the connection, not of the message
    Rule(_CLOSING, frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA}), range(421, 422)),
    # RFC 5321 4.3.2: 503 bad sequence, 500 and 502 unknown command: the dialogue is broken, not the message
    Rule(_PROTOCOL, frozenset(), range(500, 501)),
    Rule(_PROTOCOL, frozenset(), range(502, 504)),
    # RFC 3463 3.2: x.1.1 bad mailbox, x.1.6 moved; RFC 7505: 5.1.10 null MX. Never x.7.z, 5.1.7, 5.1.8
    Rule(_BAD_ADDRESS, _RCPT, _5YZ, re.compile(r"5\.1\.(1|6|10)")),
    Rule(_BAD_ADDRESS, _RCPT, _5YZ, re.compile(r""), _NO_SUCH_USER),
    Rule(_MAILBOX_FULL, _RCPT, _4YZ, re.compile(r"4\.2\.2")),
    Rule(_RECIPIENT_TEMPORARY, _RCPT, _4YZ),
    Rule(_RECIPIENT_PERMANENT, _RCPT, _5YZ),
    Rule(_TEMPORARY, frozenset(), _4YZ),
    Rule(_PERMANENT, frozenset(), _5YZ),
)

_UNEXPECTED = Verdict(Event.DEFER, Scope.CONNECTION, "protocol", charged=True)


def judge_reply(phase: Phase, reply: Reply, rules: Sequence[Rule] = RULES) -> Verdict:
    """The verdict on a reply: the first rule that matches; a reply outside 2yz, 4yz and 5yz is a broken dialogue."""
    return next((rule.verdict for rule in rules if rule.matches(phase, reply)), _UNEXPECTED)


_BY_FAILURE: dict[Failure, Verdict] = {
    Failure.DNS: Verdict(Event.NOT_STARTED, Scope.RELAY, "network", charged=False, pause=5, broken=True),
    Failure.REFUSED: Verdict(Event.NOT_STARTED, Scope.RELAY, "network", charged=False, pause=5, broken=True),
    Failure.TLS: Verdict(Event.NOT_STARTED, Scope.RELAY, "tls", charged=False, pause=60, broken=True),
    Failure.SHUTDOWN: Verdict(Event.NOT_STARTED, Scope.NONE, "shutdown", charged=False),
    Failure.CAPABILITY: Verdict(Event.FAULT, Scope.MESSAGE, "no-relay", charged=True),
    Failure.INTERNAL: Verdict(Event.DEFER, Scope.MESSAGE, "internal", charged=True),
}
_NO_SESSION = Verdict(Event.NOT_STARTED, Scope.RELAY, "network", charged=False, pause=5, broken=True)
# The message is charged here: a peer that drops each connection at this very message must not be asked for ever.
_BROKEN_OFF = Verdict(Event.DEFER, Scope.CONNECTION, "broken-off", charged=True)
_LOST_AFTER_DOT = Verdict(Event.IN_DOUBT, Scope.MESSAGE, "in-doubt", charged=True)


def judge_failure(phase: Phase, failure: Failure) -> Verdict:
    """The verdict where there is no reply: before MAIL it is the relay's fault, after the final dot it is in doubt."""
    if phase is Phase.DOT:
        return _LOST_AFTER_DOT
    if (verdict := _BY_FAILURE.get(failure)) is not None:
        return verdict
    if phase in _SESSION_PHASES or phase is Phase.AUTH:
        return _NO_SESSION
    return _BROKEN_OFF
