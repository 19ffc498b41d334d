"""How an attempt is closed when a fault of ours keeps its report from being judged: by what is surely known of it.

What failed may fail again, so no policy, jitter or relay is asked here. Taken is taken; what was handed over and got no reply
is in doubt, as the message's `delivery` says; what was given back or left out waits as it would have; anything else is
tried again by the schedule, charged, so that a fault that comes each time ends with the message's ttl.
"""

from collections.abc import Sequence

from service.mail.lifecycle import Event
from service.mail.outcome import Failure, Phase, Policy, Verdict, judge_failure, judge_reply
from service.mail.reply_id import id_in
from service.mail.retry import base_delay
from service.mail.seal import Sealed
from service.relay.port import RecipientResult, Report
from service.settings import Settings
from service.spool.settling import AT_MOST_ONCE, result_of
from service.store.values import Delivery, DueRecipient, RecipientSettlement, Settlement

_NO_RULES = Policy(())
_CERTAIN = (Failure.SHUTDOWN, Failure.LEFT_OUT)  # said by our own code, whatever the relay did
_FAULT = judge_failure(Phase.MAIL, Failure.INTERNAL)


def not_sent(delivery: Delivery, error: Exception) -> Report:
    """The report of a delivery that a fault of ours kept from a relay."""
    result = RecipientResult(Phase.CONNECT, failure=Failure.INTERNAL, detail=type(error).__name__)
    return Report([result] * len(delivery.recipients), mail_started=False, content_started=False)


def salvage(delivery: Delivery, report: Report, sealed: Sealed | None, settings: Settings, now: int) -> Settlement:
    """The settlement that a report comes to without being judged. now: ms."""
    recipients = [
        _recipient(delivery, *each, settings, now)
        for each in zip(delivery.recipients, _whole(report.results, len(delivery.recipients)), strict=True)
    ]
    return Settlement(
        attempt=delivery.attempt,
        id=delivery.id,
        account=delivery.account,
        now=now,
        result=result_of([each.event for each in recipients]),
        recipients=recipients,
        sealed_as=sealed.rule_id if sealed else None,
        signed_by=sealed.signed_by if sealed else (),
        session=report.session,
        detail="a fault of ours kept the replies from being judged",
        unspent=not report.mail_started,
    )


def _whole(results: Sequence[RecipientResult], count: int) -> list[RecipientResult]:
    """A result for each recipient: those of the transaction come first."""
    left = RecipientResult(Phase.MAIL, failure=Failure.LEFT_OUT)
    return [*results, *[left] * (count - len(results))][:count]


def _recipient(
    delivery: Delivery, recipient: DueRecipient, result: RecipientResult, settings: Settings, now: int
) -> RecipientSettlement:
    verdict, reply = _verdict(result), result.reply
    in_doubt = verdict.event is Event.IN_DOUBT
    parked = in_doubt and (delivery.delivery == AT_MOST_ONCE or recipient.in_doubt >= settings.max_in_doubt)
    event = Event.PARK if parked else verdict.event
    return RecipientSettlement(
        n=recipient.n,
        event=event,
        kind=verdict.kind,
        phase=result.phase.value,
        charged=verdict.charged,
        due_at=_due(delivery, recipient, event, verdict, settings, now),
        in_doubt=in_doubt,
        code=reply.code if reply else None,
        enhanced=reply.enhanced if reply else "",
        text=reply.text if reply else result.detail,
        provider_message_id=id_in(reply.text) if reply and event is Event.ACCEPTED else None,
        scope=verdict.scope.value,
        action=verdict.action.value,
        left_out=result.failure is Failure.LEFT_OUT,
    )


def _verdict(result: RecipientResult) -> Verdict:
    if result.reply is not None:
        taken = result.phase is Phase.DOT and result.reply.positive
        return judge_reply(_NO_RULES, result.phase, result.reply) if taken else _FAULT
    return judge_failure(result.phase, result.failure if result.failure in _CERTAIN else Failure.INTERNAL)


def _due(
    delivery: Delivery, recipient: DueRecipient, event: Event, verdict: Verdict, settings: Settings, now: int
) -> int | None:
    if event is Event.NOT_STARTED:
        return now
    if event not in (Event.DEFER, Event.IN_DOUBT):
        return None
    wait = base_delay(recipient.attempts + 1, settings.retry_schedule) if verdict.charged else 0.0
    if event is Event.IN_DOUBT:
        wait = max(wait, settings.in_doubt_delay)
    return min(now + int(wait * 1000), delivery.expires_at)
