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
from itertools import repeat

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
_DOMAINS = 3  # of recipients that are refused alike: fewer may be what is wrong with them
_OF_RECIPIENT = re.compile(r"5\.(?:1\.[0-69]|2\.\d)\d*")
"""RFC 3463 3.2 and 3.3: the recipient's address or mailbox; 5.1.7 and 5.1.8 are the sender's."""
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
        self._domains: set[str] = set()  # of the recipients that were, at RCPT

    def judged(
        self, message: str, verdicts: Sequence[Verdict], report: Report, recipients: Sequence[str] = ()
    ) -> list[Trend]:
        """How a transaction's recipients were judged, and what that says of the relay together with those before it.

        message: its id, "": not known. verdicts, recipients: in the order of the report's results.
        """
        found = [self._doubted(verdicts)]
        if any(verdict.event is Event.ACCEPTED for verdict in verdicts):
            self._fruitless, self._lost, self._last = 0, 0, ""
            self._begin_anew("")
        else:
            found += (
                self._ended(message, verdicts, report),
                self._refuses(message, verdicts, report.results, recipients),
            )
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

    def _refuses(
        self,
        message: str,
        verdicts: Sequence[Verdict],
        results: Sequence[RecipientResult],
        recipients: Sequence[str],
    ) -> Trend | None:
        """Once the row is long enough each further refusal is told, so that the relay rests longer after each pause."""
        refusals = (
            (verdict, result, recipient)
            for verdict, result, recipient in zip(verdicts, results, recipients or repeat(""), strict=False)
            if result.reply is not None and _is_unexplained(verdict, result.phase, result.reply)
        )
        if (refusal := next(refusals, None)) is None:
            return None
        verdict, result, recipient = refusal
        self._begin_anew(_LATER if verdict.event is Event.DEFER else _gist(result))
        if len(self._refused) < self._most_refusals:
            self._refused.add(message)
        if result.phase is Phase.RCPT and len(self._domains) < _DOMAINS:
            self._domains.add(recipient.rpartition("@")[2].lower())
        if not 0 < self._most_refusals <= len(self._refused):
            return None
        often = f"{len(self._refused)} messages in a row"
        if self._words is _LATER:
            return Trend(FRUITLESS, f"{FRUITLESS.kind}: {often} refused for now: {result.reply}", spared=verdict)
        if result.phase is Phase.RCPT and len(self._domains) < _DOMAINS:
            return None
        return Trend(REFUSES_ALL, f"{REFUSES_ALL.kind}: {often}: {self._words}")

    def _begin_anew(self, words: str) -> None:
        """With other words than before, or none."""
        if words != self._words or not words:
            self._words = words
            self._refused.clear()
            self._domains.clear()


def _is_unexplained(verdict: Verdict, phase: Phase, reply: Reply) -> bool:
    """At RCPT a refusal for good may be the account's when it says nothing of an address. One for now counts at MAIL only:
    after it a content, or a recipient whom the relay asked about or greylists, may be what it is about.
    """
    if verdict.scope not in (Scope.MESSAGE, Scope.RECIPIENT):
        return False
    if verdict.event is Event.DEFER:
        return phase is Phase.MAIL and verdict.kind == "temporary" and _OF_MESSAGE.fullmatch(reply.enhanced) is None
    if phase is Phase.RCPT and _OF_RECIPIENT.fullmatch(reply.enhanced):
        return False
    return verdict.event in _ENDS and verdict.kind in _UNEXPLAINED


def _gist(result: RecipientResult) -> str:
    """A refusal without what differs from message to message: addresses, numbers, queue ids."""
    assert result.reply is not None
    words = (word for word in words_of(result.reply.text).every.split() if not any(map(str.isdigit, word)))
    at = "RCPT:" if result.phase is Phase.RCPT else ""
    return " ".join(filter(None, (at, str(result.reply.code), result.reply.enhanced, *words)))[:_COMPARED]
