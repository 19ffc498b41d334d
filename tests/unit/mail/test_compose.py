"""Composed bytes, read back by parsers that nobody here wrote: Python's email and Perl's MIME-tools."""

import dataclasses
import email
import email.policy
import json
import subprocess
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ComposeViolation, ValidationFailed
from service.mail.address import Mailbox, make_mailbox, parse_mailbox
from service.mail.compose import Composed, compose, redate
from service.mail.draft import Attachment, Calendar, Draft
from service.mail.gate import inspect
from tests.support.rfc_lint import lint

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def draft(**given: Any) -> Draft:
    values: dict[str, Any] = {
        "from_": parse_mailbox("zoucz <zouchengzhuo@163.com>", "#"),
        "to": (parse_mailbox("zoucz <405966530@qq.com>", "#"),),
        "subject": "测试SMTP发送邮件",
        "text": "这是一封测试邮件\n",
        "html": "<p>这是一封<b>测试</b>邮件</p>\n",
        "message_id": "01test@163.com",
        "date": 1_764_000_000_123,
        "boundary_seed": "01test",
    }
    return Draft(**{**values, **given})


def composed(**given: Any) -> tuple[Composed, EmailMessage]:
    made = compose(draft(**given))
    inspect(made)
    raw = b"".join(made.segments)
    assert lint(raw, eai=made.smtputf8) == []
    assert made.size == len(raw)
    message = email.message_from_bytes(raw, policy=email.policy.SMTPUTF8 if made.smtputf8 else email.policy.default)
    assert isinstance(message, EmailMessage)
    return made, message


def body_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def recipients_of(made: Composed, field: str = "To") -> list[tuple[str, str]]:
    """(name, address) by the older of Python's parsers: the newer one keeps the space between adjacent encoded words."""
    message = email.message_from_bytes(b"".join(made.segments))
    pairs = getaddresses([" ".join(message[field].split("\r\n"))])
    return [(str(make_header(decode_header(name))), address) for name, address in pairs]


def test_the_article_is_composed_byte_by_byte_as_it_was() -> None:
    made, _ = composed()
    assert b"".join(made.segments) == (GOLDEN / "article.eml").read_bytes()


NASTY = [
    "plain", "邹, 成", 'Quote "me"', "back\\slash", "O'Neil", "comma, here", "a@b.example", "=?utf-8?q?a=40b?=", "=?UTF-8?B?5L2g?=",
    "emoji 👩‍👩‍👧‍👦 family", "é" * 60, "漢" * 100, "x" * 300, "a" * 70 + " " + "b" * 70, "  two  spaces  ", "مرحبا",
    "\u202eabc", "(comment)",
    "semi;colon", "<angle>", "tab\u00a0nbsp", "?=", "=?", "a=?b?c?d?=e", "👍" * 40, "ends with space ", "dots...", "[brackets]", "~!#$%^&*",
]  # fmt: skip


@pytest.mark.parametrize("subject", NASTY)
def test_a_subject_is_read_back_as_it_was_asked_for(subject: str) -> None:
    _, message = composed(subject=subject)
    assert str(message["subject"]) == subject


@pytest.mark.parametrize("name", [name for name in NASTY if len(name) <= 320])
def test_a_display_name_is_read_back_and_makes_no_second_recipient(name: str) -> None:
    made, message = composed(
        to=(make_mailbox("a@b.example", name, "#"), make_mailbox("c@d.example", "Other, One", "#"))
    )
    assert recipients_of(made) == [(name.strip(), "a@b.example"), ("Other, One", "c@d.example")]
    assert [each.addr_spec for each in message["to"].addresses] == ["a@b.example", "c@d.example"]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"]), max_size=120)


