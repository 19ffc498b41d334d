"""What is never composed: bytes that nobody meant, which the gate stops, and drafts that could mean something else."""

import dataclasses
from typing import Any

import pytest

from service.errors import ComposeViolation, InvalidAttachment, ValidationFailed
from service.mail.compose import compose
from service.mail.draft import Alternative, Attachment, Calendar
from service.mail.gate import inspect
from tests.support.drafts import draft

ICALENDAR = "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.replace(b"Subject:", b"Bcc: x@y.example\r\nSubject:", 1),
        lambda raw: raw.replace(b"Subject:", b"X-Other: x\r\nSubject:", 1),
        lambda raw: raw.replace(b"Subject:", b"Reply-To: x@y.example\r\nSubject:", 1),
        lambda raw: b"X-Other: x\r\n" + raw,
        lambda raw: raw.replace(b"\r\n\r\n", b"\n\r\n", 1),
        lambda raw: raw.replace(b"Subject:", b"Subject: x\r\nSubject:", 1),
        lambda raw: raw.replace(b"Subject:", b"SUBJECT:", 1),
        lambda raw: raw.replace(b"Subject:", b"Subject :", 1),
        lambda raw: raw.replace(b"Subject:", b"no field\r\nSubject:", 1),
        lambda raw: raw.replace(b"\r\n", b"\r\n\r\n", 1),
        lambda raw: raw.replace(b"\r\n\r\n", b"\r\n"),
        lambda raw: raw.replace(b"From: ", b"From: \xff", 1),
        lambda raw: raw.replace(b"Date: ", b"Date:\0 ", 1),
        lambda raw: raw.replace(b"MIME-Version: 1.0\r\n", b"", 1),
        lambda raw: b" folded\r\n" + raw,
        lambda raw: raw + b"x" * 999 + b"\r\n",
        lambda raw: raw + b"a\rb\r\n",
        lambda raw: raw + b"a\nb\r\n",
        lambda raw: raw + b"a\r\r\n",
        lambda raw: raw.replace(b"Subject: ", b"Subject:\r\n \r\n ", 1),
    ],
)
def test_the_gate_refuses_bytes_that_were_not_intended(damage: Any) -> None:
    made = compose(draft())
    with pytest.raises(ComposeViolation):
        inspect(dataclasses.replace(made, segments=(damage(b"".join(made.segments)),)))


@pytest.mark.parametrize("fault", [b"\r", b"\n", b"\0", b"\xff", b"x" * 999])
@pytest.mark.parametrize("at", [0, 76, 77, 70_000, -1])
def test_the_gate_looks_into_the_bodies_of_large_attachments(fault: bytes, at: int) -> None:
    made = compose(draft(attachments=(Attachment("a.bin", b"x" * 200_000),)))
    inspect(made)
    body = made.segments[1]
    at %= len(body)
    damaged = body[:at] + fault + body[at + (len(fault) == 1) :]
    if damaged == body:
        return
    with pytest.raises(ComposeViolation):
        inspect(dataclasses.replace(made, segments=(made.segments[0], damaged, *made.segments[2:])))


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"subject": "a\r\nBcc: x@y.example"}, "#/subject"),
        ({"headers": (("X-A", "a\nb"),)}, "#/headers/X-A"),
        ({"headers": (("X A", "b"),)}, "#/headers/X%20A"),
        ({"headers": (("Bcc", "x@y.example"),)}, "#/headers/Bcc"),
        ({"headers": (("content-Type", "text/plain"),)}, "#/headers/content-Type"),
        ({"headers": (("Feedback-ID", "é"),)}, "#/headers/Feedback-ID"),
        ({"headers": (("Feedback-ID", "=?utf-8?q?a=0D=0ABcc=3A_x?="),)}, "#/headers/Feedback-ID"),
        ({"headers": (("Feedback-ID", "x" * 919),)}, "#/headers/Feedback-ID"),
        ({"unsubscribe_urls": ("http://x.example",)}, "#/unsubscribe_url"),
        ({"unsubscribe_urls": ("https://x.example/" + "u" * 900,)}, "#/unsubscribe_url"),
        ({"unsubscribe_urls": ("https://x.example/?a=?utf-8?q?x?=",)}, "#/unsubscribe_url"),
        ({"unsubscribe_urls": ("https://x.example/ü",)}, "#/unsubscribe_url"),
        ({"unsubscribe_urls": ("https://x.example/>, <https://y.example",)}, "#/unsubscribe_url"),
        ({"in_reply_to": "no id"}, "#/in_reply_to"),
        ({"in_reply_to": "<=?utf-8?q?a?=@x.example>"}, "#/in_reply_to"),
        ({"references": ("<a@x.example>", "<b@x.example> <c@x.example>")}, "#/references/1"),
        ({"text": "a\0b"}, "#/text"),
        ({"html": "a\ud800b"}, "#/html"),
        ({"calendar": Calendar("REQUEST\r\nX: y", ICALENDAR)}, "#/calendar/method"),
        ({"calendar": Calendar("REQUEST", ICALENDAR, "a\nb")}, "#/calendar/filename"),
        ({"calendar": Calendar("REQUEST", "x")}, "#/calendar/content"),
        ({"alternatives": (Alternative("text/html", "x"),)}, "#/alternatives/0/content_type"),
    ],
)  # fmt: skip
def test_the_composer_checks_again_what_the_edge_checked(given: Any, pointer: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        compose(draft(**given))
    assert [problem.pointer for problem in caught.value.errors] == [pointer]


@pytest.mark.parametrize(
    "content",
    [ICALENDAR, "\ufeff \r\n" + ICALENDAR + " \n", "begin:vcalendar\nMethod:request\nend:vcalendar",
     "BEGIN:VCALENDAR\rMETHOD:REQUEST\rEND:VCALENDAR", "BEGIN:VCALENDAR\nMETHOD;X-A=b:REQ\n UEST\nEND:VCALENDAR",
     "BEGIN:VCALENDAR\nDESCRIPTION:a\n METHOD:CANCEL\nX-METHOD:CANCEL\nEND:VCALENDAR"],
)  # fmt: skip
def test_an_icalendar_object_of_the_same_method_is_composed(content: str) -> None:
    compose(draft(calendar=Calendar("REQUEST", content)))


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "must be an iCalendar object"), ("Tea at four", "must be an iCalendar object"), ("BEGIN:VEVENT\nEND:VEVENT", "must be an"),
     ("BEGIN:VCALENDAR\nMETHOD:REQUEST\n", "must be an"), ("x" + ICALENDAR, "must be an"), (ICALENDAR + "x", "must be an"),
     ("BEGIN:VCALENDAR END:VCALENDAR", "must be an"),
     ("BEGIN:VCALENDAR\nMETHOD:CANCEL\nEND:VCALENDAR", "its METHOD must be REQUEST"),
     ("BEGIN:VCALENDAR\rmethod:CANCEL\rEND:VCALENDAR", "its METHOD must be REQUEST"),
     ("BEGIN:VCALENDAR\nMETHOD:REQ\n UESTS\nEND:VCALENDAR", "its METHOD must be REQUEST")],
)  # fmt: skip
def test_what_is_no_icalendar_object_of_the_method_is_refused(content: str, told: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        compose(draft(calendar=Calendar("REQUEST", content)))
    (problem,) = caught.value.errors
    assert (problem.pointer, problem.code) == ("#/calendar/content", "invalid_calendar")
    assert problem.detail.startswith(told)


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\t", "\x1f", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"])
def test_a_control_character_in_a_file_name_is_refused(character: str) -> None:
    with pytest.raises(InvalidAttachment) as caught:
        compose(draft(attachments=(Attachment(f"a{character}b", b""),)))
    assert [problem.pointer for problem in caught.value.errors] == ["#/attachments/0/filename"]


