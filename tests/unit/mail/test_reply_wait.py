"""The wait that a reply asks for in words."""

import pytest

from service.mail.reply_wait import told_wait


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("<>: Recipient address rejected: Greylisted, try again in 300 seconds", 300),
        ("Greylisted for 5 minutes", 300),
        ("Greylisting in action, please come back in 00:05:00", 300),
        ("Greylisted, see or wait 300 seconds", 300),
        ("4.2.0 Sender address rejected: Greylisted for 58 sec.", 58),
        ("Please try again after 2 min", 120),
        ("try again in 1 hour and 5 minutes", 3900),
        ("try again in 1 hour, 5 minutes", 3900),
        ("wait at least 10 mins", 600),
        ("retry=00:10:30 please", 630),
        ("TRY AGAIN IN 2 HOURS", 7200),
        ("请300秒后重试", 300),
        ("请 5 分钟后再试", 300),
        ("请1小时之后再试", 3600),
    ],
)
def test_words_that_lead_up_to_an_amount_of_time_are_a_wait(text: str, seconds: int) -> None:
    assert told_wait(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "try again later",
        "Too many messages in this session: 300",
        "10 messages per minute",
        "deliver within 4 hours",
        "try again in 300",
        "for 3 messages",
        "host 00:05:00 said no",
        "limit of 300 seconds of silence",
        "in 5 months",
        "在 5 分钟内发送过多",
    ],
)
def test_other_numbers_and_times_are_none(text: str) -> None:
    assert told_wait(text) == 0
