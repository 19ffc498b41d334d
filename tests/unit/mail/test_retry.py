"""The retry schedule."""

from hypothesis import given
from hypothesis import strategies as st

from service.mail.retry import SCHEDULE, base_delay, next_due

NOW = 1_000_000


def test_the_schedule_is_followed_and_its_last_step_repeats() -> None:
    assert [base_delay(n) for n in range(1, 10)] == [5, 30, 120, 300, 900, 1800, 3600, 3600, 3600]


def test_a_wait_that_the_reply_asks_for_wins_when_longer() -> None:
    assert next_due(NOW, 1, 0.0, at_least=60) == NOW + 60_000


def test_the_next_attempt_never_lies_after_the_expiry() -> None:
    assert next_due(NOW, 7, 0.9, expires_at=NOW + 10) == NOW + 10


@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_the_upper_half_of_the_delay(charged: int, jitter: float) -> None:
    delay = (next_due(NOW, charged, jitter) - NOW) / 1000
    assert base_delay(charged) / 2 <= delay <= base_delay(charged)
    assert base_delay(charged) in SCHEDULE
