"""A relay that breaks fresh sessions off is asked after the others, for a while, and never left out."""

from service.mail.outcome import Failure, Phase, judge
from service.mail.reply import Reply
from service.relay.policy import policy_for
from service.relay.port import RecipientResult, Report
from service.spool.avoided import Avoided

BROKEN_OFF = RecipientResult(Phase.RCPT, failure=Failure.LOST)
CLOSED = RecipientResult(Phase.MAIL, Reply(421, "4.3.2", "not now"))
REFUSED = RecipientResult(Phase.RCPT, Reply(550, "5.1.1", "nobody"))
TAKEN = RecipientResult(Phase.DOT, Reply(250, "2.0.0", "ok"))
NOW = 1000


def told(avoided: Avoided, relay: str, *results: RecipientResult, served: int = 1, now: int = NOW) -> None:
    verdicts = [judge(policy_for(""), each.phase, each.reply, each.failure) for each in results]
    avoided.learn(relay, Report(results, True, False, served=served), verdicts, now)


def test_what_broke_a_fresh_session_off_is_asked_last_until_the_time_is_over() -> None:
    for result in (BROKEN_OFF, CLOSED):
        avoided = Avoided(30)
        told(avoided, "a", result)
        assert list(avoided.last(["a", "b", "c"], NOW)) == ["b", "c", "a"]
        assert list(avoided.last(["a"], NOW)) == ["a"], "there is no other"
        assert list(avoided.last(["a", "b"], NOW + 30_000)) == ["a", "b"]


def test_nobody_is_avoided_where_the_time_is_none() -> None:
    avoided = Avoided(0)
    told(avoided, "a", CLOSED)
    assert list(avoided.last(["a", "b"], NOW)) == ["a", "b"]


def test_a_message_that_was_taken_ends_it() -> None:
    avoided = Avoided(30)
    told(avoided, "a", BROKEN_OFF)
    told(avoided, "a", REFUSED, TAKEN)
    assert list(avoided.last(["a", "b"], NOW)) == ["a", "b"]


def test_an_older_session_and_a_refused_recipient_say_nothing() -> None:
    avoided = Avoided(30)
    told(avoided, "a", CLOSED, served=7)
    told(avoided, "a", REFUSED)
    assert list(avoided.last(["a", "b"], NOW)) == ["a", "b"]


def test_an_end_that_a_clock_told_that_was_ahead_avoids_nothing() -> None:
    avoided = Avoided(30)
    told(avoided, "a", CLOSED, now=NOW + 3_600_000)
    assert list(avoided.last(["a", "b"], NOW)) == ["a", "b"]
