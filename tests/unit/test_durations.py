"""Durations and rates as people write them."""

import pytest

from service.durations import Rate, parse_duration, parse_rate, shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("4d", 345600),
        ("250ms", 0.25),
        ("2W", 1209600),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "-5", "1h 30m", "10m!", "٣", "1e3", "nan", "inf"])
def test_anything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", Rate(100, 1)), ("30/15m", Rate(30, 900)), ("200/d", Rate(200, 86400)), ("0" * 20 + "7/s", Rate(7, 1))],
)
def test_a_rate_is_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "0/s",
        "-1/s",
        "x/s",
        "10/",
        "1.5/s",
        "10/x",
        "²/s",
        "1/0s",
        "00/s",
        "1/0.5ms",
        "1/99999999999999999999d",
        "99999999999999999999/s",
        "9" * 5000 + "/s",
    ],
)
def test_a_wrong_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7776000, "90d"), (600, "10m"), (5400, "90m"), (3600, "1h"), (1.5, "1.5s"), (90061, "90061s"), (0, "0s")],
)
def test_a_duration_is_shown_so_that_it_can_be_read_again(seconds: float, text: str) -> None:
    assert shown(seconds) == text
    assert parse_duration(text) == seconds
