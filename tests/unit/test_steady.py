"""The time that a process goes by: a wall clock that jumps far ahead tells nothing for a while."""

import sys
import time

import pytest

from service.clock import SYSTEM
from service.steady import SteadyClock
from tests.support.clock import EPOCH, SteppedClock

DAY, YEAR = 86_400_000, 365 * 86_400_000  # ms
JUMP, PATIENCE = 60.0, 900.0  # seconds


class Jumping(SteppedClock):
    """Its wall clock can be set."""

    def jump(self, by: int) -> None:
        """Set the wall clock ahead, or back, by so many ms."""
        self._now += by


@pytest.fixture
def wall() -> Jumping:
    return Jumping()


@pytest.fixture
def clock(wall: Jumping) -> SteadyClock:
    """One that has been looked at."""
    made = SteadyClock(wall, JUMP, PATIENCE)
    assert made.now() == EPOCH
    return made


def test_a_clock_that_goes_on_or_is_set_by_a_little_is_believed(wall: Jumping, clock: SteadyClock) -> None:
    for by in (0, 59_000, -59_000, 59_000, 59_000):
        wall.step(1)
        wall.jump(by)
        assert (clock.now(), clock.told(), clock.doubted) == (wall.now(), wall.now(), 0.0)


@pytest.mark.parametrize("by", [61_000, DAY, 2 * YEAR])
def test_a_jump_ahead_moves_nothing_until_it_has_lasted(wall: Jumping, clock: SteadyClock, by: int) -> None:
    wall.jump(by)
    for second in range(0, 900, 30):
        assert (clock.now(), clock.told()) == (EPOCH + second * 1000, EPOCH + by + second * 1000)
        assert clock.doubted == pytest.approx(by / 1000)
        wall.step(30)
    assert (clock.now(), clock.doubted) == (clock.told(), 0.0)


def test_a_clock_that_is_set_back_in_time_has_changed_nothing(wall: Jumping, clock: SteadyClock) -> None:
    wall.jump(2 * YEAR)
    clock.now()
    wall.step(600)
    wall.jump(-2 * YEAR)
    assert (clock.now(), clock.doubted) == (EPOCH + 600_000, 0.0)
    wall.step(PATIENCE)
    wall.jump(DAY)
    assert clock.now() == EPOCH + 1_500_000, "the next doubt begins anew"


def test_each_further_jump_is_doubted_for_as_long_again(wall: Jumping, clock: SteadyClock) -> None:
    for number in range(5):
        wall.jump(DAY)
        assert clock.now() == EPOCH + number * 600_000
        wall.step(600)


def test_without_patience_every_clock_is_believed(wall: Jumping) -> None:
    clock = SteadyClock(wall, JUMP, 0.0)
    clock.now()
    wall.jump(YEAR)
    assert (clock.now(), clock.doubted) == (EPOCH + YEAR, 0.0)


def test_a_start_on_a_store_that_was_in_use_long_before_is_doubted(wall: Jumping) -> None:
    for moments, believed in (
        ((), EPOCH),
        ((None, None), EPOCH),
        ((EPOCH + YEAR,), EPOCH),
        ((EPOCH - DAY // 2, None), EPOCH),
        ((EPOCH - YEAR, EPOCH - 60_000), EPOCH),
        ((EPOCH - YEAR, EPOCH - 2 * DAY), EPOCH - 2 * DAY),
    ):
        clock = SteadyClock(wall, JUMP, PATIENCE)
        clock.begin(*moments)
        assert clock.now() == believed, moments


def test_a_databases_clock_that_is_behind_is_gone_by_at_once_and_one_that_is_ahead_never(
    wall: Jumping, clock: SteadyClock
) -> None:
    wall.jump(30_000)
    clock.heard(EPOCH)
    assert (clock.now(), clock.told()) == (EPOCH, EPOCH)
    clock.heard(EPOCH + YEAR)
    assert (clock.now(), clock.told()) == (EPOCH + 30_000, EPOCH + 30_000)


def test_a_host_that_starts_years_ahead_of_its_database_goes_by_the_database_for_ever(wall: Jumping) -> None:
    wall.jump(2 * YEAR)
    clock = SteadyClock(wall, JUMP, PATIENCE)
    for hour in range(48):
        clock.heard(EPOCH + hour * 3_600_000)
        assert (clock.now(), clock.told(), clock.doubted) == (EPOCH + hour * 3_600_000, clock.now(), 0.0)
        wall.step(3600)


def test_a_host_that_is_set_right_after_the_database_has_told_of_it_never_goes_back_in_time(wall: Jumping) -> None:
    wall.jump(2 * YEAR)
    clock = SteadyClock(wall, JUMP, PATIENCE)
    clock.heard(EPOCH)
    wall.step(1)
    wall.jump(-2 * YEAR)
    assert (clock.now(), clock.told()) == (EPOCH + 1000, EPOCH + 1000)
    clock.heard(EPOCH + 1000)
    wall.step(1)
    assert (clock.now(), clock.told(), clock.doubted) == (EPOCH + 2000, EPOCH + 2000, 0.0)
    wall.jump(5000)
    assert clock.now() == EPOCH + 7000, "it is the host's clock again"


def test_an_answer_that_lay_for_minutes_is_no_cause_for_doubt_when_the_next_one_comes(
    wall: Jumping, clock: SteadyClock
) -> None:
    wall.step(300)
    clock.heard(EPOCH)
    assert clock.now() == EPOCH
    clock.heard(EPOCH + 300_000)
    assert (clock.now(), clock.doubted) == (EPOCH + 300_000, 0.0)


def test_what_an_answer_takes_is_no_difference_of_clocks(wall: Jumping, clock: SteadyClock) -> None:
    for late in (0, 5, 900, 3):
        clock.heard(EPOCH - late)
        assert clock.now() == EPOCH


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such clock")
def test_a_suspended_machine_does_not_stop_the_clock_of_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wakes must see that others had the time to take its mail."""
    after_a_night = {time.CLOCK_MONOTONIC: 100.0, time.CLOCK_BOOTTIME: 30_000.0}
    monkeypatch.setattr(time, "clock_gettime", after_a_night.__getitem__)
    assert SYSTEM.monotonic() == 30_000.0
