"""From reports to settlements: schedule, doubt, and the relay's share of the blame."""

from dataclasses import replace

import pytest

from service.mail.lifecycle import Event
from service.mail.outcome import Failure, Phase
from service.mail.reply import make_reply
from service.mail.retry import History
from service.mail.seal import Sealed
from service.relay.policy import policy_for
from service.relay.port import RecipientResult, Report
from service.settings import load
from service.spool.settling import Settler, judge_all
from service.store.values import Delivery, DueRecipient
from tests.support.clock import EPOCH, SteppedClock

DELIVERY = Delivery(
    7, False, "r", "msg_1", "acme", "id@x", "acme||", 1, "at_least_once", EPOCH, EPOCH, EPOCH + 10**9, "a@b.example", "a@b.example",
    False, None, 10, None, (DueRecipient(0, "c@d.example", 0, 0),), (b"x",),
)  # fmt: skip


SEALED = Sealed((b"x",), "a@b.example", "a@b.example", "rule", rewritten=False)


def settle(  # type: ignore[no-untyped-def]
    *results: RecipientResult,
    delivery: Delivery = DELIVERY,
    preset: str = "",
    until: int | None = None,
    **settings: object,
):
    """Judged and settled as the dispatcher does; with one result, for every recipient the same."""
    given = list(results) if len(results) == len(delivery.recipients) else [results[0]] * len(delivery.recipients)
    report = Report(given, mail_started=True, content_started=given[0].phase is Phase.DOT)
    configured = load(**settings)
    verdicts = judge_all(policy_for(preset), delivery, given, EPOCH, configured.reconnect_free_after)
    return Settler(configured, SteppedClock()).settle(delivery, report, SEALED, verdicts, until)


def after(kind: str = "", count: int = 0, reconnected_at: int | None = None, attempts: int = 0) -> Delivery:
    """A delivery whose recipient went through something before."""
    history = History(kind, count, reconnected_at)
    return replace(DELIVERY, recipients=(DueRecipient(0, "c@d.example", attempts, 0, history),))


def said(phase: Phase, code: int, text: str) -> RecipientResult:
    return RecipientResult(phase, make_reply(code, [text]))


def test_a_positive_reply_after_the_dot_is_sent_with_the_providers_words_and_its_name_for_the_message() -> None:
    settlement = settle(said(Phase.DOT, 250, "Mail OK queued as smtp3,DcmowAA"))
    (each,) = settlement.recipients
    assert (each.event, each.charged, each.text) == (Event.ACCEPTED, True, "Mail OK queued as smtp3,DcmowAA")
    assert each.provider_message_id == "smtp3,DcmowAA"
    assert (settlement.result, each.action, each.scope) == ("sent", "SENT", "none")


def test_a_reply_that_names_nothing_leaves_the_providers_name_empty() -> None:
    (sent,) = settle(said(Phase.DOT, 250, "OK: queued as.")).recipients
    assert (sent.event, sent.text, sent.provider_message_id) == (Event.ACCEPTED, "OK: queued as.", None)
    (put_off,) = settle(said(Phase.DOT, 450, "later, queued as 4WxyZ0abcd")).recipients
    assert put_off.provider_message_id is None, "what was not accepted has none"


def test_a_deferral_follows_the_schedule_with_jitter() -> None:
    settled = settle(said(Phase.RCPT, 450, "4.2.0 later"), retry_schedule=(10.0, 60.0))
    assert settled.recipients[0].due_at == EPOCH + 7500, "half of ten seconds is fixed, half is jitter"
    again = replace(DELIVERY, recipients=(DueRecipient(0, "c@d.example", 1, 0),))
    assert (
        settle(said(Phase.RCPT, 450, "x"), delivery=again, retry_schedule=(10.0, 60.0)).recipients[0].due_at
        == EPOCH + 45_000
    )


def test_a_deferral_never_goes_past_the_expiry() -> None:
    soon = replace(DELIVERY, expires_at=EPOCH + 100)
    assert settle(said(Phase.RCPT, 450, "x"), delivery=soon).recipients[0].due_at == EPOCH + 100


