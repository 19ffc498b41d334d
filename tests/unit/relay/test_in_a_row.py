"""Sessions that end before they took a message: how many in a row say something of the relay, and what ends the row."""

import pytest

from service.mail.envelope import Envelope
from service.mail.outcome import Action, Failure, Phase, Scope
from service.mail.reply import make_reply
from service.relay.in_a_row import FRUITLESS, InARow, Trend
from service.relay.policy import policy_for
from service.relay.port import Outgoing, RecipientResult, Report

CLOSED = RecipientResult(Phase.MAIL, make_reply(421, ["4.3.0 closing"]))
BROKEN_OFF = RecipientResult(Phase.RCPT, failure=Failure.LOST)
DENIED = RecipientResult(Phase.RCPT, make_reply(554, ["5.7.1 Relay access denied"]))
STRANGER = RecipientResult(Phase.MAIL, make_reply(553, ["authentication is required"]))
REFUSED = RecipientResult(Phase.RCPT, make_reply(550, ["5.1.1 no such user"]))
TAKEN = RecipientResult(Phase.DOT, make_reply(250, ["ok"]))


def told(row: InARow, message: str, *results: RecipientResult, fruitless: bool = True) -> Trend | None:
    report = Report(results, mail_started=True, content_started=False, served=1, fruitless=fruitless)
    return row.reported(Outgoing(1, Envelope("me@163.com", ("a@b.example",), 3), (b"x",), message), report)


def kinds(row: InARow, *each: tuple[str, RecipientResult]) -> list[str]:
    trends = [told(row, message, result, fruitless=result is not TAKEN) for message, result in each]
    return [trend.verdict.kind if trend else "" for trend in trends]


@pytest.mark.parametrize("result", [CLOSED, BROKEN_OFF, DENIED])
def test_the_third_fresh_session_in_a_row_that_took_nothing_makes_the_relay_rest_and_so_does_each_further_one(
    result: RecipientResult,
) -> None:
    row = InARow(policy_for("163"))
    given = [(name, result) for name in "abcd"]
    assert kinds(row, *given) == ["", "", FRUITLESS.kind, FRUITLESS.kind]
    assert (FRUITLESS.action, FRUITLESS.pauses[:3], FRUITLESS.probe) == (Action.RATE, (30, 60, 120), False)


def test_a_message_that_was_taken_ends_the_row() -> None:
    row = InARow(policy_for(""))
    given = [("a", CLOSED), ("b", CLOSED), ("c", TAKEN), ("d", CLOSED), ("e", CLOSED)]
    assert kinds(row, *given) == [""] * 5
    assert kinds(row, ("f", CLOSED)) == [FRUITLESS.kind]


def test_a_session_that_took_something_and_a_refused_recipient_neither_count_nor_end_the_row() -> None:
    row = InARow(policy_for(""))
    assert kinds(row, ("a", CLOSED), ("b", REFUSED), ("c", CLOSED), ("d", REFUSED)) == [""] * 4
    assert told(row, "e", CLOSED, fruitless=False) is None
    assert kinds(row, ("f", CLOSED)) == [FRUITLESS.kind]


def test_one_odd_message_does_not_close_the_relay_however_often_it_is_tried() -> None:
    row = InARow(policy_for(""))
    assert kinds(row, *[("odd", DENIED)] * 9) == [""] * 9


def test_a_login_that_is_forgotten_twice_in_a_row_is_the_accounts_trouble_whatever_messages_found_out() -> None:
    row = InARow(policy_for("163"))
    assert told(row, "a", STRANGER) is None
    trend = told(row, "b", STRANGER)
    assert trend is not None
    verdict = trend.verdict
    assert (verdict.kind, verdict.scope, verdict.action, verdict.probe) == (
        "auth-lost",
        Scope.RELAY,
        Action.AUTH,
        True,
    )
    assert kinds(row, ("c", TAKEN), ("d", STRANGER)) == ["", ""]
