"""A relay's sender rule on composed bytes: refused, left alone, or rewritten in bytes that every reader reads."""

import pytest

from service.errors import SenderNotAccepted
from service.mail.address import make_mailbox
from service.mail.compose import compose
from service.mail.seal import SenderRule, seal
from tests.support.drafts import draft
from tests.support.oracles import PythonEmail
from tests.support.rfc_lint import lint

LOGIN = "a.rather.long.login.name@mail.provider.example"
REWRITES = SenderRule("r", LOGIN, must_equal_login=True, rewrite_from=True)
DEMANDS = SenderRule("r", LOGIN, must_equal_login=True)
NAMES = ["", "Ada", "Paper, Ink & Co.", 'a "quoted" name', "张三丰" * 8, "邹" * 100, "x" * 300, "two  spaces", "a <b>"]


@pytest.mark.parametrize("name", NAMES)
def test_a_rewritten_sender_keeps_its_name_and_is_answered_where_it_was(name: str) -> None:
    asked = make_mailbox("ada@example.org", name, "#")
    made = compose(draft(from_=asked))
    sealed = seal(made.segments, asked.email, asked.email, REWRITES)
    raw = b"".join(sealed.segments)
    assert lint(raw) == []
    read = PythonEmail().read(raw)
    assert list(read.mailboxes["from"]) == [(name.strip(), LOGIN)]
    assert list(read.mailboxes["reply-to"]) == [(name.strip(), "ada@example.org")]
    assert (sealed.envelope_from, sealed.header_from, sealed.rewritten) == (LOGIN, LOGIN, True)


def test_a_reply_to_that_stands_there_stays_alone() -> None:
    made = compose(draft(reply_to=(make_mailbox("desk@example.org", "", "#"),)))
    raw = b"".join(seal(made.segments, "zouchengzhuo@163.com", "zouchengzhuo@163.com", REWRITES).segments)
    assert list(PythonEmail().read(raw).mailboxes["reply-to"]) == [("", "desk@example.org")]
    assert raw.count(b"\r\nReply-To:") == 1


@pytest.mark.parametrize(
    ("envelope_from", "header_from", "pointer"),
    [("other@x.example", LOGIN, "#/envelope_from"), (LOGIN, "other@x.example", "#/from")],
)
def test_a_rule_that_rewrites_nothing_refuses_and_says_which_field(
    envelope_from: str, header_from: str, pointer: str
) -> None:
    with pytest.raises(SenderNotAccepted) as caught:
        seal((b"From: x\r\n\r\n",), envelope_from, header_from, DEMANDS)
    assert [each.pointer for each in caught.value.errors] == [pointer]
    assert LOGIN in caught.value.detail


@pytest.mark.parametrize("rule", [SenderRule("r"), DEMANDS, REWRITES])
def test_a_sender_that_fits_is_left_as_it_is(rule: SenderRule) -> None:
    made = compose(draft(from_=make_mailbox(LOGIN.upper(), "Ada", "#")))
    sealed = seal(made.segments, LOGIN, LOGIN, rule)
    assert sealed.segments == made.segments
    assert not sealed.rewritten
