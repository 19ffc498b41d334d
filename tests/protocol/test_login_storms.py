"""Logins are what providers count: a relay that takes logins and no mail, and a secret that is refused after it was proven."""

import asyncio

import pytest

from service.mail.outcome import judge
from service.relay.ledger import ProcessLedger
from service.relay.pool import Pool
from service.relay.port import Health, Report
from service.settings import load
from tests.support.accounts import Provider, config_for
from tests.support.clock import SteppedClock
from tests.support.relaying import begin, outgoing


@pytest.fixture
async def clock() -> SteppedClock:
    return SteppedClock()


def heard(pool: Pool, message: str, report: Report) -> None:
    """As the spool does with each report."""
    verdicts = [judge(pool.policy, each.phase, each.reply, each.failure) for each in report.results]
    pool.blame(verdicts[0], report, "")
    pool.judged(message, verdicts, report)


class Unwilling(Provider):
    """Takes each login and no message."""

    words = b""

    def _answer(self, line: bytes) -> bytes:
        if line.upper().startswith((b"MAIL", b"RCPT")):
            return (self.words if line.upper().startswith(b"MAIL") else b"503 5.5.1 MAIL first") + b"\r\n"
        return super()._answer(line).replace(b"250-PIPELINING\r\n", b"")


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


class Changed(Provider):
    """Answers a login when it is told to, so that all that are tried at once are seen."""

    def __init__(self, clock: SteppedClock) -> None:
        super().__init__(clock, "RIGHT")
        self.answers, self.two, self.waiting = asyncio.Event(), asyncio.Event(), 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.waiting += 1
        if self.waiting == 2:
            self.two.set()
        await self.answers.wait()
        await super()._serve(reader, writer)


@pytest.mark.parametrize("right", [False, True])
async def test_a_proven_secret_is_tried_by_two_at_once_and_by_no_more_when_it_is_refused(
    clock: SteppedClock, right: bool
) -> None:
    provider = Changed(clock)
    provider.answers.set()
    async with provider:
        config = config_for(provider.port, "RIGHT", max_messages_per_connection=1)
        pool = Pool(config, load(role="sender"), clock)
        await begin(pool, outgoing())
        assert pool.free(clock.now()) == 5
        provider.answers.clear()
        provider.waiting, before = 0, len(provider.logins)
        tries = [begin(pool, outgoing()) for _ in range(5)]
        provider.two.clear()
        await provider.two.wait()
        provider.secret = "RIGHT" if right else "ANOTHER"
        assert provider.waiting == 2, "the others wait for these"
        provider.answers.set()
        reports = await asyncio.gather(*tries)
        assert len(provider.logins) - before == (5 if right else 2)
        assert sum(report.mail_started for report in reports) == (5 if right else 0)
        await pool.close(0)
