"""From reports to settlements: schedule, doubt, and the relay's share of the blame."""

from dataclasses import replace

import pytest

from service.mail.lifecycle import Event
from service.mail.outcome import Failure, Phase
from service.mail.reply import make_reply
from service.mail.seal import Sealed
from service.relay.port import RecipientResult, Report
from service.settings import load
from service.spool.settling import Settler
from service.store.port import Delivery, DueRecipient
from tests.support.clock import EPOCH, SteppedClock

DELIVERY = Delivery(
    7, "r", "msg_1", "acme", "id@x", "acme||", 1, "at_least_once", EPOCH, EPOCH, EPOCH + 10**9, "a@b.example", "a@b.example",
    False, 10, None, (DueRecipient(0, "c@d.example", 0, 0),), (b"x",),
)  # fmt: skip


SEALED = Sealed((b"x",), "a@b.example", "a@b.example", "rule", rewritten=False)


def settle(result: RecipientResult, delivery: Delivery = DELIVERY, **settings: object):  # type: ignore[no-untyped-def]
    settler = Settler(load(**settings), SteppedClock())
    report = Report([result] * len(delivery.recipients), mail_started=True, content_started=result.phase is Phase.DOT)
    return settler.settle(delivery, report, SEALED)


def said(phase: Phase, code: int, text: str) -> RecipientResult:
    return RecipientResult(phase, make_reply(code, [text]))


def test_a_positive_reply_after_the_dot_is_sent_with_the_providers_words() -> None:
    settled = settle(said(Phase.DOT, 250, "Mail OK queued as smtp3,DcmowAA"))
    (each,) = settled.settlement.recipients
    assert (each.event, each.charged, each.provider_message_id) == (
        Event.ACCEPTED,
        True,
        "Mail OK queued as smtp3,DcmowAA",
    )
    assert (settled.settlement.result, settled.relay_verdict) == ("sent", None)


def test_a_deferral_follows_the_schedule_with_jitter() -> None:
    settled = settle(said(Phase.RCPT, 450, "4.2.0 later"), retry_schedule=(10.0, 60.0))
    assert settled.settlement.recipients[0].due_at == EPOCH + 7500, "half of ten seconds is fixed, half is jitter"
    again = replace(DELIVERY, recipients=(DueRecipient(0, "c@d.example", 1, 0),))
    assert (
        settle(said(Phase.RCPT, 450, "x"), again, retry_schedule=(10.0, 60.0)).settlement.recipients[0].due_at
        == EPOCH + 45_000
    )


def test_a_deferral_never_goes_past_the_expiry() -> None:
    soon = replace(DELIVERY, expires_at=EPOCH + 100)
    assert settle(said(Phase.RCPT, 450, "x"), soon).settlement.recipients[0].due_at == EPOCH + 100


@pytest.mark.parametrize(
    ("wish", "doubts", "event"),
    [("at_least_once", 0, Event.IN_DOUBT), ("at_least_once", 1, Event.IN_DOUBT), ("at_least_once", 2, Event.PARK), ("at_most_once", 0, Event.PARK)],
)  # fmt: skip
def test_a_reply_lost_after_the_dot_is_repeated_or_parked(wish: str, doubts: int, event: Event) -> None:
    delivery = replace(DELIVERY, delivery=wish, recipients=(DueRecipient(0, "c@d.example", doubts, doubts),))
    settled = settle(RecipientResult(Phase.DOT, failure=Failure.LOST), delivery)
    (each,) = settled.settlement.recipients
    assert (each.event, each.in_doubt, settled.settlement.result) == (event, True, "in_doubt")
    if event is Event.IN_DOUBT:
        assert each.due_at == EPOCH + 900_000, "fifteen minutes or more"


@pytest.mark.parametrize(
    "result",
    [
        RecipientResult(Phase.CONNECT, failure=Failure.REFUSED),
        RecipientResult(Phase.AUTH, make_reply(535, ["no"])),
        RecipientResult(Phase.TLS, failure=Failure.TLS),
    ],
)
def test_a_relay_that_can_not_be_used_is_blamed_and_the_message_is_not_charged(result: RecipientResult) -> None:
    settled = settle(result)
    (each,) = settled.settlement.recipients
    assert (each.event, each.charged, each.due_at) == (Event.NOT_STARTED, False, EPOCH)
    assert settled.relay_verdict is not None
    assert settled.relay_verdict.broken


def test_a_shutdown_blames_nobody() -> None:
    settled = settle(RecipientResult(Phase.MAIL, failure=Failure.SHUTDOWN))
    assert settled.settlement.recipients[0].event is Event.NOT_STARTED
    assert settled.relay_verdict is None


def test_a_bad_address_is_suppressed() -> None:
    assert settle(said(Phase.RCPT, 550, "5.1.1 nobody")).settlement.recipients[0].suppress == "bad_address"
    assert settle(said(Phase.RCPT, 550, "5.7.1 blocked")).settlement.recipients[0].suppress is None
