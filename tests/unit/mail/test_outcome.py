"""The policy: what a reply or a failure means, row by row, with the near misses."""

import pytest

from service.mail.lifecycle import Event, State, apply
from service.mail.outcome import Failure, Phase, Scope, judge_failure, judge_reply
from service.mail.reply import make_reply


@pytest.mark.parametrize(
    ("phase", "code", "text", "event", "kind", "suppress"),
    [
        (Phase.DOT, 250, "2.0.0 queued", Event.ACCEPTED, "sent", False),
        (Phase.RCPT, 550, "5.1.1 no such user", Event.REFUSED, "bad-address", True),
        (Phase.RCPT, 550, "5.1.10 null MX", Event.REFUSED, "bad-address", True),
        (Phase.RCPT, 550, "User unknown", Event.REFUSED, "bad-address", True),
        (Phase.RCPT, 550, "No such recipient here", Event.REFUSED, "bad-address", True),
        # near misses: refused for good, yet the address is not at fault
        (Phase.RCPT, 550, "5.7.1 <unknown[203.0.113.5]>: Client host rejected", Event.REFUSED, "permanent", False),
        (Phase.RCPT, 553, "5.7.1 Sender domain not found", Event.REFUSED, "permanent", False),
        (Phase.RCPT, 550, "5.1.8 Sender address rejected", Event.REFUSED, "permanent", False),
        (Phase.RCPT, 550, "5.7.1 blocked client [165.1.1.9]", Event.REFUSED, "permanent", False),
        (Phase.RCPT, 553, "5.3.0 unknown local host", Event.REFUSED, "permanent", False),
        (Phase.MAIL, 550, "5.1.1 no such user", Event.REFUSED, "permanent", False),
        (Phase.DOT, 554, "5.1.1 no such user", Event.REFUSED, "permanent", False),
        (Phase.RCPT, 450, "4.2.0 greylisted", Event.DEFER, "temporary", False),
        (Phase.RCPT, 452, "4.2.2 mailbox full", Event.DEFER, "mailbox-full", False),
        (Phase.DOT, 451, "4.3.0 try later", Event.DEFER, "temporary", False),
        (Phase.DOT, 552, "5.3.4 too big", Event.REFUSED, "permanent", False),
        (Phase.DATA, 503, "bad sequence", Event.DEFER, "protocol", False),
        (Phase.RCPT, 502, "not implemented", Event.DEFER, "protocol", False),
        (Phase.MAIL, 421, "4.3.2 closing", Event.DEFER, "closing", False),
        (Phase.AUTH, 535, "5.7.8 bad credentials", Event.NOT_STARTED, "auth-refused", False),
        (Phase.AUTH, 454, "4.7.0 try later", Event.NOT_STARTED, "auth-temporary", False),
        (Phase.GREETING, 554, "no", Event.NOT_STARTED, "refused", False),
        (Phase.GREETING, 421, "busy", Event.NOT_STARTED, "refused-for-now", False),
        (Phase.DOT, 354, "what", Event.DEFER, "protocol", False),
    ],
)
def test_each_reply_has_its_verdict(
    phase: Phase, code: int, text: str, event: Event, kind: str, suppress: bool
) -> None:
    verdict = judge_reply(phase, make_reply(code, [text]))
    assert (verdict.event, verdict.kind, verdict.suppress) == (event, kind, suppress)


@pytest.mark.parametrize("phase", Phase)
def test_every_failure_in_every_phase_leads_out_of_sending(phase: Phase) -> None:
    for failure in Failure:
        verdict = judge_failure(phase, failure)
        apply(State.SENDING, verdict.event)
        assert (verdict.event is Event.IN_DOUBT) == (phase is Phase.DOT), failure


@pytest.mark.parametrize("phase", Phase)
def test_every_reply_in_every_phase_leads_out_of_sending(phase: Phase) -> None:
    for code in range(200, 600):
        verdict = judge_reply(phase, make_reply(code, ["some words"]))
        apply(State.SENDING, verdict.event)
        assert (verdict.event is Event.ACCEPTED) == (phase is Phase.DOT and code < 300), code


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.GREETING, Phase.TLS, Phase.EHLO, Phase.AUTH])
def test_what_goes_wrong_before_mail_from_charges_the_message_nothing(phase: Phase) -> None:
    for failure in (Failure.DNS, Failure.REFUSED, Failure.TIMEOUT, Failure.LOST, Failure.TLS):
        verdict = judge_failure(phase, failure)
        assert not verdict.charged
        assert verdict.scope is Scope.RELAY
        assert verdict.pause > 0
