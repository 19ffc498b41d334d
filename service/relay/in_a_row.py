"""What several reports in a row say of a relay that no single one says. Pure: it decides, and relay/pool acts on it.

A relay that leaves contents without an answer may have taken them, and one that ends each fresh session before it has
taken a message costs a login each time: providers count those. Each such report alone is a fault of its connection, and
its message goes again at once over another one. So the reports are counted, whatever message they are about, until the
relay takes one. It counts what one process saw of one relay; the trouble that comes of it is the account's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.mail.lifecycle import Event
from service.mail.outcome import DOUBTFUL, DOUBTS_IN_A_ROW, Action, Phase, Policy, Scope, Verdict, doubling, judge
from service.mail.retry import account_at_fault
from service.relay.port import Outgoing, Report

FRUITLESS_IN_A_ROW = 3
LOST_IN_A_ROW = 2
FRUITLESS = Verdict(
    Event.DEFER, Scope.RELAY, "no-message-taken", Action.RATE, charged=False, pauses=doubling(30, 900), alert=3
)
"""The verdict on a relay that ended so many fresh sessions in a row before it had taken a message. A login that succeeds
is no answer to that: the relay rests, and longer each time."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A verdict on the relay, and why, for people."""

    verdict: Verdict
    reason: str


class InARow:
    """The counts of one relay."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._doubts = 0
        self._fruitless = 0  # sessions, of two messages at least
        self._lost = 0  # fresh sessions that no longer knew of their login
        self._last = ""  # which message the last fruitless session was given

    def reported(self, outgoing: Outgoing, report: Report) -> Trend | None:
        """A transaction has ended. What it says of the relay together with those before it, if anything."""
        if any(each.phase is Phase.DOT and each.reply is not None and each.reply.positive for each in report.results):
            self._fruitless, self._lost, self._last = 0, 0, ""
        if not report.fruitless:
            return None
        verdicts = [judge(self._policy, each.phase, each.reply, each.failure) for each in report.results]
        ended = next((verdict for verdict in verdicts if verdict.scope is Scope.CONNECTION), None)
        return None if ended is None else self._ended(ended, outgoing, report)

    def _ended(self, verdict: Verdict, outgoing: Outgoing, report: Report) -> Trend | None:
        words = next((str(each.reply or each.detail or each.failure) for each in report.results), "")
        if verdict.then is Action.AUTH:
            self._lost += 1
            if self._lost >= LOST_IN_A_ROW:
                return Trend(account_at_fault(verdict), f"{verdict.kind}: {words}")
        if outgoing.message and outgoing.message == self._last:
            # one odd message must not close the relay; the schedule keeps it from being asked for often
            return None
        self._last = outgoing.message
        self._fruitless += 1
        if self._fruitless < FRUITLESS_IN_A_ROW:
            return None
        return Trend(
            FRUITLESS, f"{FRUITLESS.kind}: {self._fruitless} sessions in a row ended before a message: {words}"
        )

    def judged(self, verdicts: Sequence[Verdict]) -> Trend | None:
        """How a delivery's recipients were judged, in the light of their history."""
        if any(verdict.kind == DOUBTFUL.kind for verdict in verdicts):
            self._doubts += 1
        elif any(verdict.charged for verdict in verdicts):  # the relay has answered
            self._doubts = 0
        if self._doubts < DOUBTS_IN_A_ROW:
            return None
        self._doubts = 0
        return Trend(DOUBTFUL, f"{DOUBTFUL.kind}: no answer to {DOUBTS_IN_A_ROW} contents in a row")
