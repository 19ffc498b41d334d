"""How long a relay rests: longer with each time, told once by many, and slowly forgotten."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.mail.lifecycle import Event
from service.mail.outcome import UNTIL_RESET, Action, Scope, Verdict, doubling
from service.mail.trouble import OPERATOR, Standing, Trouble
from service.relay.backoff import Backoff, Width

NOW = 1_764_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
STEPS = (300.0, 600.0, 1200.0)


def resting(*pauses: float, action: Action = Action.RATE, probe: bool = False) -> Verdict:
    return Verdict(Event.DEFER, Scope.RELAY, "rate", action, False, pauses=pauses or STEPS, probe=probe)


def length(trouble: Trouble) -> float:
    """Seconds from when it was told to its end."""
    assert trouble.until is not None
    return (trouble.until - trouble.at) / 1000


def left(trouble: Trouble | None) -> Trouble:
    assert trouble is not None
    return trouble


def test_the_same_trouble_after_its_pause_takes_the_next_step_up_to_the_last() -> None:
    backoff, now, lengths, known = Backoff(), NOW, [], None
    for _ in range(5):
        known = backoff.worse(known, resting(), "why", now)
        lengths.append(length(known))
        now = known.until or 0
    assert lengths == [300, 600, 1200, 1200, 1200]
    assert left(known).times == 5


def test_what_several_connections_tell_at_once_is_one_trouble() -> None:
    first = Backoff().worse(None, resting(), "why", NOW)
    assert Backoff().worse(first, resting(), "again", NOW + 1000) is first


def test_a_timer_that_comes_a_moment_early_still_counts_as_the_end() -> None:
    first = Backoff().worse(None, resting(), "why", NOW)
    assert length(Backoff().worse(first, resting(), "why", NOW + 300_000 - 50)) == 600


def test_a_pause_that_a_clock_far_ahead_has_told_lasts_no_longer_than_its_length() -> None:
    ahead = Backoff().worse(None, resting(), "why", NOW + 100 * HOUR)
    seen = ahead.cut(NOW)
    assert (seen.at, seen.until) == (NOW, NOW + 5 * MINUTE)
    assert seen.cut(NOW + MINUTE) is seen, "its end does not run away from who looks again"
    assert Backoff().worse(ahead, resting(), "again", NOW).until == NOW + 5 * MINUTE


def test_a_clock_that_is_a_moment_behind_the_others_cuts_nothing() -> None:
    told = Backoff().worse(None, resting(), "why", NOW + 1_000)
    assert told.cut(NOW) is told


def test_what_has_no_end_or_no_known_length_is_not_cut() -> None:
    for each in (Trouble(OPERATOR, NOW, None, "by hand"), Trouble("rate", NOW, NOW + HOUR, "why")):
        assert each.cut(NOW) is each


def test_what_is_left_of_a_trouble_after_a_success_is_cut_too() -> None:
    """A success on a clock that is ahead steps back, and would else rest until that day."""
    known = Backoff().worse(None, resting(), "why", NOW)
    known = Backoff().worse(known, resting(), "why", NOW + 5 * MINUTE)
    left_over = left(Backoff().better(known, NOW + 100 * HOUR))
    assert left_over.stands(NOW + 50 * HOUR)
    assert not left_over.cut(NOW + 30 * MINUTE).stands(NOW + 36 * MINUTE)


def test_a_trouble_that_is_told_now_takes_the_place_of_one_that_a_clock_far_ahead_has_told() -> None:
    standing = Standing()
    standing.record(Backoff().worse(None, resting(), "why", NOW + 100 * HOUR))
    now_told = Backoff().worse(None, resting(), "why", NOW)
    assert standing.record(now_told) is False, "it is no news"
    assert standing.find("rate", "") == now_told


def test_connections_come_back_though_a_clock_was_far_ahead_when_they_were_halved() -> None:
    width = Width(4)
    width.halve(NOW + 100 * HOUR, 30)
    for minute in (0, 11, 22):
        width.succeeded(NOW + minute * MINUTE)
    assert width.now_at_most == 4


def test_a_pause_is_stretched_and_never_cut_short() -> None:
    assert length(Backoff().worse(None, resting(), "why", NOW, stretch=1.25)) == 375


def test_only_what_a_login_is_refused_for_belongs_to_the_secret() -> None:
    assert Backoff().worse(None, resting(), "why", NOW, mark="1234").mark == ""
    assert Backoff().worse(None, resting(action=Action.AUTH), "why", NOW, mark="1234").mark == "1234"


def test_success_steps_back_once_for_each_time_as_long_as_the_pause() -> None:
    backoff = Backoff()
    known = backoff.worse(None, resting(), "why", NOW)
    known = backoff.worse(known, resting(), "why", NOW + 5 * MINUTE)  # ten minutes, until minute 15
    for minute in (16, 20, 24):
        assert backoff.better(known, NOW + minute * MINUTE) is known, "an hour's window is not forgotten so soon"
    known = left(backoff.better(known, NOW + 25 * MINUTE))
    assert (known.step, known.times) == (0, 0)
    again = backoff.worse(known, resting(), "why", NOW + 26 * MINUTE)
    assert length(again) == 600, "it went back to the first step, and again on"


def test_long_success_forgets_the_trouble() -> None:
    known = Backoff().worse(None, resting(), "why", NOW)
    assert Backoff().better(known, NOW + 10 * MINUTE) is None


def test_success_on_a_session_that_was_open_already_ends_no_probe() -> None:
    known = Backoff().worse(None, resting(probe=True), "why", NOW)
    assert Backoff().better(known, NOW + 100 * MINUTE) is known


def test_until_the_providers_midnight() -> None:
    now = int(datetime(2026, 11, 27, 22, 30, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp() * 1000)
    assert length(Backoff("Asia/Shanghai").worse(None, resting(UNTIL_RESET), "why", now)) == 5400
    assert length(Backoff("").worse(None, resting(UNTIL_RESET), "why", now)) == 3600, "nobody knows: look in an hour"


@pytest.mark.parametrize("steps", [(UNTIL_RESET,), (300.0, UNTIL_RESET)])
def test_a_provider_that_counts_anew_after_its_midnight_is_asked_each_hour_and_not_the_next_day(steps: Any) -> None:
    """Its clock may be behind, its job late, or its midnight not what the preset guesses."""
    backoff, verdict = Backoff("Asia/Shanghai", guard=1.0), resting(*steps)
    noon = int(datetime(2025, 12, 1, 12, 0, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp() * 1000)
    known = backoff.worse(None, verdict, "why", noon)
    if len(steps) > 1:
        known = backoff.worse(known, verdict, "why", known.until or 0)
    midnight = noon + 12 * HOUR + 1000
    assert known.until == midnight
    for hour in range(3):
        known = backoff.worse(known, verdict, "why", (known.until or 0) + 50)
        assert known.until == midnight + (hour + 1) * (HOUR + 50)
    assert backoff.worse(known, verdict, "why", noon + 24 * HOUR).until == midnight + 24 * HOUR, "another day's count"


def test_midnight_on_a_day_of_25_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    now = int(datetime(2026, 10, 25, 0, 0, tzinfo=zone).timestamp() * 1000)
    assert length(Backoff("Europe/Berlin").worse(None, resting(UNTIL_RESET), "why", now)) == 25 * 3600


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


def test_how_soon_they_come_back_is_a_setting() -> None:
    width = Width(4, widen_after=60)
    width.halve(NOW, 30)
    width.succeeded(NOW + MINUTE)
    assert width.now_at_most == 3
