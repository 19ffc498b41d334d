"""What a relay does several times in a row: how often says something of it, and what ends or begins the row anew."""

import pytest

from service.mail.lifecycle import Event
from service.mail.outcome import Action, Failure, Phase, Scope, judge
from service.mail.reply import make_reply
from service.relay.in_a_row import FRUITLESS, REFUSES_ALL, InARow, Trend
from service.relay.policy import policy_for
from service.relay.port import RecipientResult, Report

POLICY = policy_for("163")
CLOSED = RecipientResult(Phase.MAIL, make_reply(421, ["4.3.0 closing"]))
BROKEN_OFF = RecipientResult(Phase.RCPT, failure=Failure.LOST)
DENIED = RecipientResult(Phase.RCPT, make_reply(554, ["5.7.1 Relay access denied"]))
STRANGER = RecipientResult(Phase.MAIL, make_reply(553, ["authentication is required"]))
REFUSED = RecipientResult(Phase.RCPT, make_reply(550, ["5.1.1 no such user"]))
TAKEN = RecipientResult(Phase.DOT, make_reply(250, ["ok"]))
ODD = "554 5.7.1 Something is odd, id=4F3a{0} for <a{0}@b.example>"


def trends(row: InARow, message: str, *results: RecipientResult, fruitless: bool = True) -> list[Trend]:
    report = Report(results, mail_started=True, content_started=False, served=1, fruitless=fruitless)
    return row.judged(message, [judge(POLICY, each.phase, each.reply, each.failure) for each in results], report)


def kinds(row: InARow, *each: tuple[str, RecipientResult]) -> list[str]:
    found = [trends(row, message, result, fruitless=result is not TAKEN) for message, result in each]
    return [trend[0].verdict.kind if trend else "" for trend in found]


# --- sessions that end before they took a message --------------------------------------------------------------------


@pytest.mark.parametrize("result", [CLOSED, BROKEN_OFF, DENIED])
def test_the_third_fresh_session_in_a_row_that_took_nothing_makes_the_relay_rest_and_so_does_each_further_one(
    result: RecipientResult,
) -> None:
    given = [(name, result) for name in "abcd"]
    assert kinds(InARow(10), *given) == ["", "", FRUITLESS.kind, FRUITLESS.kind]
    assert (FRUITLESS.action, FRUITLESS.pauses[:3], FRUITLESS.probe) == (Action.RATE, (30, 60, 120), False)


def test_a_message_that_was_taken_ends_the_row() -> None:
    row = InARow(10)
    given = [("a", CLOSED), ("b", CLOSED), ("c", TAKEN), ("d", CLOSED), ("e", CLOSED)]
    assert kinds(row, *given) == [""] * 5
    assert kinds(row, ("f", CLOSED)) == [FRUITLESS.kind]


def test_a_session_that_took_something_and_a_refused_recipient_neither_count_nor_end_the_row() -> None:
    row = InARow(10)
    assert kinds(row, ("a", CLOSED), ("b", REFUSED), ("c", CLOSED), ("d", REFUSED)) == [""] * 4
    assert trends(row, "e", CLOSED, fruitless=False) == []
    assert kinds(row, ("f", CLOSED)) == [FRUITLESS.kind]


def test_one_odd_message_does_not_close_the_relay_however_often_it_is_tried() -> None:
    assert kinds(InARow(10), *[("odd", DENIED)] * 9) == [""] * 9


def test_a_login_that_is_forgotten_twice_in_a_row_is_the_accounts_trouble_whatever_messages_found_out() -> None:
    row = InARow(10)
    assert trends(row, "a", STRANGER) == []
    (trend,) = trends(row, "b", STRANGER)
    verdict = trend.verdict
    assert (verdict.kind, verdict.scope, verdict.action, verdict.probe) == (
        "auth-lost",
        Scope.RELAY,
        Action.AUTH,
        True,
    )
    assert kinds(row, ("c", TAKEN), ("d", STRANGER)) == ["", ""]


# --- refusals with the same words ------------------------------------------------------------------------------------


