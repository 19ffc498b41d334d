"""Quotas as they are written, and how much of one each priority sees."""

import pytest

from service.durations import Rate
from service.mail.quota import Per, Quota, Unit, parse_quota


def parsed(text: str, per: Per = Per.RELAY, zone: str = "Asia/Shanghai", **given: float) -> Quota:
    return parse_quota(text, per, zone, given.get("guard", 1.0), given.get("headroom", 0.1), "me@h.example")


@pytest.mark.parametrize(
    ("text", "rate", "unit", "zone"),
    [
        ("30/15m", Rate(30, 900), Unit.MESSAGES, ""),
        ("20/s", Rate(20, 1), Unit.MESSAGES, ""),
        ("5000/180s", Rate(5000, 180), Unit.MESSAGES, ""),
        ("200/d", Rate(200, 86400), Unit.MESSAGES, ""),
        ("200/day", Rate(200, 86400), Unit.MESSAGES, "Asia/Shanghai"),
        ("10000/d recipients", Rate(10000, 86400), Unit.RECIPIENTS, ""),
        ("  100/h   messages ", Rate(100, 3600), Unit.MESSAGES, ""),
    ],
)
def test_a_quota_is_read(text: str, rate: Rate, unit: Unit, zone: str) -> None:
    quota = parsed(text)
    assert (quota.rate, quota.unit, quota.zone) == (rate, unit, zone)


@pytest.mark.parametrize(
    ("text", "words"),
    [("x", "must be a rate"), ("0/h", "must be a rate"), ("10/h persons", "messages` or `recipients"), ("10/fortnight", "must be a duration"),
     ("10/h recipients please", "messages` or `recipients"), ("10/0s", "in a window of 1ms"), ("", "must be a rate")],
)  # fmt: skip
def test_anything_else_is_refused_with_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parsed(text)


def test_a_calendar_day_needs_to_know_whose() -> None:
    with pytest.raises(ValueError, match="timezone"):
        parsed("200/day", zone="")
    assert parsed("200/d", zone="").zone == ""


def test_the_guard_is_a_fiftieth_of_a_short_window() -> None:
    assert [parsed(text).guard for text in ("20/s", "20/m", "200/d", "200/day")] == [0.02, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "headroom", "high", "normal"),
    [("10/h", 0.1, 10, 9), ("30/15m", 0.1, 30, 27), ("29/h", 0.1, 29, 26), ("5/h", 0.0, 5, 5), ("1/h", 0.5, 1, 1), ("3/h", 0.9, 3, 1)],
)  # fmt: skip
def test_normal_mail_sees_less_and_at_least_one(text: str, headroom: float, high: int, normal: int) -> None:
    quota = parsed(text, headroom=headroom)
    assert [quota.count_for(priority) for priority in (0, 1, 2)] == [high, normal, normal]


def test_each_recipient_and_each_domain_is_counted_apart_and_windows_too() -> None:
    quotas = [parsed("10/h"), parsed("10/h", Per.RECIPIENT), parsed("10/h", Per.DOMAIN), parsed("10/d"), parsed("10/day"), parsed("10/h recipients")]  # fmt: skip
    assert len({quota.bucket("ada@a.example") for quota in quotas}) == len(quotas)
    by_recipient, by_domain = quotas[1], quotas[2]
    assert by_recipient.bucket("ada@a.example") != by_recipient.bucket("bob@a.example")
    assert by_domain.bucket("ada@a.example") == by_domain.bucket("bob@a.example") != by_domain.bucket("ada@b.example")
    assert parsed("5/h").bucket() == parsed("9/h").bucket(), "a changed count keeps the past"
    assert by_recipient.label == "10/h per recipient"
