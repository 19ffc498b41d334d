"""Whole messages, read back by readers that nobody here wrote: all of them must say what was asked for."""

import string
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.mail.address import Mailbox, make_mailbox
from service.mail.compose import compose
from service.mail.draft import Alternative, Attachment, Calendar, Draft
from service.mail.gate import inspect
from tests.support.asked import asked
from tests.support.oracles import Oracle, PythonEmail, mailparser, mimetools
from tests.support.rfc_lint import lint


@pytest.fixture(scope="module", params=["mailparser", "mimetools", "python"])
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    """Each reader in turn."""
    if request.param == "python":
        yield PythonEmail()
        return
    with {"mailparser": mailparser, "mimetools": mimetools}[request.param]() as program:
        yield program


def check(oracle: Oracle, draft: Draft) -> None:
    """Composed, gated, linted, and read as it was asked for."""
    made = compose(draft)
    inspect(made)
    raw = b"".join(made.segments)
    assert lint(raw, eai=made.smtputf8) == []
    wanted, read = asked(draft), oracle.read(raw)
    if b"\r\nContent-Type: multipart/" not in raw:
        # RFC 5321 4.1.1.4: a message ends with CRLF, whether its only text does or not
        assert read.text.removesuffix("\n") == wanted.text.removesuffix("\n")
        wanted, read = replace(wanted, text=""), replace(read, text="")
    assert read == wanted


# --- any message ------------------------------------------------------------------------------------------------

# no C0 and C1 controls, surrogates, unassigned, U+2028, U+2029: the edge refuses those in a line
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"]), max_size=90)
TRICKY = st.text(st.sampled_from("=?_-,;:\"\\'()<>@[].%*/ aé漢👍\u200d"), max_size=90)
WORDS = st.one_of(LINE, TRICKY, st.text(string.ascii_letters + " .,", max_size=200))
BODY = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\0"), max_size=300),
    st.text(st.sampled_from("ab =.\n\r\t-_é漢"), max_size=300),
    st.lists(WORDS, max_size=8).map("\n".join),
)
ATOM = st.text(string.ascii_lowercase + string.digits + "!#$%&'*+/=^_`{|}~-", min_size=1, max_size=20)
EMAILS = st.builds(
    "{}@{}".format, ATOM, st.sampled_from(["example.com", "bücher.example", "例子.example", "xn--fsqu00a.example", "a.b.c.example"])
)  # fmt: skip
EAI = st.builds("{}@{}".format, st.sampled_from(["用户", "jörg.é", "नाम"]), st.just("例子.example"))
MESSAGE_IDS = st.builds(
    "<{}@mail.example.com>".format, st.text(string.ascii_letters + string.digits + ".+", min_size=1, max_size=60)
)
FIELDS = st.tuples(st.from_regex(r"X-[A-Z][A-Za-z-]{0,55}", fullmatch=True), WORDS)
FILENAMES = WORDS.map(lambda name: "".join(name.replace("/", "").replace("\\", "").split()) + ".dat").filter(
    lambda name: (
        not any(
            "\u202a" <= each <= "\u202e" or "\u2066" <= each <= "\u2069" or each in "\u061c\u200e\u200f"
            for each in name
        )
    )
)
FILES = st.builds(
    Attachment, FILENAMES, st.binary(max_size=200), st.sampled_from(["application/pdf", "text/csv", "image/png"])
)
ICALENDARS = BODY.map("BEGIN:VCALENDAR\n{}\nEND:VCALENDAR\n".format)
CALENDARS = st.builds(Calendar, st.sampled_from(["REQUEST", "CANCEL"]), ICALENDARS)
UNSUBSCRIBE = st.sampled_from(
    [
        (),
        ("https://example.com/u?a=1,2",),
        ("mailto:u@example.com",),
        ("mailto:u@example.com", "https://example.com/" + "u" * 90),
    ]
)


def mailboxes(emails: st.SearchStrategy[str]) -> st.SearchStrategy[Mailbox]:
    return st.builds(lambda email, name: make_mailbox(email, name, "#"), emails, WORDS)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    one = mailboxes(draw(st.sampled_from([EMAILS, EMAILS, EMAILS, EAI])))
    many = st.lists(one, max_size=3).map(tuple)
    html = draw(st.none() | BODY)
    images = tuple(
        Attachment(f"{index}.png", draw(st.binary(max_size=80)), "image/png", f"{index}@img", "inline")
        for index in range(draw(st.integers(0, 2)))
    )
    headers = draw(st.lists(FIELDS, max_size=3, unique_by=lambda pair: pair[0].lower()))
    return Draft(
        from_=draw(one),
        to=draw(many),
        cc=draw(many),
        reply_to=draw(many),
        bcc=draw(many),
        sender=draw(st.none() | one),
        subject=draw(WORDS),
        text=draw(BODY),
        html=html,
        amp=draw(st.none() | BODY),
        alternatives=draw(st.sampled_from([(), (Alternative("text/markdown", "# é"),)])),
        attachments=images + draw(st.lists(FILES, max_size=3).map(tuple)),
        calendar=draw(st.none() | CALENDARS),
        headers=tuple(headers),
        in_reply_to=draw(st.none() | MESSAGE_IDS),
        references=draw(st.lists(MESSAGE_IDS, max_size=5).map(tuple)),
        unsubscribe_urls=draw(UNSUBSCRIBE),
        importance=draw(st.sampled_from([None, "high", "normal", "low"])),
        auto_submitted=draw(st.booleans()),
        message_id="01test@example.com",
        date=1_764_000_000_123,
        boundary_seed="01test",
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draft=drafts())
def test_any_message_is_read_as_it_was_asked_for(oracle: Oracle, draft: Draft) -> None:
    check(oracle, draft)


