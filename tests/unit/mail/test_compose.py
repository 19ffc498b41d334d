"""The header that the composer writes, octet by octet where it matters. That strangers read it back: test_oracles."""

import base64
import email
import email.policy
import re
from pathlib import Path

import pytest

from service.errors import ValidationFailed
from service.mail.address import make_mailbox, parse_mailbox
from service.mail.compose import MAX_SUBJECT, compose, redate
from tests.support.drafts import composed, draft, head_of, raw_of

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
MAIL = Path(__file__).resolve().parents[3] / "service" / "mail"


def test_the_article_is_composed_byte_by_byte_as_it_was() -> None:
    assert raw_of(compose(draft())) == (GOLDEN / "article.eml").read_bytes()


def test_pythons_email_package_composes_nothing() -> None:
    assert [
        path.name for path in MAIL.glob("*.py") if re.search(r"(?m)^(?:from|import) email\b", path.read_text())
    ] == []


def test_the_fields_stand_in_one_order_and_once() -> None:
    made, _ = composed(
        sender=parse_mailbox("s@x.example", "#"),
        reply_to=(parse_mailbox("r@x.example", "#"),),
        cc=(parse_mailbox("c@x.example", "#"),),
        in_reply_to="a@x.example",
        references=("<a@x.example>", "b@x.example"),
        unsubscribe_urls=("mailto:u@x.example", "https://x.example/u"),
        importance="high",
        headers=(("X-A", "1"), ("X-A", "2"), ("Feedback-ID", "a:b")),
    )
    assert made.headers == (
        "Date", "From", "Sender", "Reply-To", "To", "Cc", "Message-ID", "In-Reply-To", "References", "Subject", "List-Unsubscribe",
        "List-Unsubscribe-Post", "X-Priority", "Importance", "Auto-Submitted", "X-A", "X-A", "Feedback-ID", "MIME-Version", "Content-Type",
    )  # fmt: skip


def test_threads_name_their_messages_in_angle_brackets() -> None:
    lines = head_of(in_reply_to="a@x.example", references=("<a@x.example>", "b@x.example"))
    assert b"In-Reply-To: <a@x.example>" in lines
    assert b"References: <a@x.example> <b@x.example>" in lines


@pytest.mark.parametrize("words", ["x", "four ", "é", "测试", "x 😀"])
def test_the_longest_subject_is_folded_and_read_back_whole(words: str) -> None:
    subject = (words * MAX_SUBJECT)[: MAX_SUBJECT - 1] + "."
    _, message = composed(subject=subject)
    assert message["subject"] == subject
    with pytest.raises(ValidationFailed) as refused:
        compose(draft(subject=subject + "."))
    (problem,) = refused.value.errors
    assert (problem.pointer, problem.code, problem.detail) == (
        "#/subject",
        "too_long",
        "must have at most 2000 characters",
    )


@pytest.mark.parametrize(("importance", "number"), [("high", b"1"), ("normal", b"3"), ("low", b"5")])
def test_importance_is_written_twice_for_two_kinds_of_readers(importance: str, number: bytes) -> None:
    lines = head_of(importance=importance)
    assert b"X-Priority: " + number in lines
    assert b"Importance: " + importance.encode() in lines


def test_a_notification_says_that_no_human_sent_it_unless_told_otherwise() -> None:
    assert b"Auto-Submitted: auto-generated" in head_of()
    assert not any(line.startswith(b"Auto-Submitted") for line in head_of(auto_submitted=False))


def test_the_way_to_unsubscribe_is_one_click_by_https_and_https_stands_first() -> None:
    lines = head_of(unsubscribe_urls=("mailto:u@x.example", "https://x.example/u"))
    assert b"List-Unsubscribe: <https://x.example/u>, <mailto:u@x.example>" in lines
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines
    assert not any(b"One-Click" in line for line in head_of(unsubscribe_urls=("mailto:u@x.example",)))


