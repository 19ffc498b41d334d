"""THE POLICY: what a reply or a failure means for a recipient, and who is at fault.

A session detects (phase, reply or failure) and knows nothing of consequences; this file decides the event for the
state machine, the scope of the fault and what follows. The rows are data (relay/policy.toml, and rows of the user's own
before them); a Policy holds those of one relay, and the first row that matches decides. Only a fault of the message or
recipient charges it an attempt. What depends on earlier attempts is mail/retry's; spool/settling writes it all down.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from service.mail.lifecycle import Event
from service.mail.reply import Reply
from service.mail.reply_wait import told_wait
from service.mail.reply_words import Words, words_of


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


BEFORE_MAIL = frozenset({Phase.CONNECT, Phase.GREETING, Phase.TLS, Phase.EHLO, Phase.AUTH})
"""Nothing of a message was said yet: whatever a relay answers here says nothing about any message."""


class Failure(StrEnum):
    """Why there is no reply."""

    DNS = "dns"
    REFUSED = "refused"  # connection refused or unreachable
    TIMEOUT = "timeout"
    LOST = "lost"  # EOF or reset
    TLS = "tls"  # handshake or certificate
    PROTOCOL = "protocol"  # the peer's bytes are no SMTP
    TOKEN = "token"  # noqa: S105 - no access token for the login could be had
    CAPABILITY = "capability"  # the relay lacks what the message needs (SIZE, SMTPUTF8, AUTH mechanism)
    LEFT_OUT = "left-out"  # not in this transaction: the relay takes fewer recipients at once
    SHUTDOWN = "shutdown"  # we are stopping, nothing was sent
    INTERNAL = "internal"  # our own bug, caught


class Scope(StrEnum):
    """Who is at fault."""

    NONE = "none"
    RECIPIENT = "recipient"
    MESSAGE = "message"
    CONNECTION = "connection"
    RELAY = "relay"


class Action(StrEnum):
    """What is done about it, in the words of the delivery log."""

    SENT = "SENT"
    PERM = "PERM"  # this recipient or message is refused for good
    TEMP = "TEMP"  # again by the schedule
    RECONN = "RECONN"  # again over a new connection; free once per message and hour, then charged
    RATE = "RATE"  # the relay rests
    AUTH = "AUTH"  # the account's breaker opens; one connection probes
    CONFIG = "CONFIG"  # somebody must look; one connection probes
    QUOTA = "QUOTA"  # the relay rests until the provider's reset
    SPLIT = "SPLIT"  # fewer recipients in one transaction, at once
    ELSEWHERE = "ELSEWHERE"  # this relay can't carry it: another one is asked at once, and when none is left `then`
    FAILED = "FAILED"  # ours to mend; nobody is bounced
    DOUBT = "DOUBT"  # as the message's `delivery` says
    BACK = "BACK"  # given back, nothing was done


class Lesson(StrEnum):
    """What a relay learns from a reply."""

    CONNECTIONS = "connections"  # fewer at once
    MESSAGES = "messages"  # fewer on one connection
    RECIPIENTS = "recipients"  # fewer in one transaction


UNTIL_RESET = float("inf")
"""Among pauses: until the provider counts anew (its midnight)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows for one recipient, and for the relay."""

    event: Event
    scope: Scope
    kind: str  # the class in the delivery log, e.g. "bad-address"
    action: Action
    charged: bool
    wait: float = 0.0  # seconds, at least
    times: int | None = None  # TEMP: as often, in a row, before `then`
    told_wait: float = 0.0  # seconds: a longer wait that the reply's words give counts, up to this
    then: Action | None = None  # PERM after TEMP, AUTH after RECONN, PERM or FAILED after ELSEWHERE
    at_expiry: bool = False  # TEMP: refused when no further attempt fits before the expiry
    pauses: tuple[float, ...] = ()  # seconds the relay takes no mail: the first time, the second time, ...
    probe: bool = False  # the relay takes mail again only after a probe
    learn: Lesson | None = None
    suppress: bool = False  # the address enters the suppression list
    alert: int = 0  # somebody is told: 1 each time, n when it is the n-th time in a row for the relay


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. Empty conditions match anything; `text` and `unless` are searched in the reply's words, any case.

    What the relay quotes of another host speaks of a recipient only: `text` of any other scope is not searched there.
    """

    name: str
    verdict: Verdict
    phases: frozenset[Phase] = frozenset()
    codes: frozenset[int] = frozenset()
    enhanced: re.Pattern[str] | None = None  # fullmatch on the enhanced code, "" when there is none
    text: re.Pattern[str] | None = None
    unless: re.Pattern[str] | None = None
    presets: frozenset[str] = frozenset()
    why: str = ""

    def matches(self, reply: Reply, words: Words) -> bool:
        """Whether this row speaks about that reply, in a phase that it names."""
        searched = words.every if self.verdict.scope is Scope.RECIPIENT else words.own
        return (
            (not self.codes or reply.code in self.codes)
            and (self.enhanced is None or self.enhanced.fullmatch(reply.enhanced) is not None)
            and (self.text is None or self.text.search(searched) is not None)
            and (self.unless is None or self.unless.search(words.every) is None)
        )