def refused(row: InARow, message: str, said: str, phase: Phase = Phase.DOT, to: int = 1) -> list[str]:
    """The reasons for which the relay is to rest after one more message."""
    result = RecipientResult(phase, make_reply(int(said[:3]), [said[4:]]))
    return [trend.reason for trend in trends(row, message, *[result] * to, fruitless=False)]


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        (ODD, Phase.DOT),
        (ODD, Phase.DATA),
        ("550 5.7.1 not you, {0}", Phase.MAIL),
        ("554 DT:SUM 163 smtp{0}", Phase.DOT),
        ("550 5.7.26 unauthenticated {0}", Phase.DOT),
    ],
)
def test_like_refusals_of_different_messages_rest_the_relay_until_one_is_accepted(said: str, phase: Phase) -> None:
    row = InARow(3)
    found = [len(refused(row, str(each), said.format(each), phase)) for each in range(5)]
    assert found == [0, 0, 1, 1, 1]
    assert refused(row, "good", "250 ok") == []
    assert [len(refused(row, str(each), said.format(each), phase)) for each in range(3)] == [0, 0, 1]


def test_the_reason_holds_the_words_and_not_what_differs() -> None:
    row = InARow(2)
    refused(row, "a", ODD.format(1))
    assert refused(row, "b", ODD.format(2)) == ["refuses-all: 2 messages in a row: 554 5.7.1 Something is odd, for <>"]


def test_one_message_in_many_transactions_is_one_message() -> None:
    row = InARow(3)
    assert not any(refused(row, "one", ODD.format(each), to=2) for each in range(9))


def test_other_words_begin_the_row_anew() -> None:
    row = InARow(2)
    for each in range(6):
        assert not refused(row, str(each), ODD.format(each) if each % 2 else "554 5.7.1 Something else")


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ("550 5.1.1 no such user", Phase.RCPT),
        ("550 5.7.1 refused", Phase.RCPT),
        ("554 DT:SPM 163 smtp1", Phase.DOT),
        ("552 5.3.4 too big", Phase.DOT),
        ("550 5.7.1 This message is not RFC 5322 compliant", Phase.DOT),
        ("451 4.3.0 later", Phase.DOT),
        ("421 4.7.0 slow down", Phase.MAIL),
    ],
)
def test_what_tells_of_an_address_a_content_or_another_time_is_no_refusal_of_all(said: str, phase: Phase) -> None:
    row = InARow(2)
    assert not any(refused(row, str(each), said, phase) for each in range(5))


def test_what_comes_between_and_accepts_nothing_does_not_end_the_row() -> None:
    row = InARow(2)
    refused(row, "a", ODD.format(1))
    refused(row, "b", "451 4.3.0 later")
    assert refused(row, "c", ODD.format(2))


def test_a_message_that_somebody_got_was_accepted() -> None:
    row = InARow(2)
    refused(row, "a", ODD.format(1))
    assert not trends(row, "b", TAKEN, RecipientResult(Phase.DOT, make_reply(554, [ODD[4:].format(2)])))
    assert not refused(row, "c", ODD.format(3))


@pytest.mark.parametrize("said", [ODD, "451 4.3.0 later"])
def test_it_may_be_left_off(said: str) -> None:
    row = InARow(0)
    assert not any(refused(row, str(each), said.format(each), Phase.MAIL) for each in range(99))


# --- recipients that are refused with the same words -----------------------------------------------------------------

STOPPED = "550 This account is asleep, message {0} for <u{0}@{1}> goes nowhere"


def at_rcpt(row: InARow, said: str, *domains: str) -> list[int]:
    """How many reasons there are to rest after each of some messages, one to each domain."""
    found = []
    for number, domain in enumerate(domains):
        words = said.format(number, domain)
        result = RecipientResult(Phase.RCPT, make_reply(int(words[:3]), [words[4:]]))
        verdict = judge(POLICY, result.phase, result.reply, None)
        report = Report([result], mail_started=True, content_started=False, served=9)
        found.append(len(row.judged(f"m{number}", [verdict], report, [f"u{number}@{domain}"])))
    return found