@pytest.mark.parametrize(
    ("wish", "doubts", "event"),
    [("at_least_once", 0, Event.IN_DOUBT), ("at_least_once", 1, Event.IN_DOUBT), ("at_least_once", 2, Event.PARK), ("at_most_once", 0, Event.PARK)],
)  # fmt: skip
def test_a_reply_lost_after_the_dot_is_repeated_or_parked(wish: str, doubts: int, event: Event) -> None:
    delivery = replace(DELIVERY, delivery=wish, recipients=(DueRecipient(0, "c@d.example", doubts, doubts),))
    settled = settle(RecipientResult(Phase.DOT, failure=Failure.LOST), delivery=delivery)
    (each,) = settled.recipients
    assert (each.event, each.in_doubt, settled.result) == (event, True, "in_doubt")
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
    (each,) = settle(result, until=EPOCH + 60_000).recipients
    assert (each.event, each.charged, each.due_at) == (Event.NOT_STARTED, False, EPOCH)
    assert (each.scope, each.relay_until) == ("relay", EPOCH + 60_000)


def test_a_shutdown_blames_nobody() -> None:
    (each,) = settle(RecipientResult(Phase.MAIL, failure=Failure.SHUTDOWN)).recipients
    assert (each.event, each.scope, each.action) == (Event.NOT_STARTED, "none", "BACK")


def test_a_bad_address_is_suppressed() -> None:
    assert settle(said(Phase.RCPT, 550, "5.1.1 nobody")).recipients[0].suppress == "bad_address"
    assert settle(said(Phase.RCPT, 550, "5.7.1 blocked")).recipients[0].suppress is None


def test_a_relay_at_fault_in_the_middle_charges_nothing_and_another_relay_may_go_on_at_once() -> None:
    (each,) = settle(said(Phase.RCPT, 550, "Ip frequency limited"), preset="qq", until=EPOCH + 300_000).recipients
    assert (each.event, each.kind, each.charged, each.due_at) == (Event.DEFER, "rate", False, EPOCH)
    assert (each.scope, each.action, each.relay_until) == ("relay", "RATE", EPOCH + 300_000)


TIRED = said(Phase.MAIL, 450, "MI:DMC 163 smtp12")


def test_a_new_connection_is_free_once_an_hour_and_then_charged() -> None:
    (each,) = settle(TIRED).recipients
    assert (each.charged, each.reconnected, each.due_at) == (False, True, EPOCH)
    (each,) = settle(TIRED, delivery=after(reconnected_at=EPOCH - 60_000)).recipients
    assert (each.charged, each.reconnected) == (True, False)
    assert each.due_at is not None
    assert each.due_at > EPOCH, "by the schedule"
    (each,) = settle(TIRED, delivery=after(reconnected_at=EPOCH - 3_600_000)).recipients
    assert (each.charged, each.reconnected) == (False, True)
    (each,) = settle(TIRED, delivery=after(reconnected_at=EPOCH - 60_000), reconnect_free_after=60).recipients
    assert (each.charged, each.reconnected) == (False, True)


def test_a_lost_login_is_mended_by_a_new_connection_once_and_then_the_account_is_at_fault() -> None:
    lost = said(Phase.MAIL, 530, "5.7.0 Authentication required")
    (each,) = settle(lost).recipients
    assert (each.scope, each.action, each.charged) == ("connection", "RECONN", False)
    (each,) = settle(lost, delivery=after(reconnected_at=EPOCH - 1000)).recipients
    assert (each.scope, each.action, each.charged, each.event) == ("relay", "AUTH", False, Event.DEFER)


@pytest.mark.parametrize(
    ("reply", "preset", "kind", "times", "minutes"),
    [
        (said(Phase.DOT, 451, "DT:SPM"), "163", "content-temporary", 3, 2),
        (said(Phase.RCPT, 550, "Mailbox unavailable or access denied"), "qq", "recipient-flooded", 2, 10),
    ],
)
def test_what_is_tried_a_few_times_is_then_refused(
    reply: RecipientResult, preset: str, kind: str, times: int, minutes: int
) -> None:
    for count in range(times):
        (each,) = settle(reply, preset=preset, delivery=after(kind, count, attempts=count)).recipients
        assert (each.event, each.action, each.charged) == (Event.DEFER, "TEMP", True)
        assert each.due_at is not None
        assert each.due_at >= EPOCH + minutes * 60_000
    (each,) = settle(reply, preset=preset, delivery=after(kind, times, attempts=times)).recipients
    assert (each.event, each.action) == (Event.REFUSED, "PERM")
    (each,) = settle(reply, preset=preset, delivery=after("temporary", 9, attempts=9)).recipients
    assert each.event is Event.DEFER, "other troubles before don't count"