@settings(max_examples=150, deadline=None)
@given(subject=TEXT, name=TEXT.filter(lambda text: len(text) <= 300), text=TEXT, html=TEXT)
def test_anything_is_read_back_as_it_was_asked_for(subject: str, name: str, text: str, html: str) -> None:
    made, message = composed(subject=subject, to=(Mailbox("a@b.example", name.strip()),), text=text, html=html)
    assert str(message["subject"]) == subject
    assert recipients_of(made) == [(name.strip(), "a@b.example")]
    assert body_of(message, "plain").rstrip("\n") == text.rstrip("\n")
    assert body_of(message, "html").rstrip("\n") == html.rstrip("\n")


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.text(st.characters(max_codepoint=0x7F, exclude_categories=["Cc"]), max_size=200), max_size=12))
def test_ascii_and_quoted_printable_bodies_survive_with_their_line_ends(lines: list[str]) -> None:
    for text in ("\n".join(lines), "é" + "\n".join(lines) + "x" * 40):
        _, message = composed(text=text)
        assert body_of(message, "plain").rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize(
    "text",
    [
        ".",
        "..",
        "\n.\n",
        "From me",
        "a\n.\nb",
        "x" * 3000,
        "a\r\nb\rc\nd",
        "",
        "é" * 20 + "x" * 400,
        "=" * 100,
        "tail \nspace\t\n",
    ],
)
def test_awkward_bodies_survive(text: str) -> None:
    _, message = composed(text=text)
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert body_of(message, "plain").rstrip("\n") == wanted.rstrip("\n")


@pytest.mark.parametrize(
    "name", ["plain.pdf", "发票 2026.pdf", "a b.txt", 'quo"te.txt', "back.slash", "é.png", "x" * 200 + ".pdf", "漢" * 80 + ".pdf",
             "semi;colon.txt", "100%.txt", "it's.txt"]
)  # fmt: skip
def test_an_attachment_keeps_its_name_and_bytes(name: str) -> None:
    content = bytes(range(256)) * 300
    _, message = composed(attachments=(Attachment(name, content),))
    (part,) = message.iter_attachments()
    assert part.get_filename() == name
    assert part.get_payload(decode=True) == content
    assert message.get_content_type() == "multipart/mixed"


def test_inline_images_are_related_to_the_html() -> None:
    logo = Attachment("logo.png", b"\x89PNG", "image/png", "logo", "inline")
    _, message = composed(html='<img src="cid:logo" alt="x">', attachments=(logo, Attachment("a.txt", b"hi")))
    mixed = [part.get_content_type() for part in message.walk()]
    assert mixed == [
        "multipart/mixed",
        "multipart/related",
        "multipart/alternative",
        "text/plain",
        "text/html",
        "image/png",
        "text/plain",
    ]
    image = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert image["content-id"] == "<logo>"


def test_an_invitation_is_an_alternative_and_a_file() -> None:
    _, message = composed(calendar=Calendar("REQUEST", "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"))
    kinds = [
        (part.get_content_type(), part.get_param("method"))
        for part in message.walk()
        if "calendar" in part.get_content_type()
    ]
    assert kinds == [("text/calendar", "REQUEST"), ("text/calendar", "REQUEST")]


def test_one_body_makes_no_multipart_and_text_is_derived_from_html() -> None:
    assert composed(html=None)[1].get_content_type() == "text/plain"
    _, message = composed(
        text=None, html='<h1>Hi</h1><p>See <a href="https://x.example/">this</a></p><style>b{}</style>'
    )
    assert body_of(message, "plain") == "Hi\n\nSee this (https://x.example/)\n"


def test_bcc_is_never_written() -> None:
    made, _ = composed(bcc=(parse_mailbox("secret@x.example", "#"),), to=())
    raw = b"".join(made.segments)
    assert b"secret" not in raw
    assert b"To: undisclosed-recipients:;" in raw