def test_structured_fields_are_folded_and_never_encoded() -> None:
    ids = tuple(f"<{'x' * 40}{n}@mail.example.com>" for n in range(8))
    url = "https://x.example/" + "u" * 880
    _, message = composed(
        references=ids,
        in_reply_to=ids[0],
        unsubscribe_urls=(url, "mailto:u@x.example"),
        headers=(("Feedback-ID", "a:b:c:" + "d" * 900), ("List-Id", "Words of a list <list.x.example>")),
    )
    assert message["references"].split() == list(ids)
    assert message["in-reply-to"] == ids[0]
    assert message["list-unsubscribe"] == f"<{url}>, <mailto:u@x.example>"
    assert message["feedback-id"] == "a:b:c:" + "d" * 900
    assert message["list-id"] == "Words of a list <list.x.example>"


def test_free_text_is_folded_at_76_between_words_and_on_character_boundaries() -> None:
    lines = head_of(subject="word " * 30 + "end")
    start = next(index for index, line in enumerate(lines) if line.startswith(b"Subject"))
    assert lines[start : start + 3] == [
        b"Subject: " + b"word " * 12 + b"word",
        b" word word word word word word word word word word word word word word word",
        b" word word end",
    ]
    lines = [line for line in head_of(subject="漢" * 60) if line.startswith((b"Subject: ", b" "))][:5]
    assert {len(line) for line in lines[:-1]} <= set(range(70, 77))
    for line in lines:
        word = re.fullmatch(rb"(?:Subject:)? =\?UTF-8\?B\?(.*)\?=", line)
        assert word is not None
        assert set(base64.b64decode(word[1]).decode()) == {"漢"}


def test_a_token_near_the_limit_of_a_line_stands_as_it_is_or_encoded_and_is_read_back() -> None:
    for length in (600, 700, 701, 900, 1990):
        subject = "x" * length
        name = f"X-{'N' * 74}"
        _, message = composed(subject=subject, headers=((name, f"short {subject} short"),))
        assert message["subject"] == subject
        assert (
            message[name].lstrip(" ") == f"short {subject} short"
        )  # Python keeps the space of a first line that is folded


@pytest.mark.parametrize(
    "name", ["邹", "Zou, Cheng", 'O"Neil', "=?utf-8?q?a=40b?=", "x" * 300, "a@b.example", "漢" * 100]
)
def test_a_name_is_one_phrase_and_never_a_second_recipient(name: str) -> None:
    mailbox = make_mailbox("a@b.example", name, "#")
    made, message = composed(to=(mailbox, make_mailbox("c@d.example", "Other, One", "#")))
    assert [each.addr_spec for each in message["to"].addresses] == ["a@b.example", "c@d.example"]
    assert b"<a@b.example>" in b"".join(made.segments)


def test_bcc_is_never_written() -> None:
    made, _ = composed(bcc=(parse_mailbox("secret@x.example", "#"),), to=())
    assert b"secret" not in b"".join(made.segments)
    assert b"To: undisclosed-recipients:;" in b"".join(made.segments)


def test_redate_changes_the_date_alone() -> None:
    made, before = composed(headers=(("X-Date", "Date: x"),), text="Date: in the text")
    after = email.message_from_bytes(b"".join(redate(made.segments, 1_800_000_000_000)), policy=email.policy.default)
    assert after["date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert [(k, v) for k, v in after.items() if k != "Date"] == [(k, v) for k, v in before.items() if k != "Date"]


# --- internationalised addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["from_", "sender", "to", "cc", "reply_to", "bcc"])
def test_an_internationalised_address_needs_smtputf8_wherever_it_stands(field: str) -> None:
    mailbox = parse_mailbox("用户 <用户@例子.example>", "#")
    made = compose(draft(**{field: mailbox if field in {"from_", "sender"} else (mailbox,)}))
    assert made.smtputf8
    assert ("用户 <用户@xn--fsqu00a.example>".encode() in raw_of(made).replace(b'"', b"")) is (field != "bcc")
    assert (made.segments[0].isascii()) is (field == "bcc")  # RFC 6532 fields only when a field needs them


def test_an_internationalised_domain_becomes_a_labels_and_needs_nothing() -> None:
    made = compose(draft(to=(parse_mailbox("用户 <a@bücher.example>", "#"),)))
    assert not made.smtputf8
    assert b"<a@xn--bcher-kva.example>" in raw_of(made)
    assert raw_of(made).isascii()
