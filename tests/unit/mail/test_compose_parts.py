"""The parts that the composer writes: texts, alternatives, attachments, images, invitations."""

import dataclasses
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mail.address import parse_mailbox
from service.mail.compose import compose
from service.mail.draft import Alternative, Attachment, Calendar
from tests.support.drafts import body_of, composed, draft, raw_of, tree_of


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\n", "7bit"),
        ("x" * 990, "7bit"),
        ("x" * 998, "quoted-printable"),
        ("x" * 999, "quoted-printable"),
        ("x" * 3000, "quoted-printable"),
        ("bell\x07", "quoted-printable"),
        ("--=_alt_01test\n", "quoted-printable"),
        ("mostly ASCII, one é", "quoted-printable"),
        ("这是一封测试邮件", "base64"),
        ("", "7bit"),
    ],
)
def test_a_text_takes_the_smallest_encoding_that_keeps_it(text: str, encoding: str) -> None:
    for to in ("a@b.example", "用户@b.example"):  # bodies of an internationalised message are no different
        _, message = composed(text=text, html=None, to=(parse_mailbox(to, "#"),))
        assert message["content-transfer-encoding"] == encoding
        assert body_of(message, "plain").removesuffix("\n") == text.removesuffix("\n")


AWKWARD = [
    ".", "..", "\n.\n", "From me", "a\n.\nb", "\n.x\n..\n", "\r.\r", "x" * 3000, "a\r\nb\rc\nd", "", "\n", "\n\n\n",
    "é" * 20 + "x" * 400, "." + "x" * 75 + "é", "From " + "x" * 71 + "=é", ("." + "=" * 25 + "é") * 9, "=" * 100, "tail \nspace\t\n",
    "tail \nspace\té ", "\x01\x0b\x0c\x1b\x7f\x85é", "\ufeffbom", "long " * 300,
]  # fmt: skip


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_bodies_survive(text: str) -> None:
    _, message = composed(text=text, html=text)
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert (body_of(message, "plain"), body_of(message, "html")) == (wanted, wanted)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.text(st.characters(max_codepoint=0x7F, exclude_categories=["Cc"]), max_size=200), max_size=12))
def test_ascii_and_quoted_printable_bodies_survive_with_their_line_ends(lines: list[str]) -> None:
    for text in ("\n".join(lines), "é" + "\n".join(lines) + "x" * 40):
        assert body_of(composed(text=text)[1], "plain") == text


def test_dots_are_not_stuffed_before_the_wire() -> None:
    assert b"\r\n\r\n.\r\n..\r\n" in raw_of(compose(draft(text=".\n..\n", html=None)))


def test_a_text_that_ends_its_last_line_is_not_given_another() -> None:
    assert raw_of(compose(draft(text="plain\n", html=None))).endswith(b"\r\n\r\nplain\r\n")
    assert raw_of(compose(draft(text="plain", html=None))).endswith(b"\r\n\r\nplain\r\n")
    assert raw_of(compose(draft(text="", html=None))).endswith(b"7bit\r\n\r\n")


def test_one_body_makes_no_multipart_and_text_is_derived_from_html() -> None:
    assert composed(html=None)[1].get_content_type() == "text/plain"
    assert composed(html=None, text=None)[1].get_content() == ""
    html = '<h1>Hi</h1><p>See <a href="https://x.example/">this</a></p><style>b{}</style>'
    assert body_of(composed(text=None, html=html)[1], "plain") == "Hi\n\nSee this (https://x.example/)\n"


def test_alternatives_stand_from_the_plainest_to_the_richest() -> None:
    _, message = composed(
        amp="<html amp4email>", alternatives=(Alternative("text/Markdown", "# x"),), calendar=Calendar("REQUEST", "BEGIN:VCALENDAR\nEND:VCALENDAR\n")
    )  # fmt: skip
    kinds = ["text/plain", "text/markdown", "text/x-amp-html", "text/html", "text/calendar"]
    assert tree_of(message) == ["multipart/mixed", "multipart/alternative", *kinds, "text/calendar"]


# --- attachments ------------------------------------------------------------------------------------------------


