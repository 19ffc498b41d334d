"""Replies: code, enhanced code and text, in whatever encoding a provider sends."""

import pytest

from service.mail.reply import MAX_TEXT, decode, make_reply


@pytest.mark.parametrize(
    ("code", "lines", "enhanced", "text"),
    [
        (250, ["2.0.0 Ok: queued as 12345"], "2.0.0", "Ok: queued as 12345"),
        (250, ["Mail OK queued as smtp3,DcmowAA 1"], "", "Mail OK queued as smtp3,DcmowAA 1"),
        (550, ["5.1.1 The email account", "5.1.1 that you tried"], "5.1.1", "The email account that you tried"),
        (550, ["User not found 5.1.1"], "", "User not found 5.1.1"),
        (451, ["5.1.1 a class that does not fit the code"], "", "5.1.1 a class that does not fit the code"),
        (450, ["4.7.1999 detail too long"], "", "4.7.1999 detail too long"),
        (421, [], "", ""),
    ],
)
def test_the_enhanced_code_is_read_only_right_after_the_code(
    code: int, lines: list[str], enhanced: str, text: str
) -> None:
    reply = make_reply(code, lines)
    assert (reply.code, reply.enhanced, reply.text) == (code, enhanced, text)


def test_a_gbk_reply_of_qq_is_readable() -> None:
    assert decode("登录失败".encode("gbk")) == "登录失败"


def test_utf8_wins_over_gbk() -> None:
    assert decode("空间不足".encode()) == "空间不足"


def test_control_characters_never_reach_the_log() -> None:
    assert decode(b"bad\x1b[31m\x00news\r") == "bad[31mnews"


def test_text_is_cut_at_its_limit() -> None:
    assert len(make_reply(550, ["x" * 9000]).text) == MAX_TEXT


def test_classes_follow_the_first_digit() -> None:
    assert make_reply(250, []).positive
    assert make_reply(354, []).intermediate
    assert make_reply(450, []).transient
    assert make_reply(550, []).permanent
