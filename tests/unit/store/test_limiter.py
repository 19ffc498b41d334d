"""The sliding window: never more than its count in any window."""

from hypothesis import given
from hypothesis import strategies as st

from service.durations import Rate
from service.store.limiter import idle_after, take

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
    state, again = take(state, 5 + int(wait * 1000) + 1, RATE, 1)
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
