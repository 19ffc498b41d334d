"""A check and the right to log in: what processes share, what is told of a login, and when none is tried."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.clock import rfc3339
from service.errors import CheckRunning, StorageUnavailable
from service.mail.trouble import OPERATOR, Answer, Trouble
from service.relay.config import RelayConfig, relay_from
from service.relay.ledger import ProcessLedger
from service.relay.pool import Pool
from service.relay.port import CheckStep, Health, StepState
from service.relay.router import Router
from service.settings import load
from tests.support.accounts import Provider, config_for, process
from tests.support.clock import EPOCH, SteppedClock


@pytest.fixture
async def clock() -> SteppedClock:
    return SteppedClock()


def auth_of(steps: Sequence[CheckStep]) -> CheckStep:
    return next(step for step in steps if step.name == "auth")


def pool_for(config: RelayConfig, clock: SteppedClock, ledger: ProcessLedger | None = None) -> Pool:
    return Pool(config, load(role="api"), clock, ledger)  # which probes nothing by itself


async def test_a_refused_login_of_a_check_breaks_the_relay_for_all_processes(
    tmp_path: Path, clock: SteppedClock
) -> None:
    async with Provider(clock, "RIGHT") as provider:
        config = config_for(provider.port)
        async with process(tmp_path, clock, config, "one") as one, process(tmp_path, clock, config, "two") as two:
            assert auth_of(await one.pool.check()).state is StepState.FAILED
            assert one.pool.status(clock.now()).health is Health.BROKEN
            step = auth_of(await two.pool.check())
            assert two.pool.status(clock.now()).health is Health.BROKEN
            assert [event.kind for event in await two.store.relay_events(config.account, 9)] == ["broken"]
        assert (step.state, step.ok) == (StepState.NOT_RUN, False)
        assert "535" in step.detail
        assert "one may be tried at 2025-11-24T16:0" in step.detail, "a minute, and up to a quarter of it more"
        assert "--force" in step.hint
        assert len(provider.logins) == 1, "however many checks there are"


async def test_checks_in_a_loop_cost_no_login_more_until_the_pause_is_over(clock: SteppedClock) -> None:
    async with Provider(clock, "RIGHT") as provider:
        pool = pool_for(config_for(provider.port), clock)
        for _ in range(5):
            steps = {step.name: step.state for step in await pool.check()}
        assert steps == {
            "dns": StepState.OK,
            "tcp": StepState.OK,
            "tls": StepState.SKIPPED,
            "greeting": StepState.OK,
            "ehlo": StepState.OK,
            "auth": StepState.NOT_RUN,
            "sender": StepState.NOT_RUN,
            "quit": StepState.OK,
        }
        assert len(provider.logins) == 1
        assert pool.status(clock.now()).health is Health.BROKEN, "a login that was not tried proves nothing"
        clock.step(80)
        assert auth_of(await pool.check()).state is StepState.FAILED
        assert len(provider.logins) == 2, "the pause of the first step is over"
        (trouble,) = pool.status(clock.now()).troubles
        assert (trouble.times, trouble.step) == (2, 1)
        await pool.close(0)


async def test_an_accepted_login_of_a_check_proves_the_secret(clock: SteppedClock) -> None:
    async with Provider(clock, "RIGHT") as provider:
        pool = pool_for(config_for(provider.port, "RIGHT"), clock)
        assert pool.free(clock.now()) == 1
        assert all(step.ok for step in await pool.check())
        assert pool.free(clock.now()) == 5
        assert pool.status(clock.now()).prober is None
        await pool.close(0)


async def test_a_forced_check_logs_in_once_in_its_interval_and_a_refusal_counts(clock: SteppedClock) -> None:
    async with Provider(clock, "RIGHT") as provider:
        pool = pool_for(config_for(provider.port), clock)
        await pool.check()
        clock.step(100)
        await pool.check()  # the pause is ten minutes now
        clock.step(59)
        early = auth_of(await pool.check(force=True))
        assert early.state is StepState.NOT_RUN
        assert early.detail.endswith(f"one may be forced at {rfc3339(EPOCH + 160_000)}")
        assert len(provider.logins) == 2
        clock.step(2)
        assert auth_of(await pool.check(force=True)).state is StepState.FAILED
        assert auth_of(await pool.check(force=True)).state is StepState.NOT_RUN
        assert len(provider.logins) == 3
        (trouble,) = pool.status(clock.now()).troubles
        assert (trouble.times, trouble.at) == (3, clock.now())
        provider.secret = "WRONG"
        clock.step(61)
        assert auth_of(await pool.check(force=True)).state is StepState.OK
        assert pool.status(clock.now()).health is Health.OPEN
        await pool.close(0)


async def test_a_forced_check_does_not_log_in_beside_a_probe(clock: SteppedClock) -> None:
    async with Provider(clock, "RIGHT") as provider:
        config, ledger = config_for(provider.port, "RIGHT"), ProcessLedger()
        await ledger.ask_login(config.account, config.secret_mark, "other/r", EPOCH, 60)
        rests = Trouble("auth-refused", EPOCH - 120_000, EPOCH + 600_000, "535", config.secret_mark, True, True)
        ledger.record_trouble(config.account, rests, None)
        pool = pool_for(config, clock, ledger)
        assert auth_of(await pool.check(force=True)).detail == "no login was tried: another connection is logging in"
        ledger.release_login(config.account, "other/r")
        assert auth_of(await pool.check(force=True)).state is StepState.OK
        assert len(provider.logins) == 1
        await pool.close(0)


async def test_a_forced_login_that_gets_no_answer_counts_for_the_interval_too(clock: SteppedClock) -> None:
    async with Provider(clock) as provider:
        config = config_for(provider.port)
        ledger = ProcessLedger()
        rests = Trouble("auth-refused", EPOCH - 120_000, EPOCH + 600_000, "535", config.secret_mark, True, True)
        ledger.record_trouble(config.account, rests, None)
        pool = Pool(config, load(role="api", check_timeout=0.5), clock, ledger)
        provider.silent = True
        assert auth_of(await pool.check(force=True)).state is StepState.FAILED
        assert ledger.standing(config.account).troubles == {("auth-refused", config.secret_mark): rests}
        assert auth_of(await pool.check(force=True)).state is StepState.NOT_RUN
        assert len(provider.logins) == 1
        await pool.close(0)


async def test_while_a_session_of_its_own_pool_logs_in_a_check_does_not(clock: SteppedClock) -> None:
    async with Provider(clock, "RIGHT") as provider:
        pool = Pool(config_for(provider.port, "RIGHT"), load(start_wait=0.2), clock)
        provider.silent = True
        session = asyncio.create_task(pool.connect())
        await provider.asked.wait()
        assert auth_of(await pool.check()).detail == "no login was tried: another connection is logging in"
        assert len(provider.logins) == 1
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)
        await pool.close(0)


async def test_while_another_process_logs_in_a_check_does_not(tmp_path: Path, clock: SteppedClock) -> None:
    async with Provider(clock, "RIGHT") as provider:
        config = config_for(provider.port, "RIGHT")
        two_of_them = (process(tmp_path, clock, config, name, start_wait=0.2) for name in ("one", "two"))
        async with next(two_of_them) as one, next(two_of_them) as two:
            provider.silent = True
            first = asyncio.create_task(one.pool.check())
            await provider.asked.wait()
            step = auth_of(await two.pool.check())
            assert (step.state, step.detail) == (
                StepState.NOT_RUN,
                "no login was tried: another connection is logging in",
            )
            assert one.pool.status(clock.now()).prober == "one/r"
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert one.pool.status(clock.now()).prober is None, "a check that ends gives the right back"
        assert len(provider.logins) == 1


@pytest.mark.parametrize(
    ("kind", "given", "logs_in"),
    [
        ("an operator's pause", Trouble(OPERATOR, EPOCH, None, "by hand"), True),
        ("a rate of mail", Trouble("rate", EPOCH, EPOCH + 9000, "451"), True),
        ("a network that was down", Trouble("network", EPOCH, EPOCH + 9000, "refused", "", True, True), True),
        ("a pause before the login", Trouble("auth-temporary", EPOCH, EPOCH + 9000, "454", "", False, True), False),
        ("another secret's refusal", Trouble("auth-refused", EPOCH, EPOCH + 9000, "535", "other", True, True), True),
    ],
)
async def test_only_what_is_about_logins_keeps_a_check_from_logging_in(
    clock: SteppedClock, kind: str, given: Trouble, logs_in: bool
) -> None:
    async with Provider(clock, "RIGHT") as provider:
        config, ledger = config_for(provider.port, "RIGHT"), ProcessLedger()
        ledger.record_trouble(config.account, given, None)
        pool = pool_for(config, clock, ledger)
        assert auth_of(await pool.check()).state is (StepState.OK if logs_in else StepState.NOT_RUN), kind
        assert len(provider.logins) == logs_in
        await pool.close(0)


async def test_a_network_that_fails_a_check_is_told_to_nobody_else(clock: SteppedClock) -> None:
    async with Provider(clock) as provider:
        config = config_for(provider.port)
    pool = pool_for(config, clock)
    steps = {step.name: step.state for step in await pool.check()}
    assert steps["tcp"] is StepState.FAILED
    status = pool.status(clock.now())
    assert (status.health, status.troubles, status.prober) == (Health.OPEN, (), None)
    await pool.close(0)


async def test_one_check_of_an_account_runs_at_a_time_by_whichever_relay(clock: SteppedClock) -> None:
    async with Provider(clock, "RIGHT") as provider:
        config = config_for(provider.port, "RIGHT")
        relays = Router([config, replace(config, name="other")], load(role="api"), clock)
        provider.silent = True
        first = asyncio.create_task(relays.get("r").check())
        await provider.asked.wait()
        with pytest.raises(CheckRunning, match="relay r is running, which has the same account as other"):
            await relays.get("other").check()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        provider.silent = False
        assert all(step.ok for step in await relays.get("other").check()), "when it is over, the next may"
        await relays.close(0)


async def test_while_the_store_is_away_a_check_does_all_but_the_login(clock: SteppedClock) -> None:
    class Away(ProcessLedger):
        async def ask_login(self, account: str, *_: object) -> Answer:
            raise StorageUnavailable("the disk is gone")

    async with Provider(clock, "RIGHT") as provider:
        pool = pool_for(config_for(provider.port, "RIGHT"), clock, Away())
        steps = {step.name: step for step in await pool.check()}
        assert (steps["auth"].state, steps["auth"].detail) == (
            StepState.NOT_RUN,
            "no login was tried: the disk is gone",
        )
        assert (steps["ehlo"].state, provider.logins) == (StepState.OK, [])
        await pool.close(0)


async def test_a_check_of_a_relay_without_a_login_asks_for_no_right(clock: SteppedClock) -> None:
    class Unasked(ProcessLedger):
        async def ask_login(self, account: str, *_: object) -> Answer:
            raise AssertionError("there is no login")

    async with Provider(clock) as provider:
        config = relay_from("r", {"url": f"smtp://127.0.0.1:{provider.port}?plaintext=allow"}, "test")
        pool = pool_for(config, clock, Unasked())
        assert auth_of(await pool.check()).state is StepState.SKIPPED
        await pool.close(0)


async def test_a_forced_check_takes_the_right_that_other_processes_wait_for(
    tmp_path: Path, clock: SteppedClock
) -> None:
    async with Provider(clock, "RIGHT") as provider:
        config = config_for(provider.port)
        async with process(tmp_path, clock, config, "one") as one, process(tmp_path, clock, config, "two") as two:
            await one.pool.check()
            await two.ledger.refresh()
            clock.step(61)
            provider.asked.clear()
            provider.silent = True  # the first one holds the right for as long as it likes
            first = asyncio.create_task(one.pool.check(force=True))
            await provider.asked.wait()
            assert two.pool.status(clock.now()).prober is None, "the other has not heard of it: the store decides"
            answer = await two.ledger.ask_login(config.account, config.secret_mark, "two/r", clock.now(), 60, 60)
            assert answer is Answer.WAIT
            second = asyncio.create_task(two.pool.check(force=True))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            provider.silent = False
            await second
        assert len(provider.logins) == 3, "one who was stopped gives the right on"


async def test_a_forced_login_that_was_refused_counts_for_all_though_its_pause_were_the_shorter_one(
    clock: SteppedClock,
) -> None:
    async with Provider(clock, "RIGHT") as provider:
        config, ledger = config_for(provider.port), ProcessLedger()
        steps = (60.0, 600.0)
        known = Trouble(
            "auth-refused", EPOCH - 70_000, EPOCH + 900_000, "535", config.secret_mark, True, True, 1, 2, 970.0, steps
        )
        ledger.record_trouble(config.account, known, None)
        pool = pool_for(config, clock, ledger)
        assert auth_of(await pool.check(force=True)).state is StepState.FAILED
        (trouble,) = pool.status(clock.now()).troubles
        assert trouble.at == EPOCH
        assert trouble.until is not None
        assert trouble.until >= EPOCH + 900_000
        await pool.close(0)
