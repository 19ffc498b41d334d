"""The parts of a message: quoted-printable that no line passes, and file names that nobody smuggles."""

import quopri

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mail.bodies import attachment_part, quoted_printable, text_part
from service.mail.draft import Attachment

AWKWARD = st.text(st.sampled_from("ab =.\t\n-日éFrom "), max_size=300)


@settings(max_examples=600, deadline=None)
@given(text=AWKWARD)
def test_no_line_of_quoted_printable_is_over_76_and_all_of_it_is_read_back(text: str) -> None:
    encoded = quoted_printable(text.encode())
    lines = encoded.split(b"\r\n")
    assert max(map(len, lines)) <= 76  # RFC 2045 6.7 (5)
    assert not any(line.startswith((b".", b"From ")) or line.endswith((b" ", b"\t")) for line in lines)
    assert quopri.decodestring(encoded.replace(b"\r\n", b"\n")).decode() == text


def test_white_space_at_the_end_of_a_line_makes_none_too_long() -> None:
    """The library's own encoder writes 77 octets here."""
    encoded = quoted_printable(" 日=From =日From b\t.-\t-日é日日 \n".encode())
    assert max(map(len, encoded.split(b"\r\n"))) <= 76


def test_a_line_that_old_relays_change_is_never_sent_as_it_is() -> None:
    fields, body = text_part("plain", "one\nFrom here on\n")
    assert "quoted-printable" in fields
    assert b"\r\n=46rom here on" in body


@pytest.mark.parametrize("before", [0, 1, 40, 400])
def test_a_line_that_fits_no_smtp_line_is_never_sent_as_it_is(before: int) -> None:
    """RFC 5321 4.5.3.1.6: 1000 octets with CRLF, of which we use 990 without; short ones around it do not hide it."""
    short = "short\n" * before
    assert "7bit" in text_part("plain", f"{short}{'a' * 990}\n{short}")[0]
    for text in (f"{short}{'a' * 991}\n{short}", f"{short}{'a' * 991}"):
        assert "quoted-printable" in text_part("plain", text)[0]


@pytest.mark.parametrize("given", ["name", "NAME"])
def test_the_file_name_in_the_media_type_is_always_the_clean_one(given: str) -> None:
    """Old readers show `name`: one that the caller slips in there would be seen by nobody's check."""
    content_type = f'application/pdf; {given}="../evil.exe"; x=y'
    fields, _ = attachment_part(Attachment("a.pdf", b"", content_type), "a.pdf")
    assert "evil" not in fields
    assert fields.startswith('Content-Type: application/pdf;\r\n x=y;\r\n name="a.pdf"\r\n')