def test_several_attachments_keep_their_order_octets_and_types() -> None:
    files = [
        ("a.pdf", None),
        ("b.TXT", None),
        ("c", None),
        ("d.tar.gz", None),
        ("e.eml", None),
        ("f.bin", 'text/X; a=b; c="d e"'),
    ]
    given = tuple(Attachment(name, name.encode() * 40, kind) for name, kind in files)
    _, message = composed(attachments=(*given, Attachment("empty.dat", b"")))
    parts = list(message.iter_attachments())
    assert [part.get_filename() for part in parts] == [*(name for name, _ in files), "empty.dat"]
    assert [part.get_payload(decode=True) for part in parts] == [*(each.content for each in given), b""]
    types = ["application/pdf", "text/plain", *["application/octet-stream"] * 3, "text/x", "application/octet-stream"]
    assert [part.get_content_type() for part in parts] == types
    assert (parts[5].get_param("a"), parts[5].get_param("c")) == ("b", "d e")


def test_a_file_name_is_written_for_old_readers_and_for_new_ones() -> None:
    raw = raw_of(compose(draft(attachments=(Attachment("发票.pdf", b""),))))
    assert b'Content-Type: application/pdf;\r\n name="=?UTF-8?B?5Y+R56WoLnBkZg==?="\r\n' in raw
    assert b"Content-Disposition: attachment;\r\n filename*=UTF-8''%E5%8F%91%E7%A5%A8.pdf\r\n" in raw


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.txt", "a.txt"),
        ("dir/", "dir"),
        (" a.txt ", "a.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("\u2067a\u2069\u200e.txt", "a.txt"),
        ("x" * 300 + ".pdf", "x" * 251 + ".pdf"),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_file_name_loses_what_misleads_and_a_warning_says_so(given: str, written: str) -> None:
    made, message = composed(attachments=(Attachment("good.txt", b""), Attachment(given, b"")))
    assert [part.get_filename() for part in message.iter_attachments()] == ["good.txt", written]
    assert [(each.pointer, each.code) for each in made.warnings] == [("#/attachments/1/filename", "filename_changed")]
    assert written in made.warnings[0].detail


def test_inline_images_are_related_to_the_html() -> None:
    logo = Attachment("logo.png", b"\x89PNG", "image/png", "logo", "inline")
    _, message = composed(html='<img src="cid:logo" alt="x">', attachments=(logo, Attachment("a.txt", b"hi")))
    bodies = ["multipart/alternative", "text/plain", "text/html"]
    assert tree_of(message) == ["multipart/mixed", "multipart/related", *bodies, "image/png", "text/plain"]
    image = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert (image["content-id"], image.get_content_disposition()) == ("<logo>", "inline")
    related = next(part for part in message.walk() if part.get_content_type() == "multipart/related")
    assert related.get_param("type") == "multipart/alternative"
    _, message = composed(html=None, attachments=(logo,))
    assert tree_of(message) == ["multipart/mixed", "text/plain", "image/png"]  # nothing that it could be related to


def test_an_invitation_is_an_alternative_and_a_file() -> None:
    _, message = composed(calendar=Calendar("REQUEST", "BEGIN:VCALENDAR\r\nSUMMARY:会\r\nEND:VCALENDAR\r\n"))
    parts = [part for part in message.walk() if part.get_content_type() == "text/calendar"]
    assert [(part.get_param("method"), part.get_content_charset()) for part in parts] == [("REQUEST", "utf-8")] * 2
    assert [part.get_content_disposition() for part in parts] == [None, "attachment"]
    assert [part.get_filename() for part in parts] == [None, "invite.ics"]
    assert {part.get_payload(decode=True).decode() for part in parts} == {
        "BEGIN:VCALENDAR\r\nSUMMARY:会\r\nEND:VCALENDAR\r\n"
    }


def test_large_attachments_are_pieces_of_their_own() -> None:
    file = Attachment("big.bin", b"x" * 100_000)
    made, _ = composed(attachments=(file, dataclasses.replace(file, filename="again.bin")))
    twin, _ = composed(attachments=(file,), to=(parse_mailbox("other@x.example", "#"),))
    assert made.segments[1] == made.segments[3] == twin.segments[1]
    assert len(made.segments[1]) > 100_000


@pytest.mark.parametrize("size", [56, 57, 58, 114, 58_367, 58_368, 58_369, 116_736, 116_737, 300_001])
def test_base64_is_right_at_every_edge_of_its_pieces(size: int) -> None:
    content = bytes(index * 7 % 256 for index in range(size))
    _, message = composed(attachments=(Attachment("a.bin", content),))
    (part,) = message.iter_attachments()
    assert part.get_payload(decode=True) == content


def test_an_attachment_of_25_mib_is_composed_in_at_most_two_copies() -> None:
    content = bytes(range(256)) * (25 * 4096)
    given = draft(attachments=(Attachment("big.bin", content),))
    compose(draft())
    tracemalloc.start()
    try:
        made = compose(given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * made.size + 1024 * 1024
