"""What a pool does with a verdict on it: rests, probes, learns, alerts. No sockets: nothing is sent here."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from service.mail.outcome import Failure, Phase, Verdict, judge, judge_failure, judge_reply
from service.mail.reply import make_reply
from service.mail.trouble import RelayEvent, Trouble
from service.relay.config import relay_from
from service.relay.ledger import ProcessLedger
from service.relay.policy import policy_for
from service.relay.pool import Pool
from service.relay.port import Health, RecipientResult, Report
from service.settings import load
from tests.support.clock import EPOCH, SteppedClock

NOTHING = Report([], mail_started=True, content_started=True)


@pytest.fixture
async def clock() -> SteppedClock:
    return SteppedClock()


def pool_for(
    clock: SteppedClock, ledger: ProcessLedger | None = None, settings: dict[str, object] | None = None, **more: object
) -> Pool:
    config = relay_from("r", {"url": "smtp://127.0.0.1:9?plaintext=allow", "preset": "163", **more}, "test")
    return Pool(replace(config, max_connections=4), load(**settings or {}), clock, ledger)


def prove(pool: Pool, ledger: ProcessLedger, clock: SteppedClock) -> None:
    """A login with its secret succeeded."""
    ledger.prove_login(pool.config.secret_mark, "", RelayEvent(pool.account, pool.name, clock.now(), "opened"))


def said(pool: Pool, phase: Phase, code: int, text: str, *, to: int = 1, served: int = 0) -> tuple[Verdict, Report]:
    reply = make_reply(code, [text])
    report = Report([RecipientResult(phase, reply)] * to, mail_started=True, content_started=False, served=served)
    return judge_reply(pool.policy, phase, reply), report


async def test_a_rate_limit_pauses_and_again_pauses_longer(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    until = pool.blame(*said(pool, Phase.DOT, 451, "MI:SFQ"), "rate: 451 MI:SFQ")
    assert until == EPOCH + 900_000
    assert (pool.free(EPOCH), pool.status(EPOCH).health) == (0, Health.WAITING)
    clock.step(900)
    assert pool.blame(*said(pool, Phase.DOT, 451, "MI:SFQ"), "again") == clock.now() + 1_800_000
    await pool.close(0)


async def test_the_longest_wait_wins(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    until = pool.blame(*said(pool, Phase.DOT, 451, "MI:SFQ"), "rate")
    assert pool.blame(*said(pool, Phase.MAIL, 421, "HL:ICC"), "concurrency") == until, "30 s more change nothing"
    quota = pool.blame(*said(pool, Phase.DOT, 554, "MI:STC"), "quota")
    assert quota is not None
    assert until is not None
    assert quota > until, "midnight in China"
    await pool.close(0)


async def test_too_many_connections_halve_them(clock: SteppedClock) -> None:
    pool = pool_for(clock, ledger := ProcessLedger())
    assert pool.free(EPOCH) == 1, "a secret that nobody has proven is tried by one connection"
    prove(pool, ledger, clock)
    assert pool.free(EPOCH) == 4
    pool.blame(*said(pool, Phase.MAIL, 421, "HL:ICC"), "concurrency")
    await pool.resume()
    prove(pool, ledger, clock)
    assert pool.free(EPOCH) == 2
    await pool.close(0)


async def test_a_worn_connection_is_renewed_and_the_next_carries_one_message_less(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    verdict, report = said(pool, Phase.MAIL, 450, "MI:DMC", served=6)
    renewed: list[bool] = []
    report.renew = lambda: renewed.append(True)
    assert pool.blame(verdict, report, "connection-limit") is None
    assert (pool.learnt.max_messages, renewed, pool.status(EPOCH).health) == (5, [True], Health.OPEN)
    verdict, report = said(pool, Phase.MAIL, 450, "MI:DMC", served=1)
    pool.blame(verdict, report, "connection-limit")
    assert pool.learnt.max_messages == 1, "never none"
    await pool.close(0)


async def test_it_learns_how_many_recipients_a_relay_takes(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    verdict, report = said(pool, Phase.RCPT, 452, "4.5.3 too many recipients", to=10)
    report.results = [RecipientResult(Phase.DOT, make_reply(250, ["ok"]))] * 7 + list(report.results)[:3]
    pool.blame(verdict, report, "")
    assert pool.max_recipients == 7, "as many as it took"
    pool.blame(*said(pool, Phase.DOT, 554, "Recipient count exceeds 3", to=7), "")
    assert pool.max_recipients == 3, "half, when it does not say how many"
    pool.blame(*said(pool, Phase.RCPT, 452, "4.5.3 too many recipients", to=2), "")
    assert pool.max_recipients == 1, "never none"
    await pool.close(0)


async def test_one_recipient_that_is_too_many_teaches_nothing(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    pool.blame(*said(pool, Phase.RCPT, 452, "4.5.3 too many recipients", to=1), "")
    assert pool.max_recipients is None
    await pool.close(0)


async def test_a_refused_login_breaks_the_relay_and_the_third_in_a_row_is_told(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    with capture_logs() as lines:
        for seconds, alerts in ((60, 0), (600, 0), (1200, 1)):
            until = pool.blame(*said(pool, Phase.AUTH, 535, "Error: authentication failed"), "535")
            assert pool.status(EPOCH).health is Health.BROKEN
            assert sum(line["event"] == "alert.relay" for line in lines) == alerts
            clock.step(seconds)
            assert until is not None
    await pool.close(0)


async def test_an_operators_pause_is_not_ended_by_a_rate_limit(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    await pool.hold("by hand")
    assert pool.blame(*said(pool, Phase.DOT, 451, "MI:SFQ"), "rate") is None
    assert pool.status(EPOCH).health is Health.PAUSED
    await asyncio.sleep(0)
    await pool.close(0)


def verdict_of(kind: str) -> Verdict:
    """A verdict on a message: `sent`, `in-doubt`, or that its content was refused."""
    if kind == "in-doubt":
        return judge_failure(Phase.DOT, Failure.LOST)
    code, text = (250, "ok") if kind == "sent" else (554, "DT:SPM 163 smtp1")
    return judge_reply(policy_for("163"), Phase.DOT, make_reply(code, [text]))


@pytest.mark.parametrize(
    ("setting", "phase", "said_by_it", "reason"),
    [
        ("refusals_in_a_row", Phase.DOT, (554, "it is odd"), "refuses-all: 1 messages in a row: 554 it is odd"),
        ("fruitless_in_a_row", Phase.MAIL, (421, "bye"), "no-message-taken: 1 sessions in a row ended before a"),
        ("doubts_in_a_row", Phase.DOT, None, "in-doubt: no answer to 1 contents in a row"),
    ],
)
async def test_how_much_in_a_row_rests_a_relay_is_a_setting_and_none_is_never(
    clock: SteppedClock, setting: str, phase: Phase, said_by_it: tuple[int, str] | None, reason: str
) -> None:
    for most in (0, 1):
        pool = pool_for(clock, settings={setting: most})
        reply = said_by_it and make_reply(said_by_it[0], [said_by_it[1]])
        result = RecipientResult(phase, reply, None if reply else Failure.LOST)
        verdict = judge(pool.policy, phase, result.reply, result.failure)
        for message in "abcdefghijk" if most == 0 else "a":
            pool.judged(message, [verdict], Report([result], True, True, served=1, fruitless=True))
        assert pool.status(clock.now()).reason.startswith(reason if most else "")
        assert (pool.status(clock.now()).health is Health.OPEN) is (most == 0)
        await pool.close(0)


@pytest.mark.parametrize(
    ("kinds", "health"),
    [
        (["in-doubt"] * 2, Health.OPEN),
        (["in-doubt"] * 3, Health.BROKEN),
        (["in-doubt", "in-doubt", "sent", "in-doubt"], Health.OPEN),
    ],
)
async def test_three_contents_in_a_row_without_an_answer_open_the_breaker(
    clock: SteppedClock, kinds: list[str], health: Health
) -> None:
    pool = pool_for(clock)
    for kind in kinds:
        pool.judged("m", [verdict_of(kind)], NOTHING)
    status = pool.status(clock.now())
    assert status.health is health
    if health is Health.BROKEN:
        assert (status.reason, status.until) == ("in-doubt: no answer to 3 contents in a row", EPOCH + 60_000)
    await pool.close(0)


async def test_a_rising_share_of_refused_contents_is_told_with_its_relay(clock: SteppedClock) -> None:
    pool = pool_for(clock)
    with capture_logs() as lines:
        for kind in ["sent"] * 20 + ["content"] * 8:
            pool.judged("m", [verdict_of(kind)], NOTHING)
    assert [(line["event"], line["relay"], line["kind"]) for line in lines] == [("alert.relay", "r", "content")]
    await pool.close(0)


async def test_an_event_shows_no_secret_whatever_the_relay_says(clock: SteppedClock) -> None:
    told: list[RelayEvent] = []

    class Noting(ProcessLedger):
        def record_trouble(self, account: str, trouble: Trouble, event: RelayEvent | None) -> None:
            assert event is not None
            told.append(event)

    url = "smtp://me:CANARY@127.0.0.1:9?plaintext=allow"
    pool = pool_for(clock, Noting(), url=url, sender_must_equal_login=False)
    pool.blame(*said(pool, Phase.AUTH, 535, "not with CANARY"), "auth-refused: 535 not with CANARY")
    assert [event.detail for event in told] == ["auth-refused: 535 not with [secret]"]
    await pool.close(0)