class Policy:
    """The rows that hold for one relay, in order."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_phase = {phase: tuple(_in_phase(self.rules, phase)) for phase in Phase}
        self._of_address = tuple(filter(_may_speak_of_address, self._by_phase[Phase.RCPT]))

    def refusals(self) -> frozenset[str]:
        """The kinds of verdicts by which these rows may refuse a recipient for good, at once or in the end."""
        return frozenset(rule.verdict.kind for rule in self.rules if _may_refuse(rule.verdict))

    def rule_for(self, phase: Phase, reply: Reply) -> Rule | None:
        """The first row that matches."""
        words = words_of(reply.text)
        of_address = phase is Phase.RCPT and _DESTINATION.fullmatch(reply.enhanced) is not None
        rules = self._of_address if of_address else self._by_phase[phase]
        return next((rule for rule in rules if rule.matches(reply, words)), None)


_DESTINATION = re.compile(r"[45]\.1\.(?:[0-69]|10)")
"""RFC 3463 3.2 and RFC 7505: the fault is the destination address'. x.1.7 and x.1.8 are the sender's."""


def _may_refuse(verdict: Verdict) -> bool:
    return (
        verdict.event is Event.REFUSED or verdict.then is Action.PERM or verdict.at_expiry or verdict.times is not None
    )


def _may_speak_of_address(rule: Rule) -> bool:
    """Whether a row may decide a reply whose code says that the address is at fault: no words outweigh that code, so
    none that rests the relay, unless it names the code itself.
    """
    return rule.enhanced is not None or not rule.verdict.pauses


def _in_phase(rules: Iterable[Rule], phase: Phase) -> Iterable[Rule]:
    """The rows that speak in a phase. Before MAIL no row can blame a message, a recipient or a used connection; after
    it no row sends the message elsewhere.
    """
    for rule in rules:
        if rule.phases and phase not in rule.phases:
            continue
        if phase not in BEFORE_MAIL:
            yield rule if phase is Phase.MAIL else replace(rule, verdict=no_relay_left(rule.verdict))
        elif rule.verdict.scope is Scope.RELAY:
            yield replace(rule, verdict=replace(rule.verdict, event=Event.NOT_STARTED))


def no_relay_left(verdict: Verdict) -> Verdict:
    """ELSEWHERE when no other relay is asked; any other verdict as it is."""
    if verdict.action is not Action.ELSEWHERE or verdict.then is None:
        return verdict
    final = replace(verdict, action=verdict.then, charged=True, then=None)
    if verdict.then is Action.PERM:
        return replace(final, event=Event.REFUSED)
    return replace(final, event=Event.FAULT, kind=NO_RELAY, alert=1)


NO_RELAY = "no-relay"
"""The class of a message that no relay can carry."""

_SENT = Verdict(Event.ACCEPTED, Scope.NONE, "sent", Action.SENT, charged=True)
_UNEXPECTED = Verdict(Event.DEFER, Scope.CONNECTION, "protocol", Action.RECONN, charged=False)
_LOST_AFTER_DOT = Verdict(Event.IN_DOUBT, Scope.MESSAGE, "in-doubt", Action.DOUBT, charged=True)
_NO_SESSION = Verdict(Event.NOT_STARTED, Scope.RELAY, "refused", Action.CONFIG, False, pauses=(60, 300), probe=True)


def judge_reply(policy: Policy, phase: Phase, reply: Reply) -> Verdict:
    """The verdict on a reply: the first row that matches. What no row knows is a broken dialogue.

    After the final dot only 2yz, 4yz and 5yz answer (RFC 5321 4.3.2); anything else leaves the content in doubt, since a
    relay that waits for more may have taken it all the same.
    """
    if phase is Phase.DOT and reply.positive:
        return _SENT
    if phase is Phase.DOT and not (reply.transient or reply.permanent):
        return _LOST_AFTER_DOT
    # a positive reply that arrives here answers something else than what was asked
    rule = None if reply.positive or reply.intermediate else policy.rule_for(phase, reply)
    if rule is not None:
        return _as_told(rule.verdict, reply)
    return _NO_SESSION if phase in BEFORE_MAIL else _UNEXPECTED


def _as_told(verdict: Verdict, reply: Reply) -> Verdict:
    """With the wait that the reply asks for, where its row listens to that."""
    if not verdict.told_wait:
        return verdict
    return replace(verdict, wait=max(verdict.wait, min(told_wait(reply.text), verdict.told_wait)))


def judge(policy: Policy, phase: Phase, reply: Reply | None, failure: Failure | None) -> Verdict:
    """The verdict on what ended a dialogue, a reply or none."""
    if reply is not None:
        return judge_reply(policy, phase, reply)
    return judge_failure(phase, failure or Failure.INTERNAL)


def doubling(first: float, most: float) -> tuple[float, ...]:
    """Pauses (seconds) that double from `first` up to `most`."""
    steps = [first]
    while steps[-1] < most:
        steps.append(min(steps[-1] * 2, most))
    return tuple(steps)


_NETWORK = Verdict(
    Event.NOT_STARTED, Scope.RELAY, "network", Action.CONFIG, False, pauses=doubling(5, 600), probe=True, alert=3
)
_BY_FAILURE: dict[Failure, Verdict] = {
    Failure.DNS: _NETWORK,
    Failure.REFUSED: _NETWORK,
    Failure.TLS: replace(_NETWORK, kind="tls", pauses=doubling(60, 600), alert=1),
    Failure.TOKEN: replace(_NETWORK, kind="no-token", pauses=doubling(30, 600), alert=2),
    Failure.SHUTDOWN: Verdict(Event.NOT_STARTED, Scope.NONE, "shutdown", Action.BACK, charged=False),
    Failure.CAPABILITY: Verdict(
        Event.NOT_STARTED, Scope.MESSAGE, "not-offered", Action.ELSEWHERE, charged=False, then=Action.FAILED
    ),
    Failure.LEFT_OUT: Verdict(Event.DEFER, Scope.MESSAGE, "too-many-recipients", Action.SPLIT, charged=False),
    Failure.INTERNAL: Verdict(Event.DEFER, Scope.MESSAGE, "internal", Action.TEMP, charged=True, alert=1),
}
# A peer that drops each connection at this very message must not be asked for ever: free once an hour, then charged.
_BROKEN_OFF = Verdict(Event.DEFER, Scope.CONNECTION, "broken-off", Action.RECONN, charged=False)
DOUBTFUL = replace(
    _LOST_AFTER_DOT, scope=Scope.RELAY, action=Action.CONFIG, pauses=doubling(60, 600), probe=True, alert=1
)
"""The verdict on a relay that left so many contents in a row without an answer. A login that succeeds is no answer to
a content: the relay is tried again, and what is known of its steps stays."""


def judge_failure(phase: Phase, failure: Failure) -> Verdict:
    """The verdict where there is no reply: before MAIL it is the relay's fault, after the final dot it is in doubt."""
    if phase is Phase.DOT:
        return _LOST_AFTER_DOT
    if failure is Failure.CAPABILITY and phase in BEFORE_MAIL:  # no login mechanism in common: no message's fault
        return replace(_NETWORK, kind="no-mechanism", pauses=doubling(60, 600), alert=1)
    if (verdict := _BY_FAILURE.get(failure)) is not None:
        return verdict
    return _NETWORK if phase in BEFORE_MAIL else _BROKEN_OFF
