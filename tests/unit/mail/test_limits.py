"""What a message needs, what a relay takes, and that both speak of the same words."""

from typing import Any

import pytest

from service.mail.address import Mailbox
from service.mail.draft import Alternative, Attachment, Calendar, Draft
from service.mail.envelope import Offer
from service.mail.limits import FLAGS, Limits, extension_of, largest_field, needs_of, offers

MIB = 1024 * 1024
RISKY = frozenset({".exe", ".js"})
ME, YOU, UTF8 = Mailbox("me@example.com"), Mailbox("you@example.org"), Mailbox("用户@例子.example")


def draft(**given: Any) -> Draft:
    return Draft(from_=ME, message_id="x@example.com", date=0, boundary_seed="x", to=(YOU,), **given)


def words(made: Draft, size: int = 1000, recipients: int = 1, *, smtputf8: bool = False) -> list[tuple[str, str]]:
    return [(each.word, each.pointer) for each in needs_of(made, size, recipients, RISKY, smtputf8=smtputf8)]


def test_a_plain_message_needs_nothing() -> None:
    files = (Attachment("invoice.pdf", b"x"), Attachment("notes.txt", b"x"))
    assert words(draft(text="hello", html="<p>hello</p>", attachments=files), MIB, 50) == []


@pytest.mark.parametrize(
    ("given", "need"),
    [
        ({"cc": (YOU,)}, ("cc", "#/cc")),
        ({"bcc": (YOU,)}, ("bcc", "#/bcc")),
        ({"attachments": (Attachment("a.txt", b""), Attachment("b.png", b"", None, "b", "inline"))}, ("inline", "#/attachments/1")),
        ({"attachments": (Attachment("b.png", b"", None, "b"),)}, ("inline", "#/attachments/0")),
        ({"calendar": Calendar("REQUEST", "")}, ("calendar", "#/calendar")),
        ({"amp": "<html>"}, ("alternatives", "#/amp")),
        ({"alternatives": (Alternative("text/markdown", "x"),)}, ("alternatives", "#/alternatives")),
        ({"attachments": (Attachment("a.txt", b""), Attachment("Setup.EXE", b""))}, (".exe", "#/attachments/1/filename")),
        ({"calendar": Calendar("REQUEST", "", "invite.js")}, (".js", "#/calendar/filename")),
    ],
)  # fmt: skip
def test_each_need_names_the_field_that_makes_it(given: dict[str, Any], need: tuple[str, str]) -> None:
    assert need in words(draft(**given))


def test_sizes_count_in_mebibytes_begun_and_recipients_from_51_on() -> None:
    file = draft(text="x", attachments=(Attachment("a.bin", b"x"), Attachment("b.bin", b"xx")))
    assert words(file, MIB + 1) == [("2M", "#/attachments/1")]
    assert words(draft(html="<p>long</p>"), 25 * MIB, 51) == [("25M", "#/html"), ("51R", "#/to")]


def test_an_address_that_is_not_ascii_is_pointed_at() -> None:
    assert words(draft(cc=(YOU, UTF8)), smtputf8=True) == [("cc", "#/cc"), ("smtputf8", "#/cc/1")]
    assert words(draft(), smtputf8=True) == [("smtputf8", "#/envelope_from")]


def test_limits_take_everything_unless_they_say_otherwise() -> None:
    assert all(Limits().take(word) for word in (*FLAGS, ".exe", "25M", "51R", "smtputf8", "something-new"))
    strict = Limits(10 * MIB, None, 60, cc=False, inline=False, forbidden_extensions=(".exe",))
    assert {word for word in (*FLAGS, ".exe", ".js") if not strict.take(word)} == {"cc", "inline", ".exe"}


@pytest.mark.parametrize(("most", "taken"), [(10 * MIB, True), (9 * MIB + 1, True), (9 * MIB, False), (None, True)])
def test_a_size_is_refused_where_no_message_of_its_word_would_fit(most: int | None, taken: bool) -> None:
    """10M stands for more than 9 MiB: a limit within that mebibyte may still fit, and is counted exactly elsewhere."""
    assert Limits(most).take("10M") is taken


@pytest.mark.parametrize(("most", "taken"), [(60, True), (59, False), (None, True)])
def test_recipients_are_counted(most: int | None, taken: bool) -> None:
    assert Limits(max_message_recipients=most).take("60R") is taken


def test_an_offer_that_is_not_known_offers_everything() -> None:
    assert offers(None, "smtputf8")
    assert offers(Offer(True, None), "smtputf8")
    assert not offers(Offer(False, None), "smtputf8")
    assert offers(Offer(False, 0), "25M"), "SIZE 0 is no limit (RFC 1870 section 3)"
    assert not offers(Offer(False, 10 * MIB), "25M")
    assert offers(Offer(False, None), "cc")


@pytest.mark.parametrize(
    ("filename", "extension"),
    [("a.exe", ".exe"), ("A.EXE", ".exe"), ("a.exe. .", ".exe"), ("a.txt.js", ".js"), ("a.js.txt", ".txt"), ("folder.exe/a", ""),
     ("noextension", ""), (".js", ".js"), ("a.e\u202exe", ".exe"), ("", "")],
)  # fmt: skip
def test_the_extension_is_the_one_that_counts_on_a_readers_machine(filename: str, extension: str) -> None:
    assert extension_of(filename) == extension


def test_the_largest_field_is_what_a_message_should_do_without() -> None:
    assert largest_field(draft(text="long text", html="<p>")) == "#/text"
    assert largest_field(draft(text="x", html="<p>long</p>")) == "#/html"
