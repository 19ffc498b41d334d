"""When somebody is told that a relay refuses more contents than it used to."""

from service.relay.share import RefusedShare

NOW = 1_764_000_000_000
HOUR = 3_600_000


def told(share: RefusedShare, pattern: str, now: int = NOW) -> list[int]:
    """At which recipients of a row of `.` (taken) and `x` (refused) somebody was told."""
    return [place for place, each in enumerate(pattern) if share.finished(refused=each == "x", now=now)]


def test_the_fifth_refusal_among_few_is_told() -> None:
    assert told(RefusedShare(), "xxxx") == []
    assert told(RefusedShare(), "x.x.x.x.x") == [8]


def test_a_share_of_a_tenth_is_not_yet_told() -> None:
    assert told(RefusedShare(), "." * 45 + "xxxxx") == []
    assert told(RefusedShare(), "." * 45 + "xxxxxx") == [50]


def test_it_is_told_only_when_it_is_three_times_what_it_was() -> None:
    before = ("x" + "." * 9) * 100  # a tenth, for a thousand recipients
    share = RefusedShare()
    told(share, before[:50], NOW - 2 * HOUR)
    told(share, before, NOW - 2 * HOUR)
    assert told(share, "x...." * 10) == [], "twice as much"
    assert told(share, "x." * 50) != []


def test_it_is_told_once_an_hour() -> None:
    share = RefusedShare()
    assert told(share, "xxxxxxxxxx") == [4]
    assert told(share, "xxxxxxxxxx", NOW + HOUR - 1) == []
    assert told(share, "xx", NOW + HOUR) == [0]


def test_what_is_long_ago_is_forgotten() -> None:
    share = RefusedShare()
    told(share, "x" * 1050, NOW - 2 * HOUR)
    told(share, "." * 1050, NOW - 2 * HOUR)
    assert told(share, "." * 44 + "xxxxxx") == [49]


def test_the_sentence_tells_both_shares() -> None:
    share = RefusedShare()
    told(share, "." * 100)
    told(share, "xxxxx")
    assert share.finished(refused=True, now=NOW) == (
        "6 of the last 50 recipients were refused for their content, 0 of 56 before"
    )
