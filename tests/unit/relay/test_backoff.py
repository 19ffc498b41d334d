"""How long a relay rests: longer with each time, told once by many, and slowly forgotten."""

from datetime import datetime
from zoneinfo import ZoneInfo

from service.mail.outcome import UNTIL_RESET, doubling
from service.relay.backoff import Backoff, Width

NOW = 1_764_000_000_000
MINUTE = 60_000
STEPS = (300.0, 600.0, 1200.0)


def test_the_same_trouble_after_its_pause_takes_the_next_step_up_to_the_last() -> None:
    backoff, now, lengths = Backoff(), NOW, []
    for _ in range(5):
        lengths.append(backoff.blame("rate", STEPS, now))
        now += int(lengths[-1] * 1000)
    assert lengths == [300, 600, 1200, 1200, 1200]
    assert backoff.times("rate") == 5


def test_what_several_connections_tell_at_once_is_one_trouble() -> None:
    backoff = Backoff()
    assert backoff.blame("rate", STEPS, NOW) == 300
    assert backoff.blame("rate", STEPS, NOW + 1000) == 299, "what is left of it"
    assert backoff.times("rate") == 1


def test_a_timer_that_comes_a_moment_early_still_counts_as_the_end() -> None:
    backoff = Backoff()
    backoff.blame("rate", STEPS, NOW)
    assert backoff.blame("rate", STEPS, NOW + 300_000 - 50) == 600


def test_troubles_of_other_classes_have_their_own_steps() -> None:
    backoff = Backoff()
    backoff.blame("rate", STEPS, NOW)
    assert backoff.blame("quota", (60.0,), NOW) == 60
    assert backoff.times("auth-refused") == 0


def test_success_steps_back_once_for_each_time_as_long_as_the_pause() -> None:
    backoff = Backoff()
    backoff.blame("rate", STEPS, NOW)
    backoff.blame("rate", STEPS, NOW + 5 * MINUTE)  # ten minutes, until minute 15
    for minute in (16, 20, 24):
        backoff.succeeded(NOW + minute * MINUTE)
    assert backoff.times("rate") == 2, "an hour's window is not forgotten with the first message that passes"
    backoff.succeeded(NOW + 25 * MINUTE)
    assert backoff.blame("rate", STEPS, NOW + 26 * MINUTE) == 600, "it went back to the first step, and again on"


def test_long_success_forgets_the_trouble() -> None:
    backoff = Backoff()
    backoff.blame("rate", STEPS, NOW)
    backoff.succeeded(NOW + 10 * MINUTE)
    assert backoff.blame("rate", STEPS, NOW + 11 * MINUTE) == 300


def test_a_login_disproves_a_refused_login() -> None:
    backoff = Backoff()
    backoff.blame("auth-refused", STEPS, NOW)
    backoff.forget("auth-refused")
    assert backoff.blame("auth-refused", STEPS, NOW + 1) == 300


def test_until_the_providers_midnight() -> None:
    now = int(datetime(2026, 11, 27, 22, 30, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp() * 1000)
    assert Backoff("Asia/Shanghai").blame("quota", (UNTIL_RESET,), now) == 5400
    assert Backoff("").blame("quota", (UNTIL_RESET,), now) == 3600, "nobody knows: look again in an hour"


def test_midnight_on_a_day_of_25_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    now = int(datetime(2026, 10, 25, 0, 0, tzinfo=zone).timestamp() * 1000)
    assert Backoff("Europe/Berlin").blame("quota", (UNTIL_RESET,), now) == 25 * 3600


def test_pauses_double_up_to_the_most() -> None:
    assert doubling(1, 10) == (1, 2, 4, 8, 10)
    assert doubling(5, 5) == (5,)


def test_connections_are_halved_once_for_one_complaint_and_never_below_one() -> None:
    width = Width(8)
    width.halve(NOW, 30)
    width.halve(NOW + 1000, 30)
    assert width.now_at_most == 4
    for minute in range(1, 5):
        width.halve(NOW + minute * MINUTE, 30)
    assert width.now_at_most == 1


def test_connections_come_back_one_by_one_while_mail_passes() -> None:
    width = Width(4)
    width.halve(NOW, 30)
    width.succeeded(NOW + MINUTE)
    assert width.now_at_most == 2
    for minute in (10, 11, 20, 30, 40):
        width.succeeded(NOW + minute * MINUTE)
    assert width.now_at_most == 4, "never more than configured"
