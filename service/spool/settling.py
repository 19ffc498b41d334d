"""From a report to a settlement: each recipient's result is judged, and what follows is written down once.

A relay reported phases and replies; its policy (mail/outcome.py) judges them; this file adds what only the spool knows
(schedule, attempts before, the message's wish about doubt) and names the events. store.settle commits it all.
"""

from collections.abc import Sequence
from dataclasses import replace

from service.clock import Clock
from service.mail.lifecycle import Event
from service.mail.outcome import Action, Failure, Phase, Policy, Scope, Verdict, judge
from service.mail.reply_id import id_in
from service.mail.retry import FREE_AGAIN, follow, next_due
from service.mail.seal import Sealed
from service.relay.port import RecipientResult, Report
from service.settings import Settings
from service.store.values import Delivery, DueRecipient, RecipientSettlement, Settlement

AT_MOST_ONCE = "at_most_once"
_WITHOUT_RELAY = {Event.FAULT: Action.FAILED, Event.PARK: Action.DOUBT, Event.NOT_STARTED: Action.BACK}


def judge_all(
    policy: Policy, delivery: Delivery, results: Sequence[RecipientResult], now: int, free_again: float = FREE_AGAIN
) -> list[Verdict]:
    """The verdict for each recipient, in the light of what each went through before. free_again: see mail/retry."""
    sent_to = sum(result.failure is not Failure.LEFT_OUT for result in results)
    verdicts = []
    for recipient, result in zip(delivery.recipients, results, strict=True):
        verdict = judge(policy, result.phase, result.reply, result.failure)
        if verdict.action is Action.SPLIT and sent_to == 1 and result.reply is not None:
            # one recipient can't be split; without a charge it would be asked for ever
            verdict = replace(verdict, action=Action.TEMP, charged=True)
        verdicts.append(follow(verdict, recipient.history, now, delivery.expires_at, free_again=free_again))
    return verdicts


class Settler:
    """Makes settlements."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock

    def settle(
        self,
        delivery: Delivery,
        report: Report,
        sealed: Sealed,
        verdicts: Sequence[Verdict],
        relay_until: int | None = None,
        route: str | None = None,
    ) -> Settlement:
        """The settlement of a whole delivery; results and verdicts stand in the order of its recipients.

        relay_until: until when (ms) the relay takes no mail, where a verdict was about it. route: by which it goes from
        here on, where that is another one.
        """
        now = self._clock.now()
        recipients = [
            self._recipient(delivery, *each, now, relay_until)
            for each in zip(delivery.recipients, report.results, verdicts, strict=True)
        ]
        details = [result.detail for result in report.results if result.detail]
        return Settlement(
            attempt=delivery.attempt,
            id=delivery.id,
            account=delivery.account,
            now=now,
            result=result_of([each.event for each in recipients]),
            recipients=recipients,
            sealed_as=sealed.rule_id,
            signed_by=sealed.signed_by,
            session=report.session,
            timings=report.timings,
            detail=details[0] if details else "",
            unspent=not report.mail_started,
            route=route,
        )

    def all_alike(self, delivery: Delivery, event: Event, kind: str, text: str, route: str | None = None) -> Settlement:
        """A settlement for a delivery that never reached a relay: every recipient gets the same event. route: see settle."""
        now = self._clock.now()
        return Settlement(
            attempt=delivery.attempt,
            id=delivery.id,
            account=delivery.account,
            now=now,
            result=result_of([event]),
            recipients=[
                RecipientSettlement(
                    n=recipient.n,
                    event=event,
                    kind=kind,
                    phase=Phase.CONNECT.value,
                    charged=False,
                    due_at=now if event is Event.NOT_STARTED else None,
                    text=text,
                    scope=Scope.MESSAGE.value,
                    action=_WITHOUT_RELAY[event].value,
                )
                for recipient in delivery.recipients
            ],
            detail=text,
            unspent=True,
            route=route,
        )

    def _recipient(
        self,
        delivery: Delivery,
        recipient: DueRecipient,
        result: RecipientResult,
        verdict: Verdict,
        now: int,
        relay_until: int | None,
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
            provider_message_id=id_in(reply.text) if reply and verdict.event is Event.ACCEPTED else None,
            suppress="bad_address" if verdict.suppress else None,
            scope=verdict.scope.value,
            action=verdict.action.value,
            relay_until=relay_until if verdict.scope is Scope.RELAY else None,
            reconnected=verdict.action is Action.RECONN and not verdict.charged,
            left_out=result.failure is Failure.LEFT_OUT,
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
        if (
            not verdict.charged
        ):  # another relay or connection may take it at once; a relay at fault holds it by its pause
            return min(now + int(verdict.wait * 1000), delivery.expires_at)
        return next_due(
            now,
            recipient.attempts + verdict.charged,
            self._clock.jitter(),
            schedule=self._settings.retry_schedule,
            at_least=verdict.wait,
            expires_at=delivery.expires_at,
        )


def result_of(events: Sequence[Event]) -> str:
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