def test_a_full_mailbox_is_asked_each_hour_and_bounces_when_the_time_is_over() -> None:
    full = said(Phase.RCPT, 552, "5.2.2 Mailbox full")
    (each,) = settle(full).recipients
    assert each.due_at == EPOCH + 3_600_000
    (each,) = settle(full, delivery=replace(DELIVERY, expires_at=EPOCH + 3_000_000)).recipients
    assert (each.event, each.suppress, each.due_at) == (Event.REFUSED, None, None), "bounced, not expired"


def test_a_sender_that_does_not_fit_fails_and_nobody_is_bounced() -> None:
    (each,) = settle(said(Phase.MAIL, 440, "mail from account doesn't conform with authentication")).recipients
    assert (each.event, each.scope, each.action) == (Event.FAULT, "message", "FAILED")


THREE = replace(DELIVERY, recipients=tuple(DueRecipient(n, f"{n}@d.example", 0, 0) for n in range(3)))


def test_too_many_recipients_splits_uncharged_and_at_once() -> None:
    taken, refused = said(Phase.DOT, 250, "ok"), said(Phase.RCPT, 452, "4.5.3 too many recipients")
    settled = settle(taken, taken, refused, delivery=THREE)
    assert [each.event for each in settled.recipients] == [Event.ACCEPTED, Event.ACCEPTED, Event.DEFER]
    last = settled.recipients[2]
    assert (last.action, last.charged, last.due_at) == ("SPLIT", False, EPOCH)


def test_one_recipient_that_is_too_many_is_charged() -> None:
    (each,) = settle(said(Phase.RCPT, 452, "4.5.3 too many recipients")).recipients
    assert (each.action, each.charged) == ("TEMP", True)
    left = RecipientResult(Phase.MAIL, failure=Failure.LEFT_OUT)
    settled = settle(said(Phase.RCPT, 452, "4.5.3 too many recipients"), left, left, delivery=THREE)
    assert [each.charged for each in settled.recipients] == [True, False, False]
    assert settled.recipients[2].due_at == EPOCH


def test_greylisting_is_waited_for_as_long_as_the_words_say_and_the_relay_does_not_rest() -> None:
    reply = said(
        Phase.RCPT, 450, "4.7.1 <c@d.example>: Recipient address rejected: Greylisted, try again in 300 seconds"
    )
    (each,) = settle(reply).recipients
    assert (each.kind, each.scope, each.action, each.charged) == ("greylisted", "recipient", "TEMP", True)
    assert (each.due_at, each.relay_until) == (EPOCH + 300_000, None)
    (each,) = settle(reply, retry_schedule=(1200.0,)).recipients
    assert each.due_at == EPOCH + 900_000, "the longest wait wins"
    (each,) = settle(reply, delivery=replace(DELIVERY, expires_at=EPOCH + 100_000)).recipients
    assert each.due_at == EPOCH + 100_000


def test_what_a_relay_does_not_offer_charges_nothing_and_takes_another_route() -> None:
    result = RecipientResult(Phase.MAIL, failure=Failure.CAPABILITY, detail="the relay does not offer SMTPUTF8")
    report = Report([result], mail_started=False, content_started=False)
    verdicts = judge_all(policy_for(""), DELIVERY, [result], EPOCH)
    settled = Settler(load(), SteppedClock()).settle(DELIVERY, report, SEALED, verdicts, route="acme|~r|")
    (each,) = settled.recipients
    assert (each.event, each.kind, each.action, each.charged, each.due_at) == (
        Event.NOT_STARTED, "not-offered", "ELSEWHERE", False, EPOCH,
    )  # fmt: skip
    assert (settled.route, settled.result, settled.unspent) == ("acme|~r|", "not_started", True)
    assert each.text == "the relay does not offer SMTPUTF8"
