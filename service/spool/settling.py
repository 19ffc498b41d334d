"""From a report to a settlement: each recipient's result is judged, and what follows is written down once.

A relay reported phases and replies; mail/outcome.py judges them; this file adds what only the spool knows (schedule,
attempts before, the message's wish about doubt) and names the events. store.settle commits it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.clock import Clock
from service.mail.lifecycle import Event
from service.mail.outcome import Failure, Phase, Scope, Verdict, judge_failure, judge_reply
from service.mail.retry import next_due
from service.mail.seal import Sealed
from service.relay.port import RecipientResult, Report
from service.settings import Settings
from service.store.port import Delivery, DueRecipient, RecipientSettlement, Settlement

AT_MOST_ONCE = "at_most_once"


@dataclass(frozen=True, slots=True)
class Settled:
    """A settlement, and the gravest verdict on the relay in it (or None)."""

    settlement: Settlement
    relay_verdict: Verdict | None


def judge(result: RecipientResult) -> Verdict:
    """The policy's verdict on one recipient's result."""
    if result.reply is not None:
        return judge_reply(result.phase, result.reply)
    return judge_failure(result.phase, result.failure or Failure.INTERNAL)


class Settler:
    """Makes settlements."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock

    def settle(self, delivery: Delivery, report: Report, sealed: Sealed) -> Settled:
        """The settlement of a whole delivery; `report.results` stand in the order of its recipients."""
        now = self._clock.now()
        pairs = list(zip(delivery.recipients, report.results, strict=True))
        verdicts = [judge(result) for _, result in pairs]
        recipients = [
            self._recipient(delivery, recipient, result, verdict, now)
            for (recipient, result), verdict in zip(pairs, verdicts, strict=True)
        ]
        details = [result.detail for _, result in pairs if result.detail]
        return Settled(
            Settlement(
                attempt=delivery.attempt,
                id=delivery.id,
                account=delivery.account,
                now=now,
                result=_result([each.event for each in recipients]),
                recipients=recipients,
                sealed_as=sealed.rule_id,
                signed_by=sealed.signed_by,
                session=report.session,
                timings=report.timings,
                detail=details[0] if details else "",
            ),
            _gravest(verdicts),
        )

    def all_alike(self, delivery: Delivery, event: Event, kind: str, text: str) -> Settlement:
        """A settlement for a delivery that never reached a relay: every recipient gets the same event."""
        now = self._clock.now()
        return Settlement(
            attempt=delivery.attempt,
            id=delivery.id,
            account=delivery.account,
            now=now,
            result=_result([event]),
            recipients=[
                RecipientSettlement(
                    n=recipient.n,
                    event=event,
                    kind=kind,
                    phase=Phase.CONNECT.value,
                    charged=False,
                    due_at=now if event is Event.NOT_STARTED else None,
                    text=text,
                )
                for recipient in delivery.recipients
            ],
            detail=text,
        )

    def _recipient(
        self, delivery: Delivery, recipient: DueRecipient, result: RecipientResult, verdict: Verdict, now: int
    ) -> RecipientSettlement:
        if verdict.event is Event.IN_DOUBT:
            verdict = self._doubt(delivery, recipient, verdict)
        reply = result.reply
        return RecipientSettlement(
            n=recipient.n,
            event=verdict.event,
            kind=verdict.kind,
            phase=result.phase.value,
            charged=verdict.charged,
            due_at=self._due(delivery, recipient, verdict, now),
            in_doubt=verdict.kind == "in-doubt",
            code=reply.code if reply else None,
            enhanced=reply.enhanced if reply else "",
            text=reply.text if reply else result.detail,
            provider_message_id=reply.text[:200] if reply and verdict.event is Event.ACCEPTED else None,
            suppress="bad_address" if verdict.suppress else None,
        )

    def _doubt(self, delivery: Delivery, recipient: DueRecipient, verdict: Verdict) -> Verdict:
        """A copy may be out: repeat later, but not too often, and never when the message forbids it."""
        if delivery.delivery == AT_MOST_ONCE or recipient.in_doubt >= self._settings.max_in_doubt:
            return replace(verdict, event=Event.PARK)
        return replace(verdict, wait=max(verdict.wait, self._settings.in_doubt_delay))

    def _due(self, delivery: Delivery, recipient: DueRecipient, verdict: Verdict, now: int) -> int | None:
        if verdict.event is Event.NOT_STARTED:
            return now
        if verdict.event not in (Event.DEFER, Event.IN_DOUBT):
            return None
        return next_due(
            now,
            recipient.attempts + verdict.charged,
            self._clock.jitter(),
            schedule=self._settings.retry_schedule,
            at_least=verdict.wait,
            expires_at=delivery.expires_at,
        )


def _result(events: Sequence[Event]) -> str:
    """One word for the attempt."""
    if Event.IN_DOUBT in events or Event.PARK in events:
        return "in_doubt"
    if Event.NOT_STARTED in events:
        return "not_started"
    if Event.ACCEPTED in events:
        return "sent" if set(events) == {Event.ACCEPTED} else "partly_sent"
    if Event.FAULT in events:
        return "failed"
    return "deferred" if Event.DEFER in events else "refused"


def _gravest(verdicts: Sequence[Verdict]) -> Verdict | None:
    relay_faults = [verdict for verdict in verdicts if verdict.scope is Scope.RELAY and verdict.pause > 0]
    return max(relay_faults, key=lambda verdict: verdict.pause, default=None)
