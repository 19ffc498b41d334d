"""Four processes on one store and a relay that refuses the login: one connection asks for all of them, on a clock that jumps."""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from service.errors import StorageUnavailable
from service.mail.trouble import Answer
from service.relay.pool import Pool
from service.relay.port import Health
from service.settings import load
from tests.support.accounts import Process, Provider, config_for, process
from tests.support.relaying import begin, outgoing
from tests.support.virtual import VirtualClock, virtually

MINUTE = 60.0
LEASE = 6.0  # seconds: the relay that answers nothing is given up after 30
MARK = config_for(1).secret_mark


async def feed(each: Process, clock: VirtualClock) -> None:
    """Start as much as the pool says that it can take, as a dispatcher with a full queue does, every quarter second."""
    while True:
        for _ in range(each.pool.free(clock.now()) + each.pool.ahead(clock.now())):
            begin(each.pool, outgoing())
        await asyncio.sleep(0.25)


@contextlib.asynccontextmanager
async def four(folder: Path, clock: VirtualClock, port: int, secret: str = "WRONG"):  # type: ignore[no-untyped-def]
    """Four processes that always have mail to send."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in range(4):
            each = await stack.enter_async_context(process(folder, clock, config_for(port, secret), f"p{number}"))
            made.append(each)
        feeding = [asyncio.create_task(feed(each, clock)) for each in made]
        yield made
        for task in feeding:
            task.cancel()
        await asyncio.gather(*feeding, return_exceptions=True)


async def until(clock: VirtualClock, done: Callable[[], bool], at_most: float = 10.0) -> float:
    """Seconds until it is so."""
    began = clock.monotonic()
    while not done():
        assert clock.monotonic() < began + at_most, "it takes too long"
        await asyncio.sleep(0.05)
    return clock.monotonic() - began


def test_a_refused_login_is_asked_for_twice_in_the_first_minute_and_then_once_in_ten(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock) as provider, four(tmp_path, clock, provider.port):
            await asyncio.sleep(45 * MINUTE)
            assert len(provider.logins) >= 4, "it is probed for ever"
            assert provider.most_within(MINUTE) <= 2
            assert provider.most_within(10 * MINUTE, after=MINUTE) <= 1
            gaps = [later - at for at, later in pairwise(provider.logins)]
            assert gaps[0] >= MINUTE, "what the policy says is never cut short"
            assert min(gaps[1:]) >= 10 * MINUTE

    virtually(main)


def test_at_the_start_exactly_one_login_is_tried_by_all_processes(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock) as provider, four(tmp_path, clock, provider.port) as processes:
            await asyncio.sleep(30)
            assert len(provider.logins) == 1
            health = {each.pool.status(clock.now()).health for each in processes}
            assert health == {Health.BROKEN}

    virtually(main)


def test_a_probe_that_succeeds_opens_the_relay_in_all_processes_within_about_a_second(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock) as provider, four(tmp_path, clock, provider.port) as processes:
            await asyncio.sleep(10)
            provider.secret = "WRONG"  # the provider mended it
            await until(clock, lambda: len(provider.logins) > 1, at_most=80)

            def opened() -> bool:
                return all(each.pool.status(clock.now()).health is Health.OPEN for each in processes)

            assert await until(clock, opened) <= 1.5
            kinds = [event.kind for event in await processes[0].store.relay_events("me@163.com@127.0.0.1", 50)]
            assert kinds == ["opened", "broken"], "told once, by the one who did it"

    virtually(main)


def test_a_proven_secret_lets_all_connections_log_in_at_once(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock, secret="WRONG") as provider, four(tmp_path, clock, provider.port) as processes:
            await until(clock, lambda: provider.taken > 0)
            await asyncio.sleep(1.5)
            free = [each.pool.free(clock.now()) + each.pool.status(clock.now()).in_flight for each in processes]
            assert free == [5] * 4

    virtually(main)


def test_steps_survive_a_restart_and_another_secret_begins_anew(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock, secret="RIGHT") as provider:
            async with four(tmp_path, clock, provider.port):
                await asyncio.sleep(3 * MINUTE)
            assert len(provider.logins) == 2
            async with process(tmp_path, clock, config_for(provider.port), "again") as same:
                status = same.pool.status(clock.now())
                assert (status.health, status.troubles[0].times) == (Health.BROKEN, 2)
                assert same.pool.free(clock.now()) == 0
            async with process(tmp_path, clock, config_for(provider.port, "RIGHT"), "mended") as other:
                assert other.pool.status(clock.now()).health is Health.OPEN
                report = await begin(other.pool, outgoing())
                assert report.results[0].reply is not None
                kinds = [event.kind for event in await other.store.relay_events(other.pool.account, 50)]
                assert kinds[0] == "secret_changed"

    virtually(main)


def test_an_operators_pause_in_one_process_stops_the_others_and_survives_a_restart(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock, secret="WRONG") as provider:
            config = config_for(provider.port)
            async with (
                process(tmp_path, clock, config, "api", role="api") as api,
                process(tmp_path, clock, config, "sender") as sender,
            ):
                await api.pool.hold("maintenance")
                await until(clock, lambda: sender.pool.free(clock.now()) == 0, at_most=1.5)
                status = sender.pool.status(clock.now())
                assert (status.health, status.reason) == (Health.PAUSED, "maintenance")
            async with process(tmp_path, clock, config, "next") as again:
                assert again.pool.status(clock.now()).health is Health.PAUSED
                await again.pool.resume()
                assert again.pool.status(clock.now()).health is Health.OPEN
                events = await again.store.relay_events(again.pool.account, 50)
                assert [event.kind for event in events] == ["resumed", "paused"]

    virtually(main)


def test_a_process_that_only_accepts_never_logs_in(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock) as provider:
            config = config_for(provider.port)
            async with process(tmp_path, clock, config, "api", role="api") as api:
                async with process(tmp_path, clock, config, "sender") as sender:
                    await begin(sender.pool, outgoing())
                await asyncio.sleep(20 * MINUTE)
                assert len(provider.logins) == 1
                assert api.pool.status(clock.now()).health is Health.BROKEN

    virtually(main)


def test_a_process_without_the_secret_shows_what_holds_for_the_one_in_use(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock) as provider:
            async with process(tmp_path, clock, config_for(provider.port), "sender") as sender:
                await begin(sender.pool, outgoing())
            async with process(tmp_path, clock, config_for(provider.port, ""), "api", role="api") as api:
                assert api.pool.status(clock.now()).health is Health.BROKEN

    virtually(main)


def test_a_pause_for_the_rate_is_taken_over_with_its_end_and_told_once(tmp_path: Path) -> None:
    from service.mail.outcome import Phase, judge_reply
    from service.mail.reply import make_reply
    from service.relay.port import Report

    async def main(clock: VirtualClock) -> None:
        config = config_for(9, preset="163", sender_must_equal_login=False)
        async with process(tmp_path, clock, config, "a") as one, process(tmp_path, clock, config, "b") as other:
            verdict = judge_reply(one.pool.policy, Phase.DOT, make_reply(451, ["MI:SFQ"]))
            for each in (one, other):  # both hear it, before either has heard of the other
                each.pool.blame(verdict, Report([], False, False), "rate: 451 MI:SFQ")
            ends = one.pool.status(clock.now()).until
            await asyncio.sleep(2)
            assert other.pool.status(clock.now()).until == ends
            assert len(await one.store.relay_events(one.pool.account, 50)) == 1
            await asyncio.sleep(900)
            assert [each.pool.status(clock.now()).health for each in (one, other)] == [Health.OPEN] * 2
            assert other.pool.blame(verdict, Report([], False, False), "again") == clock.now() + 1_800_000

    virtually(main)


class Stepping(VirtualClock):
    """The wall clock of one process, on the time that all share."""

    def __init__(self, shared: VirtualClock) -> None:
        self._shared, self.ahead = shared, 0  # ms

    def now(self) -> int:
        return self._shared.now() + self.ahead

    def monotonic(self) -> float:
        return self._shared.monotonic()


def test_a_clock_that_was_days_ahead_for_a_moment_leaves_no_relay_resting_for_days(tmp_path: Path) -> None:
    from service.mail.outcome import Phase, judge_reply
    from service.mail.reply import make_reply
    from service.relay.port import Report

    async def main(clock: VirtualClock) -> None:
        config, wrong = config_for(9, preset="163", sender_must_equal_login=False), Stepping(clock)
        async with process(tmp_path, wrong, config, "a") as one, process(tmp_path, clock, config, "b") as other:
            wrong.ahead = 5 * 86_400_000
            verdict = judge_reply(one.pool.policy, Phase.DOT, make_reply(451, ["MI:SFQ"]))  # a rest of 15 minutes
            one.pool.blame(verdict, Report([], False, False), "rate: 451 MI:SFQ")
            wrong.ahead = 0
            await asyncio.sleep(3)
            for each in (one, other):
                assert each.pool.status(clock.now()).health is Health.WAITING
                assert each.pool.status(clock.now()).until == pytest.approx(clock.now() + 897_000, abs=3_000)
            await asyncio.sleep(900)
            for each in (one, other):
                assert each.pool.status(clock.now()).health is Health.OPEN

    virtually(main)


def test_nor_does_it_in_a_process_that_has_nobody_to_ask(tmp_path: Path) -> None:
    """Its timer rings after the true length; then what is left is counted anew, once."""
    from service.mail.outcome import Phase, judge_reply
    from service.mail.reply import make_reply
    from service.relay.port import Report

    async def main(clock: VirtualClock) -> None:
        config, wrong = config_for(9, preset="163", sender_must_equal_login=False), Stepping(clock)
        pool = Pool(config, load(), wrong)
        wrong.ahead = 5 * 86_400_000
        verdict = judge_reply(pool.policy, Phase.DOT, make_reply(451, ["MI:SFQ"]))
        pool.blame(verdict, Report([], False, False), "rate: 451 MI:SFQ")
        wrong.ahead = 0
        await asyncio.sleep(2 * 900 + 5)
        assert pool.status(clock.now()).health is Health.OPEN
        await pool.close(0)

    virtually(main)


def test_what_the_store_can_not_take_is_told_as_soon_as_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.errors import StorageUnavailable
    from service.mail.outcome import Failure, Phase, judge_failure
    from service.relay.port import Report

    async def main(clock: VirtualClock) -> None:
        config = config_for(9)
        async with process(tmp_path, clock, config, "a") as one, process(tmp_path, clock, config, "b") as other:

            async def away(*_: object) -> bool:
                raise StorageUnavailable("gone")

            with monkeypatch.context() as patched:
                patched.setattr(one.store, "record_trouble", away)
                verdict = judge_failure(Phase.CONNECT, Failure.TLS)
                one.pool.blame(verdict, Report([], False, False), "tls")
                await asyncio.sleep(3)
                assert one.pool.status(clock.now()).health is Health.BROKEN, (
                    "kept, though the store knows nothing of it"
                )
                assert other.pool.status(clock.now()).health is Health.OPEN
            await until(clock, lambda: other.pool.status(clock.now()).health is Health.BROKEN, at_most=2.5)

    virtually(main)


def test_who_waits_for_anothers_login_gives_its_mail_back_uncharged(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock, silent=True) as provider:
            config = config_for(provider.port)
            async with process(tmp_path, clock, config, "a") as one, process(tmp_path, clock, config, "b") as other:
                first = begin(one.pool, outgoing())
                await provider.asked.wait()
                report = await begin(other.pool, outgoing())
                assert not report.mail_started
                assert "another connection is logging in" in report.results[0].detail
                assert other.pool.free(clock.now()) == 0, "and asks for none while that lasts"
                assert other.pool.status(clock.now()).prober == "a/r"
                assert len(provider.logins) == 1
                first.cancel()

    virtually(main)


def test_a_relay_that_can_not_be_reached_is_probed_by_one_process_at_a_time(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with Provider(clock) as provider:
            port = provider.port
        async with four(tmp_path, clock, port) as processes:  # nobody listens any more
            await asyncio.sleep(3)
            health = {each.pool.status(clock.now()).health for each in processes}
            assert health == {Health.BROKEN}
            await asyncio.sleep(57)
            told = await processes[0].store.relay_events(processes[0].pool.account, 50)
            kinds = [event.kind for event in reversed(told)]
            assert [kind for kind in kinds if kind != "alert"] == ["broken"] + ["probe_failed"] * 3, "after 5, 10, 20 s"
            assert kinds.index("alert") == 3, "from the third one on"
            counted = [each.metrics.relay_alerts.labels("r", "network")._value.get() for each in processes]
            assert sum(counted) == 2, "counted each time, whichever process probes; written down once a minute by each"

    virtually(main)


def test_when_one_login_proves_the_secret_those_who_wait_log_in_without_asking(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with (
            Provider(clock, secret="WRONG") as provider,
            process(tmp_path, clock, config_for(provider.port), "a") as one,
        ):
            reports = await asyncio.gather(*(begin(one.pool, outgoing()) for _ in range(5)))
            assert [report.results[0].phase.value for report in reports] == ["dot"] * 5
            assert len(provider.logins) == 5
            assert clock.monotonic() - provider.logins[0] < 1, "nobody waited for a look at the store"

    virtually(main)


def test_the_right_to_log_in_is_kept_for_as_long_as_the_login_takes(tmp_path: Path) -> None:
    """The relay answers nothing for longer than a lease; the right is asked for again meanwhile."""

    async def main(clock: VirtualClock) -> None:
        async with Provider(clock, silent=True) as provider:
            config = config_for(provider.port)
            async with (
                process(tmp_path, clock, config, "a", lease=LEASE) as one,
                process(tmp_path, clock, config, "b") as other,
            ):

                async def asked() -> Answer:
                    return await other.ledger.ask_login(other.pool.account, MARK, "b/r", clock.now(), 0.1)

                first = begin(one.pool, outgoing())
                await provider.asked.wait()
                for _ in range(5):
                    await asyncio.sleep(LEASE / 2)
                    assert not first.done()
                    assert await asked() is Answer.WAIT
                await one.pool.close(0)
                for _ in range(5):
                    await asyncio.sleep(LEASE / 2)
                    assert await asked() is Answer.GRANTED, "and given back for good at the end"

    virtually(main)


def test_a_process_that_is_no_more_keeps_the_right_for_a_lease_at_most(tmp_path: Path) -> None:
    """It lives by its file, as one does that stands still, or whose end a server on another host can not see."""

    async def main(clock: VirtualClock) -> None:
        async with Provider(clock, silent=True) as provider:
            config = config_for(provider.port)
            async with (
                process(tmp_path, clock, config, "a", lease=LEASE) as one,
                process(tmp_path, clock, config, "b") as other,
            ):
                begin(one.pool, outgoing())
                await provider.asked.wait()
                with pytest.MonkeyPatch.context() as patch:
                    for name in ("ask_login", "fail_login", "release_login"):
                        patch.setattr(one.store, name, _never)

                    async def granted() -> bool:
                        asked = other.ledger.ask_login(other.pool.account, MARK, "b/r", clock.now(), 1.0)
                        return await asked is Answer.GRANTED

                    assert not await granted()
                    await asyncio.sleep(LEASE + 1)
                    assert await granted()

    virtually(main)


async def _never(*_: object) -> None:
    raise StorageUnavailable("this process is no more")
