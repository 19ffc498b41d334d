"""Logins are what providers count: a relay that takes logins and no mail, and a secret that is refused after it was proven."""

import asyncio

import pytest

from service.relay.ledger import ProcessLedger
from service.relay.pool import Pool
from service.relay.port import Health
from service.settings import load
from tests.support.accounts import Provider, config_for
from tests.support.clock import SteppedClock
from tests.support.relaying import begin, outgoing


@pytest.fixture
async def clock() -> SteppedClock:
    return SteppedClock()


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
    async with Unwilling(clock, "RIGHT") as provider:
        provider.words, ledger = words, ProcessLedger()
        config = config_for(provider.port, "RIGHT")
        pool, other = (Pool(config, load(role="sender"), clock, ledger) for _ in range(2))
        sent = 0
        while pool.free(clock.now()) and sent < 20:
            sent += 1
            report = await begin(pool, outgoing(message=f"msg_{sent}"))
            assert report.fruitless
            if report.renew is not None:  # as whoever judges it does
                report.renew()
        assert (len(provider.logins), sent) == (logins, logins)
        assert [each.status(clock.now()).health for each in (pool, other)] == [health] * 2
        await asyncio.gather(pool.close(0), other.close(0))