@pytest.mark.parametrize(
    "kind",
    [
        "message/rfc822", "multipart/mixed", "text", "text/plain;", "text/plain; x", 'text/plain; x="é"', "text/plain;\r\n\r\nx=y",
        "text/plain; x=" + "y" * 250, "text/plain; a=b; A=c", 'text/plain; x="=?utf-8?q?a?="', 'text/plain; x="\\""', "text/plain\r\nX: y",
    ],
)  # fmt: skip
def test_a_media_type_that_could_be_read_in_two_ways_is_refused(kind: str) -> None:
    with pytest.raises(InvalidAttachment) as caught:
        compose(draft(attachments=(Attachment("a", b"", kind),)))
    assert [problem.pointer for problem in caught.value.errors] == ["#/attachments/0/content_type"]


def test_the_last_line_end_of_a_large_piece_is_looked_at_too() -> None:
    """It may be a short line, which ends where no line of 76 would: a CR and an LF that stand apart there are found too."""
    made = compose(draft(attachments=(Attachment("a.bin", b"x" * 100_001),)))
    index = max(range(len(made.segments)), key=lambda each: len(made.segments[each]))
    piece = made.segments[index]
    assert len(piece) % 78, "the last line is a short one"
    damaged = piece[:-3] + b"\nx\r"
    segments = (*made.segments[:index], damaged, *made.segments[index + 1 :])
    with pytest.raises(ComposeViolation, match="bare"):
        inspect(dataclasses.replace(made, segments=segments))


@pytest.mark.parametrize(
    "name", ["Date", "From", "Message-ID", "Subject", "MIME-Version", "To", "Cc", "Reply-To", "Sender"]
)
def test_what_stands_once_stands_once_whatever_was_intended(name: str) -> None:
    """Also when the writer says that it meant to."""
    everybody = {"cc": draft().to, "reply_to": draft().to, "sender": draft().from_}
    made = compose(draft(**everybody))
    line = f"{name}: again\r\n".encode()
    segments = (line + made.segments[0], *made.segments[1:])
    with pytest.raises(ComposeViolation, match="2 times"):
        inspect(dataclasses.replace(made, segments=segments, headers=(name, *made.headers)))


@pytest.mark.parametrize("name", ["Bcc", "Return-Path", "Received", "Resent-To", "Resent-Bcc", "bcc"])
def test_what_is_never_written_is_never_stored_whatever_was_intended(name: str) -> None:
    made = compose(draft())
    segments = (f"{name}: x\r\n".encode() + made.segments[0], *made.segments[1:])
    with pytest.raises(ComposeViolation, match="never written"):
        inspect(dataclasses.replace(made, segments=segments, headers=(name, *made.headers)))