# --- nasty ones -------------------------------------------------------------------------------------------------

NASTY = {
    "chinese": "测试邮件：您好，世界",
    "long chinese": "漢" * 100,
    "emoji with joiners": "emoji 👩‍👩‍👧‍👦 family 🏳️‍🌈",
    "right to left": "مرحبا \u202eabc\u202c \u2067שלום\u2069",
    "combining": "e\u0301" * 60,
    "commas and quotes": 'Zou, "Cheng" O\'Neil',
    "parentheses": "(comment) [literal] {brace}",
    "backslashes": "back\\slash\\",
    "an address": "a@b.example, <c@d.example>; e@f.example",
    "an encoded word": "=?utf-8?q?a=0D=0ABcc=3A_x?=",
    "an encoded word amid text": "x =?UTF-8?B?5L2g?= y",
    "parts of encoded words": "?= =? =?a?q? =?=?=",
    "300 characters": "x" * 300,
    "long tokens": "a" * 70 + " " + "b" * 70 + " " + "c" * 70,
    "300 characters of words": "word, " * 50,
    "double spaces": "two  spaces   three",
    "odd white space": "tab\u00a0nbsp\u3000wide\u200bzero",
    "colons": "Re: Fwd: a;b:c",
    "percent": "100%25 %0D%0A %",
    "looks like a field": "Bcc: x@y.example",
    "exactly a line": "x" * 67,
    "one over a line": "x" * 68,
    "quoted up to a line": "," * 70,
}


def plain(**given: Any) -> Draft:
    values: dict[str, Any] = {
        "from_": make_mailbox("zouchengzhuo@163.com", "zoucz", "#"),
        "to": (make_mailbox("405966530@qq.com", "zoucz", "#"),),
        "subject": "plain",
        "text": "plain\n",
        "message_id": "01test@163.com",
        "date": 1_764_000_000_123,
        "boundary_seed": "01test",
    }
    return Draft(**{**values, **given})


@pytest.mark.parametrize("words", NASTY.values(), ids=NASTY)
def test_a_subject_and_a_custom_header_keep_every_character(oracle: Oracle, words: str) -> None:
    check(oracle, plain(subject=words, headers=(("X-Words", words), (f"X-{'Long-' * 14}Name", words))))


@pytest.mark.parametrize("words", ["  two before", "two behind  ", " ", "", "   "])
def test_white_space_at_the_ends_is_kept(oracle: Oracle, words: str) -> None:
    check(oracle, plain(subject=words, headers=(("X-Words", words),)))


@pytest.mark.parametrize("words", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("local", ["a", "用户"], ids=["ascii", "eai"])
def test_a_name_keeps_every_character_and_makes_no_second_recipient(oracle: Oracle, words: str, local: str) -> None:
    mailbox = make_mailbox(f"{local}@例子.example", words, "#")
    other = make_mailbox("c@d.example", "Other, One", "#")
    check(
        oracle,
        plain(from_=mailbox, sender=mailbox, reply_to=(mailbox, other), to=(other, mailbox), cc=(mailbox, mailbox)),
    )


@pytest.mark.parametrize("words", NASTY.values(), ids=NASTY)
def test_texts_keep_every_character(oracle: Oracle, words: str) -> None:
    text = f"{words}\n.\nFrom {words}\n--=_alt_01test\n--=_mix_01test--\n\n{words} \n"
    check(oracle, plain(text=text))
    invitation = Calendar("REQUEST", f"BEGIN:VCALENDAR\n{text}\nEND:VCALENDAR\n")
    check(oracle, plain(text=text, html=text, amp=text, calendar=invitation))


FILENAMES_OF_TROUBLE = {
    "percent": "100%.txt",
    "percent encoding": "a%20b%0D.txt",
    "quote": 'quo"te.txt',
    "apostrophe": "it's UTF-8''x.txt",
    "semicolon": "a;b=c.txt",
    "chinese": "发票 2026.pdf",
    "long chinese": "漢" * 251 + ".pdf",
    "long emoji": "👍" * 251 + ".pdf",
    "long plain": "x" * 200 + ".pdf",
    "long with spaces": "word " * 40 + ".pdf",
    "an encoded word": "=?utf-8?q?a=0D=0ABcc=3A_x?=.txt",
    "a star": "a*0*=b.txt",
    "parentheses": "report (final).pdf",
    "no extension": "README",
    "accents": "é.png",
    "joiners": "👩‍👩‍👧‍👦.png",
}


@pytest.mark.parametrize("name", FILENAMES_OF_TROUBLE.values(), ids=FILENAMES_OF_TROUBLE)
def test_a_file_keeps_its_name_and_its_octets(oracle: Oracle, name: str) -> None:
    content = bytes(range(256)) * 3
    files = [Attachment(name, content[:length], "application/pdf") for length in (768, 57, 58, 1, 0)]
    images = [Attachment(name, content, "image/png", f"logo{index}@x", "inline") for index in range(2)]
    check(oracle, plain(html='<img src="cid:logo0@x">', attachments=(*files, *images)))
