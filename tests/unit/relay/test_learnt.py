"""What a relay was found to take less of: from which replies, for how long, and what a try that fails costs. No sockets."""

import pytest

from service.mail.outcome import Failure, Phase
from service.mail.reply import make_reply
from service.relay.config import relay_from
from service.relay.learnt import Learnt, Life
from service.relay.port import Pipelining, RecipientResult
from tests.support.clock import EPOCH

HOUR = 3_600_000
TOO_MANY = RecipientResult(Phase.RCPT, make_reply(452, ["4.5.3 too many recipients"]))
TAKEN = RecipientResult(Phase.DOT, make_reply(250, ["ok"]))


def learnt(**given: object) -> Learnt:
    config = relay_from("r", {"url": "smtp://127.0.0.1:9?plaintext=allow", **given}, "test")
    return Learnt(config, 3600)


def test_a_refusal_of_the_only_recipient_says_nothing_of_how_many_a_relay_takes() -> None:
    known = learnt()
    known.fewer_recipients([TOO_MANY], EPOCH)
    assert known.max_recipients is None
    known.fewer_recipients([TAKEN, TAKEN, TOO_MANY], EPOCH)
    known.fewer_recipients([TOO_MANY], EPOCH)
    assert known.max_recipients == 2


@pytest.mark.parametrize(
    ("results", "most"),
    [
        ([TAKEN, TAKEN, TAKEN, TOO_MANY], 3),  # as many as it took
        ([TOO_MANY] * 10, 5),  # half, when it took none
        ([RecipientResult(Phase.DOT, make_reply(554, ["Recipient count exceeds"]))] * 7, 3),
        ([TAKEN, TOO_MANY], 1),
        ([RecipientResult(Phase.MAIL, failure=Failure.LOST)] * 3, 1),
    ],
)
def test_the_number_of_recipients_is_what_it_took_or_half(results: list[RecipientResult], most: int) -> None:
    known = learnt(max_recipients=20)
    known.fewer_recipients(results, EPOCH)
    assert known.max_recipients == most


def test_every_lesson_is_forgotten_after_its_life_and_not_a_moment_before() -> None:
    known = learnt(max_recipients=50, max_messages_per_connection=20)

    def now_are() -> tuple[int | None, int, Pipelining, bool]:
        return known.max_recipients, known.max_messages, known.pipelining, known.chunking

    known.fewer_recipients([TAKEN, TOO_MANY], EPOCH)
    known.fewer_messages(6, EPOCH + 1)
    assert known.out_of_step(EPOCH + 2)
    assert known.no_chunks(EPOCH + 3)
    lowered = (1, 5, Pipelining.ENVELOPE, False)
    known.succeeded(EPOCH + HOUR - 1)
    assert now_are() == lowered
    for step, after in enumerate(
        [
            (50, 5, Pipelining.ENVELOPE, False),
            (50, 20, Pipelining.ENVELOPE, False),
            (50, 20, Pipelining.FULL, False),
            (50, 20, Pipelining.FULL, True),
        ]
    ):
        known.succeeded(EPOCH + HOUR + step)
        assert now_are() == after


def test_what_is_configured_is_never_exceeded() -> None:
    known = learnt(pipelining="envelope", chunking=False, max_recipients=5)
    known.fewer_recipients([TAKEN] * 9 + [TOO_MANY], EPOCH)
    assert known.max_recipients == 5, "it took nine, and five are asked for"
    known.out_of_step(EPOCH)
    assert not known.no_chunks(EPOCH), "nothing that anybody need be told"
    known.succeeded(EPOCH + HOUR)
    assert (known.pipelining, known.chunking, known.max_recipients) == (Pipelining.ENVELOPE, False, 5)


def test_pipelining_comes_back_one_level_at_a_time() -> None:
    known, at = learnt(), EPOCH
    assert [known.out_of_step(at) for _ in range(3)] == [True, True, False]
    levels = []
    for _ in range(3):
        at += HOUR
        known.succeeded(at - 1)
        levels.append(known.pipelining)
        known.succeeded(at)
    assert levels == [Pipelining.OFF, Pipelining.ENVELOPE, Pipelining.FULL]


def test_a_try_that_fails_lowers_it_at_once_for_twice_as_long_and_no_longer_than_a_day() -> None:
    known, at, length = learnt(), EPOCH, HOUR
    known.no_chunks(at)
    for _ in range(8):
        known.succeeded(at + length - 1)
        assert not known.chunking
        at += length
        known.succeeded(at)
        assert known.chunking
        at += 1000
        known.no_chunks(at)
        length = min(2 * length, 24 * HOUR)
    assert length == 24 * HOUR


def test_a_try_that_held_for_its_time_makes_the_next_lesson_a_first_one() -> None:
    known = learnt()
    known.no_chunks(EPOCH)
    known.succeeded(EPOCH + HOUR)
    known.no_chunks(EPOCH + 2 * HOUR)
    known.succeeded(EPOCH + 3 * HOUR)
    assert known.chunking


def test_several_sessions_that_fail_at_once_are_one_try() -> None:
    life = Life(HOUR)
    life.begin(EPOCH)
    life.end(EPOCH + HOUR)
    for _ in range(5):
        life.begin(EPOCH + HOUR + 10)
    assert life.until == EPOCH + 3 * HOUR + 10


def test_a_level_that_fails_while_the_next_one_is_still_forbidden_is_a_failed_try_too() -> None:
    known = learnt()
    known.out_of_step(EPOCH)
    known.out_of_step(EPOCH)
    known.succeeded(EPOCH + HOUR)
    known.out_of_step(EPOCH + HOUR + 1)
    known.succeeded(EPOCH + 3 * HOUR)
    assert known.pipelining is Pipelining.OFF, "two hours this time"
    known.succeeded(EPOCH + 3 * HOUR + 1)
    assert known.pipelining is Pipelining.ENVELOPE


def test_a_lesson_of_a_clock_that_was_ahead_is_believed_no_longer_than_its_life_once_the_clock_is_right() -> None:
    known, ahead = learnt(), EPOCH + 30 * 24 * HOUR
    known.fewer_recipients([TAKEN, TOO_MANY], ahead)
    known.succeeded(EPOCH)
    known.succeeded(EPOCH + HOUR - 1)
    assert known.max_recipients == 1
    known.succeeded(EPOCH + HOUR)
    assert known.max_recipients is None


def test_a_try_of_a_clock_that_was_ahead_does_not_make_every_later_lesson_a_failed_try() -> None:
    known, ahead = learnt(), EPOCH + 30 * 24 * HOUR
    known.no_chunks(ahead)
    known.succeeded(ahead + HOUR)
    known.succeeded(EPOCH)
    known.no_chunks(EPOCH + 2 * HOUR)
    known.succeeded(EPOCH + 3 * HOUR)
    assert known.chunking, "a first one: it is believed for an hour"