def test_structured_fields_are_never_encoded() -> None:
    ids = tuple(f"<{'x' * 40}{n}@mail.example.com>" for n in range(8))
    _, message = composed(
        references=ids,
        in_reply_to=ids[0],
        unsubscribe_urls=("https://x.example/" + "u" * 300,),
        headers=(("Feedback-ID", "a:b:c:d"), ("X-Long", "w " * 300)),
    )
    assert message["references"].split() == list(ids)
    assert message["in-reply-to"] == ids[0]
    assert message["list-unsubscribe"] == "<https://x.example/" + "u" * 300 + ">"
    assert message["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    assert message["feedback-id"] == "a:b:c:d"
    assert message["x-long"] == ("w " * 300)


def test_an_internationalised_address_needs_smtputf8_and_a_domain_becomes_a_labels() -> None:
    made, message = composed(to=(parse_mailbox("用户 <用户@例子.example>", "#"),))
    assert made.smtputf8
    (recipient,) = message["to"].addresses
    assert recipient.addr_spec.encode("ascii", "surrogateescape").decode() == "用户@xn--fsqu00a.example"
    assert not composed(to=(parse_mailbox("a@bücher.example", "#"),))[0].smtputf8


def test_redate_changes_the_date_alone() -> None:
    made, before = composed()
    after = email.message_from_bytes(b"".join(redate(made.segments, 1_800_000_000_000)), policy=email.policy.default)
    assert after["date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert [(k, v) for k, v in after.items() if k != "Date"] == [(k, v) for k, v in before.items() if k != "Date"]


def test_large_attachments_are_pieces_of_their_own() -> None:
    made, _ = composed(attachments=(Attachment("big.bin", b"x" * 100_000),))
    twin, _ = composed(
        attachments=(Attachment("big.bin", b"x" * 100_000),), to=(parse_mailbox("other@x.example", "#"),)
    )
    assert made.segments[1] == twin.segments[1]
    assert len(made.segments[1]) > 100_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.replace(b"Subject:", b"Bcc: x@y.example\r\nSubject:", 1),
        lambda raw: raw.replace(b"\r\n\r\n", b"\n\r\n", 1),
        lambda raw: raw.replace(b"Subject:", b"Subject: x\r\nSubject:", 1),
        lambda raw: raw.replace(b"From: ", b"From: \xff", 1),
        lambda raw: raw.replace(b"Date: ", b"Date:\0 ", 1),
        lambda raw: raw.replace(b"MIME-Version: 1.0\r\n", b"", 1),
        lambda raw: raw + b"x" * 999 + b"\r\n",
        lambda raw: raw + b"a\rb\r\n",
        lambda raw: raw.replace(b"Subject: ", b"Subject:\r\n \r\n ", 1),
    ],
)
def test_the_gate_refuses_bytes_that_were_not_intended(damage: Any) -> None:
    made = compose(draft())
    with pytest.raises(ComposeViolation):
        inspect(dataclasses.replace(made, segments=(damage(b"".join(made.segments)),)))


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"subject": "a\r\nBcc: x@y.example"}, "#/subject"),
        ({"headers": (("X-A", "a\nb"),)}, "#/headers/X-A"),
        ({"unsubscribe_urls": ("http://x.example",)}, "#/unsubscribe_url"),
        ({"in_reply_to": "no id"}, "#/in_reply_to"),
        ({"text": "a\0b"}, "#/text"),
        ({"attachments": (Attachment("a\nb", b""),)}, "#/attachments/0/filename"),
        ({"attachments": (Attachment("a", b"", "message/rfc822"),)}, "#/attachments/0/content_type"),
    ],
)  # fmt: skip
def test_the_composer_checks_again_what_the_edge_checked(given: Any, pointer: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        compose(draft(**given))
    assert [problem.pointer for problem in caught.value.errors] == [pointer]


PERL = r"""
use MIME::Parser; use MIME::WordDecoder; use JSON::PP; use Encode;
my $parser = MIME::Parser->new; $parser->output_to_core(1); $parser->decode_headers(0);
my $entity = $parser->parse(\*STDIN); my @leaves;
sub walk { my $e = shift; if ($e->parts) { walk($_) for $e->parts } else {
  push @leaves, { type => $e->effective_type, body => Encode::decode("UTF-8", $e->bodyhandle->as_string) } } }
walk($entity);
my $subject = Encode::decode("MIME-Header", $entity->head->get("Subject")); $subject =~ s/\n//g;
print encode_json({ subject => $subject, leaves => \@leaves, count => scalar($entity->head->tags) });
"""


@pytest.fixture(scope="module")
def perl() -> None:
    if subprocess.run(["perl", "-MMIME::Parser", "-MJSON::PP", "-e1"], capture_output=True).returncode:
        pytest.skip(
            "Perl MIME-tools are not installed: this oracle did NOT read our bytes (apt-get install libmime-tools-perl)"
        )


@pytest.mark.usefixtures("perl")
@pytest.mark.parametrize("subject", ["plain words", "测试SMTP发送邮件", "邹" * 60, "emoji 👍 and é"])
def test_perl_mime_tools_read_the_same(subject: str) -> None:
    made, _ = composed(subject=subject, attachments=(Attachment("a.txt", "héllo".encode()),))
    ran = subprocess.run(["perl", "-e", PERL], input=b"".join(made.segments), capture_output=True, check=True)
    read = json.loads(ran.stdout)
    assert read["subject"] == subject
    assert [leaf["type"] for leaf in read["leaves"]] == ["text/plain", "text/html", "text/plain"]
    assert read["leaves"][0]["body"].strip() == "这是一封测试邮件"
    assert read["leaves"][2]["body"] == "héllo"