def test_recipients_of_many_domains_who_are_refused_alike_rest_the_relay() -> None:
    assert at_rcpt(InARow(4), STOPPED, "a.example", "b.example", "a.example", "c.example", "A.example") == [
        0,
        0,
        0,
        1,
        1,
    ]


def test_recipients_of_few_domains_may_be_what_is_wrong() -> None:
    assert not any(at_rcpt(InARow(4), STOPPED, *["a.example", "B.example", "b.example"] * 5))
    assert at_rcpt(InARow(4), STOPPED, *["a.example", "b.example"] * 5, "c.example") == [0] * 10 + [1]


@pytest.mark.parametrize(
    "said",
    [
        "550 5.1.1 no such user",
        "550 5.1.2 {1} leads nowhere",
        "550 5.2.1 closed",
        "450 4.2.0 Greylisted",
        "550 5.7.1 {1} takes nothing from us",
    ],
)
def test_words_about_an_address_or_a_domain_do_not_count(said: str) -> None:
    assert not any(at_rcpt(InARow(2), said, *[f"{letter}.example" for letter in "abcdefgh"]))


def test_the_senders_address_is_no_recipients_fault() -> None:
    assert at_rcpt(InARow(3), "550 5.1.8 bad sender", "a.example", "b.example", "c.example") == [0, 0, 1]


def test_a_message_that_was_taken_begins_the_domains_anew() -> None:
    row = InARow(3)
    at_rcpt(row, STOPPED, "a.example", "b.example")
    trends(row, "good", TAKEN)
    assert at_rcpt(row, STOPPED, "c.example", "d.example", "c.example") == [0, 0, 0]


# --- messages that are put off ---------------------------------------------------------------------------------------

LATER = ("451 4.3.0 Queue down", "450 not now", "452 4.3.1 No space", "451 4.7.1 Service unavailable", "451 4.4.3 DNS")


def test_messages_that_are_put_off_at_mail_in_whatever_words_rest_the_relay_until_one_is_taken() -> None:
    row = InARow(4)
    given = [
        (str(n), RecipientResult(Phase.MAIL, make_reply(int(said[:3]), [said[4:]]))) for n, said in enumerate(LATER)
    ]
    assert kinds(row, *given) == ["", "", "", FRUITLESS.kind, FRUITLESS.kind]
    (trend,) = trends(row, "more", given[0][1], given[0][1])
    assert trend.reason == "no-message-taken: 4 messages in a row refused for now: 451 4.3.0 Queue down"
    assert trend.spared == judge(POLICY, Phase.MAIL, given[0][1].reply, None), "the message pays nothing"
    assert kinds(row, ("good", TAKEN), *given) == ["", "", "", "", FRUITLESS.kind, FRUITLESS.kind]


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ("450 4.2.0 Greylisted, try again in 300 seconds", Phase.RCPT),
        ("451 4.7.1 Greylisting in action", Phase.MAIL),
        ("451 4.3.0 Temporary lookup failure", Phase.RCPT),
        ("451 4.3.0 later", Phase.DATA),
        ("451 4.3.0 later", Phase.DOT),
        ("450 4.1.8 Sender domain not found", Phase.MAIL),
        ("450 4.2.2 sender's mailbox full", Phase.MAIL),
        ("452 4.3.4 too much for now", Phase.MAIL),
        ("451 4.6.0 odd", Phase.MAIL),
    ],
)
def test_what_is_the_messages_own_or_its_recipients_puts_off_nobody_else(said: str, phase: Phase) -> None:
    row = InARow(2)
    assert not any(refused(row, str(each), said, phase) for each in range(9))


def test_the_relay_rests_and_no_message_pays_for_it() -> None:
    assert (REFUSES_ALL.event, REFUSES_ALL.action, REFUSES_ALL.charged, REFUSES_ALL.alert) == (
        Event.DEFER, Action.CONFIG, False, 1,
    )  # fmt: skip
    assert (REFUSES_ALL.pauses[0], REFUSES_ALL.pauses[-1]) == (600, 14400)
