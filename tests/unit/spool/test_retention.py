"""By what time retention deletes: never by a clock that is far ahead for a moment."""

from service.spool.retention import RetentionClock
from tests.support.clock import EPOCH
from tests.unit.test_steady import Jumping

DAY = 86_400_000  # ms
HALF_A_MINUTE, HOUR = 30, 3600  # seconds


def pass_by(clock: Jumping, retention: RetentionClock, seconds: float) -> list[int]:
    """What it says every half minute for so long."""
    found = []
    for _ in range(int(seconds / HALF_A_MINUTE)):
        clock.step(HALF_A_MINUTE)
        found.append(retention.now(None))
    return found


def test_a_clock_that_goes_on_is_believed() -> None:
    clock = Jumping()
    retention = RetentionClock(clock)
    assert retention.now(EPOCH - 1000) == EPOCH
    assert pass_by(clock, retention, HOUR)[-1] == clock.now()


def test_a_clock_that_is_far_ahead_for_a_moment_moves_nothing() -> None:
    clock = Jumping()
    retention = RetentionClock(clock)
    retention.now(EPOCH)
    clock.jump(90 * DAY)
    said = pass_by(clock, retention, HOUR / 2)
    assert said == [EPOCH + (number + 1) * HALF_A_MINUTE * 1000 for number in range(len(said))]
    assert retention.doubted == 90 * DAY / 1000
    clock.jump(-90 * DAY)
    assert pass_by(clock, retention, HOUR * 2)[-1] == clock.now()
    assert retention.doubted == 0


def test_a_clock_that_stays_ahead_is_believed_after_an_hour() -> None:
    clock = Jumping()
    retention = RetentionClock(clock)
    retention.now(EPOCH)
    clock.jump(2 * DAY)
    said = pass_by(clock, retention, HOUR + HALF_A_MINUTE)
    assert (said[-2] < EPOCH + DAY, said[-1]) == (True, clock.now())


def test_each_further_jump_is_doubted_for_an_hour_of_its_own() -> None:
    clock = Jumping()
    retention = RetentionClock(clock)
    retention.now(EPOCH)
    for _ in range(5):
        clock.jump(30 * DAY)
        assert max(pass_by(clock, retention, HOUR * 0.9)) < EPOCH + DAY


def test_a_clock_that_is_set_back_is_believed_at_once() -> None:
    clock = Jumping()
    retention = RetentionClock(clock)
    retention.now(EPOCH)
    clock.jump(-DAY)
    assert retention.now(None) == clock.now()
    clock.jump(DAY)
    assert retention.now(None) < EPOCH, "and that it was right before is not known"


def test_a_process_that_starts_far_ahead_of_the_newest_line_doubts_its_clock() -> None:
    clock = Jumping()
    retention = RetentionClock(clock)
    assert retention.now(EPOCH - 200 * DAY) == EPOCH - 200 * DAY
    said = pass_by(clock, retention, HOUR)
    assert (said[-2] < EPOCH - 199 * DAY, said[-1]) == (True, clock.now())


def test_a_store_with_nothing_in_it_or_with_a_moment_to_come_is_no_cause_for_doubt() -> None:
    for newest in (None, EPOCH + DAY):
        assert RetentionClock(Jumping()).now(newest) == EPOCH
