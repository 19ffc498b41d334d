"""Logins are what providers count: a relay that takes logins and no mail, and a secret that is refused after it was proven."""

import asyncio

import pytest

from service.mail.outcome import Verdict, judge
from service.relay.ledger import ProcessLedger
from service.relay.pool import Pool
from service.relay.port import Health, Report
from service.settings import load
from tests.support.accounts import Provider, Unwilling, config_for
from tests.support.clock import SteppedClock
from tests.support.relaying import begin, outgoing


@pytest.fixture
async def clock() -> SteppedClock:
    return SteppedClock()


def heard(pool: Pool, message: str, report: Report) -> Verdict:
    """As the spool does with each report."""
    judged = [judge(pool.policy, each.phase, each.reply, each.failure) for each in report.results]
    verdict = pool.judged(message, judged, report)[0]
    pool.blame(verdict, report, "")
    return verdict


@pytest.mark.parametrize(
    ("words", "logins", "health"),
    [
        (b"421 4.3.0 Service closing, try again", 3, Health.WAITING),
        (b"554 5.7.1 <x>: Relay access denied", 3, Health.WAITING),
        (b"553 authentication is required", 2, Health.BROKEN),
    ],
)
async def test_a_relay_that_takes_logins_and_no_mail_costs_a_few_logins_and_rests_for_all_of_its_account(
    clock: SteppedClock, words: bytes, logins: int, health: Health
) -> None:
    unwilling, ledger = Unwilling(clock, "RIGHT"), ProcessLedger()
    unwilling.words = words
    async with unwilling as provider:
        config = config_for(provider.port, "RIGHT")
        pool, other = (Pool(config, load(role="sender"), clock, ledger) for _ in range(2))
        sent = 0
        while pool.free(clock.now()) and sent < 20:
            sent += 1
            report = await begin(pool, outgoing())
            assert report.fruitless
            heard(pool, f"msg_{sent}", report)
        assert (len(provider.logins), sent) == (logins, logins)
        assert [each.status(clock.now()).health for each in (pool, other)] == [health] * 2
        await asyncio.gather(pool.close(0), other.close(0))


@pytest.mark.parametrize("words", [b"451 4.3.0 Queue is down", b"450 not now", b"451 4.7.1 Service unavailable"])
async def test_a_relay_that_puts_off_each_message_at_mail_rests_longer_each_time_and_nobody_pays_for_it(
    clock: SteppedClock, words: bytes
) -> None:
    unwilling, ledger = Unwilling(clock, "RIGHT"), ProcessLedger()
    unwilling.words = words
    async with unwilling as provider:
        config = config_for(provider.port, "RIGHT", max_messages_per_connection=5)
        pool, other = (Pool(config, load(role="sender", refusals_in_a_row=10), clock, ledger) for _ in range(2))
        charged = []
        while pool.free(clock.now()) and len(charged) < 99:
            message = f"msg_{len(charged)}"
            charged.append(heard(pool, message, await begin(pool, outgoing())).charged)
        assert charged == [True] * 9 + [False], "only together they say that the relay is at fault"
        assert len(provider.logins) == 2
        for rest in (30, 60, 120, 240, 480, 900, 900):
            status = other.status(clock.now())
            assert (status.health, status.until) == (Health.WAITING, clock.now() + rest * 1000)
            clock.step(rest)
            ledger.release_login(pool.account, "nobody")  # a look at the clock
            before = len(provider.logins)
            assert not heard(pool, f"msg_{rest}", await begin(pool, outgoing())).charged
            assert len(provider.logins) <= before + 1
        await asyncio.gather(pool.close(0), other.close(0))


class Changed(Provider):
    """Answers a login when it is told to, so that all that are tried at once are seen."""

    def __init__(self, clock: SteppedClock) -> None:
        super().__init__(clock, "RIGHT")
        self.answers, self.enough, self.waiting, self.many = asyncio.Event(), asyncio.Event(), 0, 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.waiting += 1
        if self.waiting == self.many:
            self.enough.set()
        await self.answers.wait()
        await super()._serve(reader, writer)


@pytest.mark.parametrize(("right", "at_once"), [(False, 2), (True, 2), (False, 4), (False, 1)])
async def test_a_proven_secret_is_tried_by_a_few_at_once_and_by_no_more_when_it_is_refused(
    clock: SteppedClock, right: bool, at_once: int
) -> None:
    provider = Changed(clock)
    provider.answers.set()
    async with provider:
        config = config_for(provider.port, "RIGHT", max_messages_per_connection=1)
        pool = Pool(config, load(role="sender", logins_at_once=at_once), clock)
        await begin(pool, outgoing())
        assert pool.free(clock.now()) == 5
        provider.answers.clear()
        provider.waiting, provider.many, before = 0, at_once, len(provider.logins)
        tries = [begin(pool, outgoing()) for _ in range(5)]
        await provider.enough.wait()
        provider.secret = "RIGHT" if right else "ANOTHER"
        assert provider.waiting == at_once, "the others wait for these"
        provider.answers.set()
        reports = await asyncio.gather(*tries)
        assert len(provider.logins) - before == (5 if right else at_once)
        assert sum(report.mail_started for report in reports) == (5 if right else 0)
        await pool.close(0)
