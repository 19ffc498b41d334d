"""The sliding window: never more than its count in any window."""

from datetime import datetime
from math import ceil
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.durations import Rate
from service.mail.quota import Quota
from service.store.limiter import Takes, idle_after, span_of, take

RATE = Rate(10, 60)


def test_the_count_is_free_at_once_and_then_no_more() -> None:
    state = None
    for _ in range(10):
        state, wait = take(state, 0, RATE, 1)
        assert wait == 0.0
    refused, wait = take(state, 0, RATE, 1)
    assert refused is None
    assert 60 <= wait <= 60 * 17 / 16 + 0.01


def test_after_the_wait_that_was_told_it_fits() -> None:
    state, _ = take(None, 5, RATE, 10)
    _, wait = take(state, 5, RATE, 1)
    assert take(state, 5 + round(wait * 1000) - 1, RATE, 1)[0] is None
    state, again = take(state, 5 + round(wait * 1000), RATE, 1)
    assert state is not None
    assert again == 0.0


def test_a_cost_over_the_whole_count_never_fits() -> None:
    state, wait = take(None, 0, RATE, 11)
    assert state is None
    assert wait == 60


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    state, _ = take(None, 1_000_000, RATE, 10)
    assert take(state, 0, RATE, 1)[0] is None


def test_an_idle_limiter_is_full_again_when_its_row_may_go() -> None:
    state, _ = take(None, 0, RATE, 10)
    assert take(state, idle_after(0, RATE), RATE, 10)[0] is not None


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(1, 8), st.floats(0.1, 3))
def test_in_no_window_is_more_taken_than_the_count(gaps: list[int], count: int, window: float) -> None:
    rate = Rate(count, window)
    now, state, taken = 0, None, []
    for gap in gaps:
        now += gap
        fresh, _ = take(state, now, rate, 1)
        if fresh is not None:
            state = fresh
            taken.append(now)
    for start in taken:
        assert sum(start <= at < start + window * 1000 for at in taken) <= count


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 3)), max_size=80), st.integers(3, 300), st.floats(0.2, 3))
def test_up_to_256_it_says_no_only_when_one_more_would_be_too_many(
    asked: list[tuple[int, int]], count: int, window: float
) -> None:
    """Exact: it agrees with a list of everything that was taken."""
    rate, now, state, taken = Rate(min(count, 256), window), 0, None, list[tuple[int, int]]()
    width = ceil(window * 1000)
    for gap, cost in asked:
        now += gap
        used = sum(units for at, units in taken if at > now - width)
        fresh, wait = take(state, now, rate, cost)
        assert (fresh is not None) == (used + cost <= rate.count)
        if fresh is not None:
            state = fresh
            taken.append((now, cost))
        else:
            free = now + round(wait * 1000)
            for moment, fits in ((free, True), (free - 1, False)):
                later = sum(units for at, units in taken if at > moment - width)
                assert (later + cost <= rate.count) == fits, "not a millisecond too early or too late"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), max_size=100))
def test_above_256_it_is_late_by_a_part_in_128_at_most_and_never_early(asked: list[tuple[int, int]]) -> None:
    rate, now, state, taken = Rate(400, 1.28), 0, None, list[tuple[int, int]]()
    for gap, cost in asked:
        now += gap
        fresh, _ = take(state, now, rate, cost)
        used = sum(units for at, units in taken if at > now - 1280)
        perhaps = sum(units for at, units in taken if at > now - 1290)
        if fresh is not None:
            assert used + cost <= 400
            state = fresh
            taken.append((now, cost))
        else:
            assert perhaps + cost > 400
    assert state is None or len(state) <= 20 + 12 * 130


def test_above_256_what_was_taken_first_is_free_a_part_in_128_late_at_most() -> None:
    rate, state = Rate(400, 1.28), None
    for n in range(400):
        state, _ = take(state, n * 3, rate, 1)
    assert take(state, 1279, rate, 1)[0] is None
    assert take(state, 1290, rate, 1)[0] is not None


@given(st.data(), st.integers(1, 6))
def test_as_a_relay_sees_it_no_window_holds_more_than_the_count(data: st.DataObject, count: int) -> None:
    """Claimed at one moment, ended at another, and counted by the relay anywhere between the two."""
    limit = Quota("", Rate(count, 1.0))
    span, now, state = span_of(limit), 0, None
    open_, seen = list[int](), list[int]()
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.integers(0, 400))
        takes = Takes.read(state, span, now)
        if open_ and data.draw(st.booleans()):
            claimed = open_.pop(data.draw(st.integers(0, len(open_) - 1)))
            spent = data.draw(st.sampled_from([True, True, False]))
            takes.close(1, now, spent=spent)
            if spent:
                seen.append(data.draw(st.integers(claimed, now)))
        elif takes.free_at(1, count, span, now) == 0:
            takes.open += 1
            open_.append(now)
        state = takes.pack()
    seen += [data.draw(st.integers(claimed, now)) for claimed in open_]
    assert all(sum(start <= at < start + 1000 for at in seen) <= count for start in seen)


def test_what_is_open_never_leaves_by_itself_and_is_told_to_be_free_a_window_from_now() -> None:
    limit = Quota("", Rate(2, 60.0))
    takes = Takes(60_000, 1)
    takes.open = 2
    assert Takes.read(takes.pack(), span_of(limit), 10**12).used == 2
    assert takes.free_at(1, 2, span_of(limit), 5000) == 65_000


@pytest.mark.parametrize(("zone", "hours"), [("Asia/Shanghai", 24), ("Europe/Berlin", 25), ("America/Sao_Paulo", 24)])
def test_a_calendar_day_is_as_long_as_it_is_there(zone: str, hours: int) -> None:
    day = Quota("200/day", Rate(200, 86400), zone=zone)
    noon = datetime(2026, 10, 25, 12, tzinfo=ZoneInfo(zone))
    begins = int(noon.replace(hour=0).timestamp() * 1000)
    at = int(noon.timestamp() * 1000)
    assert span_of(day).since(at) == begins
    assert span_of(day).leaves(at) == begins + hours * 3_600_000
    assert span_of(day).since(begins - 1) < begins


def test_the_state_is_small() -> None:
    state = None
    for at in range(256):
        state, _ = take(state, at, Rate(256, 60), 1)
    assert state is not None
    assert len(state) == 20 + 12 * 256
