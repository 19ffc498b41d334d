"""What several reports in a row say of a relay that no single one says. Pure: it decides, and relay/pool acts on it.

One content without an answer is in doubt, one fresh session that ends before a message was taken is a fault of its
connection, and one message that is refused is refused. When nothing else comes any more, the relay or our account is
at fault, in words that no row of the policy knows; each further try costs a message, or a login that providers count.
So these are counted, whatever message they are about, until the relay takes one. It counts what one process saw of one
relay; the trouble that comes of it is the account's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.mail.lifecycle import Event
from service.mail.outcome import DOUBTFUL, Action, Phase, Scope, Verdict, doubling
from service.mail.reply import Reply
from service.mail.reply_words import words_of
from service.mail.retry import account_at_fault
from service.relay.port import RecipientResult, Report

LOST_IN_A_ROW = 2  # no setting: once may be chance, and each further one is a login that may count as refused
FRUITLESS = Verdict(
    Event.DEFER, Scope.RELAY, "no-message-taken", Action.RATE, charged=False, pauses=doubling(30, 900), alert=3
)
"""The verdict on a relay that ended so many fresh sessions in a row before it had taken a message, or that asked each of
so many messages to come later before it had heard of a recipient. A login that succeeds is no answer to that: the relay
rests, and longer each time."""

REFUSES_ALL = Verdict(
    Event.DEFER,
    Scope.RELAY,
    "refuses-all",
    Action.CONFIG,
    charged=False,
    pauses=doubling(600, 14400),
    probe=True,
    alert=1,
)
"""The verdict on a relay that refused so many messages in a row with the same words."""

_UNEXPLAINED = frozenset({"permanent", "sender-refused", "sender-mismatch", "unauthenticated"})
"""Classes that may as well be the account's. Any other tells what is wrong with this very message."""

_ENDS = (Event.REFUSED, Event.FAULT)
_COMPARED = 120  # characters of a refusal
_LATER = "later"  # what all refusals for now at MAIL are compared by: they may differ in their words
_OF_MESSAGE = re.compile(r"4\.(?:[126]\.\d+|3\.4)")
"""RFC 3463 3.2, 3.3, 3.4 and 3.7: the sender's address or mailbox, the size, the content. No other code that comes at MAIL
can be about the message, for the relay knows no more of it."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A verdict on the relay, and why, for people."""

    verdict: Verdict
    reason: str
    spared: Verdict | None = None
    """On the message: it no longer counts, since the relay is at fault."""


class InARow:
    """The counts of one relay. refusals, doubts, fruitless: so many in a row rest it, see Settings; 0: any number is
    borne.
    """

    def __init__(self, refusals: int = 10, doubts: int = 3, fruitless: int = 3) -> None:
        self._most_refusals, self._most_doubts, self._most_fruitless = refusals, doubts, fruitless
        self._doubts = 0
        self._fruitless = 0  # sessions, of two messages at least
        self._lost = 0  # fresh sessions that no longer knew of their login
        self._last = ""  # which message the last fruitless session was given
        self._words = ""  # of the last refusal that may be the relay's or the account's
        self._refused: set[str] = set()  # the messages that were refused with these words

    def judged(self, message: str, verdicts: Sequence[Verdict], report: Report) -> list[Trend]:
        """How a transaction's recipients were judged, and what that says of the relay together with those before it.

        message: its id, "": not known. verdicts: in the order of the report's results.
        """
        found = [self._doubted(verdicts)]
        if any(verdict.event is Event.ACCEPTED for verdict in verdicts):
            self._fruitless, self._lost, self._last = 0, 0, ""
            self._refused.clear()
        else:
            found += self._ended(message, verdicts, report), self._refuses(message, verdicts, report.results)
        return [trend for trend in found if trend is not None]

    def _doubted(self, verdicts: Sequence[Verdict]) -> Trend | None:
        if any(verdict.kind == DOUBTFUL.kind for verdict in verdicts):
            self._doubts += 1
        elif any(verdict.charged for verdict in verdicts):  # the relay has answered
            self._doubts = 0
        if not 0 < self._most_doubts <= self._doubts:
            return None
        self._doubts = 0
        return Trend(DOUBTFUL, f"{DOUBTFUL.kind}: no answer to {self._most_doubts} contents in a row")

    def _ended(self, message: str, verdicts: Sequence[Verdict], report: Report) -> Trend | None:
        verdict = next((each for each in verdicts if each.scope is Scope.CONNECTION), None)
        if verdict is None or not report.fruitless:
            return None
        words = next((str(each.reply or each.detail or each.failure) for each in report.results), "")
        if verdict.then is Action.AUTH:
            self._lost += 1
            if self._lost >= LOST_IN_A_ROW:
                return Trend(account_at_fault(verdict), f"{verdict.kind}: {words}")
        if message and message == self._last:
            # one odd message must not close the relay; the schedule keeps it from being asked for often
            return None
        self._last = message
        self._fruitless += 1
        if not 0 < self._most_fruitless <= self._fruitless:
            return None
        return Trend(
            FRUITLESS, f"{FRUITLESS.kind}: {self._fruitless} sessions in a row ended before a message: {words}"
        )

    def _refuses(self, message: str, verdicts: Sequence[Verdict], results: Sequence[RecipientResult]) -> Trend | None:
        """Once the row is long enough each further refusal is told, so that the relay rests longer after each pause."""
        refusals = (
            (verdict, result.reply)
            for verdict, result in zip(verdicts, results, strict=False)
            if result.reply is not None and _is_unexplained(verdict, result.phase, result.reply)
        )
        if (refusal := next(refusals, None)) is None:
            return None
        verdict, reply = refusal
        words = _LATER if verdict.event is Event.DEFER else _gist(reply)
        if words != self._words:
            self._words = words
            self._refused.clear()
        if len(self._refused) < self._most_refusals:
            self._refused.add(message)
        if not 0 < self._most_refusals <= len(self._refused):
            return None
        often = f"{len(self._refused)} messages in a row"
        if words is _LATER:
            return Trend(FRUITLESS, f"{FRUITLESS.kind}: {often} refused for now: {reply}", spared=verdict)
        return Trend(REFUSES_ALL, f"{REFUSES_ALL.kind}: {often}: {words}")


def _is_unexplained(verdict: Verdict, phase: Phase, reply: Reply) -> bool:
    """At RCPT a reply is about one address, and many addresses may be refused or greylisted in a row. One for now counts
    at MAIL only: after it a content, or a recipient whom the relay asked about, may be what it is about.
    """
    if verdict.scope is not Scope.MESSAGE:
        return False
    if verdict.event is Event.DEFER:
        return phase is Phase.MAIL and verdict.kind == "temporary" and _OF_MESSAGE.fullmatch(reply.enhanced) is None
    return verdict.event in _ENDS and phase is not Phase.RCPT and verdict.kind in _UNEXPLAINED


def _gist(reply: Reply) -> str:
    """A refusal without what differs from message to message: addresses, numbers, queue ids."""
    words = (word for word in words_of(reply.text).every.split() if not any(map(str.isdigit, word)))
    return " ".join(filter(None, (str(reply.code), reply.enhanced, *words)))[:_COMPARED]
