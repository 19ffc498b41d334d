"""DKIM signatures, verified by two programs that nobody here wrote, and broken in every way that must be noticed."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.mail.address import parse_mailbox
from service.mail.compose import compose
from service.mail.dkim import SIGNATURE_ROOM, sign
from service.mail.dkim_keys import DkimKey, DkimRing, generate, is_selector, load_private, zone_line
from service.mail.draft import Attachment
from service.mail.seal import SenderRule, seal
from tests.support.dkim_verifiers import Verify, by_dkimpy, mailauth
from tests.support.drafts import draft

AT = 1_764_000_000_123
RSA = DkimKey("163.com", "pr2026", load_private(generate("rsa")))
ED25519 = DkimKey("163.com", "pr2026e", load_private(generate("ed25519")))
BOTH = (RSA, ED25519)
FROM = "zouchengzhuo@163.com"


@pytest.fixture(scope="module")
def by_mailauth() -> Iterator[Verify]:
    yield from mailauth()


@pytest.fixture(params=["dkimpy", "mailauth"])
def verify(request: pytest.FixtureRequest) -> Verify:
    if request.param == "dkimpy":
        return by_dkimpy
    return request.getfixturevalue("by_mailauth")  # type: ignore[no-any-return]


def signed(keys: tuple[DkimKey, ...] = BOTH, rule: SenderRule | None = None, **given: Any) -> bytes:
    """A sealed message as one piece."""
    made = compose(draft(**given))
    sealed = seal(made.segments, FROM, FROM, rule or SenderRule("r"), DkimRing(keys), AT)
    return b"".join(sealed.segments)


RICH: dict[str, Any] = {
    "cc": (parse_mailbox("邹 <cc@qq.com>", "#"),),
    "reply_to": (parse_mailbox("a@b.example", "#"),),
    "references": tuple(f"<{'x' * 60}{n}@mail.example.com>" for n in range(5)),
    "unsubscribe_urls": ("https://x.example/" + "u" * 300, "mailto:u@x.example"),
    "headers": (("Feedback-ID", "a:b:c:d"), ("X-Double", "a  b"), ("X-Tab", "w " * 60)),
    "attachments": (Attachment("发票.pdf", bytes(range(256)) * 2000), Attachment("a.txt", b"hi \t \n\n\n")),
}


@pytest.mark.parametrize("keys", [(RSA,), (ED25519,), BOTH])
@pytest.mark.parametrize("given", [{}, RICH, {"html": None, "text": ""}, {"html": None, "text": "a  b \t\n \n\n\n"},
                                   {"html": "<p>  x</p>\n" * 9000, "text": "plain  words \n" * 9000}])  # fmt: skip
def test_what_is_signed_is_verified(keys: tuple[DkimKey, ...], given: dict[str, Any], verify: Verify) -> None:
    assert verify(signed(keys, **given), keys) == ["pass"] * len(keys)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn", "Zl", "Zp"], exclude_characters="\0"), max_size=200)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT, html=TEXT, subject=st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"])))
def test_any_words_verify(text: str, html: str, subject: str, by_mailauth: Verify) -> None:
    raw = signed((ED25519,), text=text, html=html, subject=subject[:900])
    assert by_dkimpy(raw, BOTH) == by_mailauth(raw, BOTH) == ["pass"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b" \r\n", b"b  c", b"=_x"]), max_size=14),
    cut=st.integers(0, 40),
)
def test_white_space_and_empty_lines_are_hashed_alike_wherever_the_pieces_are_cut(
    pieces: list[bytes], cut: int, by_mailauth: Verify
) -> None:
    body = b"".join(pieces)
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    head = b"From: a@163.com\r\nSubject:  x\t y\r\n\r\n"
    cut = min(cut, len(body))
    while body[cut - 1 : cut] == b"\r":
        cut += 1
    segments = (head + body[:cut], body[cut:])
    raw = sign(segments, (ED25519,), AT) + head + body
    assert by_dkimpy(raw, BOTH) == by_mailauth(raw, BOTH) == ["pass"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.replace(b"Subject: ", b"Subject: x ", 1),
        lambda raw: raw.replace(b"\r\nFrom: ", b"\r\nFrom: evil@x.example\r\nFrom: ", 1),
        lambda raw: b"Subject: another\r\n" + raw,
        lambda raw: b"From: evil@x.example\r\n" + raw,
        lambda raw: b"To: evil@x.example\r\n" + raw,
        lambda raw: b"Reply-To: evil@x.example\r\n" + raw,
        lambda raw: b"Cc: evil@x.example\r\n" + raw,
        lambda raw: b"List-Unsubscribe: <https://evil.example/>\r\n" + raw,
        lambda raw: raw.replace(b"Content-Type: ", b"Content-Type: text/html\r\nContent-Type: ", 1),
        lambda raw: raw + b"one more line\r\n",
        lambda raw: b"Sender: ceo@bank.example\r\n" + raw,
        lambda raw: b"Content-Transfer-Encoding: base64\r\n" + raw,
        lambda raw: b"In-Reply-To: <victim@x.example>\r\n" + raw,
        lambda raw: b"References: <victim@x.example>\r\n" + raw,
        lambda raw: b"Importance: high\r\n" + raw,
        lambda raw: b"List-Post: <mailto:evil@x.example>\r\n" + raw,
        lambda raw: b"List-Help: <https://evil.example/>\r\n" + raw,
        lambda raw: raw.replace(b"Date: ", b"Date: Mon, 01 Jan 2001 00:00:00 +0000\r\nX-Old: ", 1),
    ],
)  # fmt: skip
def test_what_is_changed_or_added_is_noticed(damage: Any, verify: Verify) -> None:
    results = verify(damage(signed()), BOTH)
    assert len(results) == 2
    assert set(results) <= {"fail", "neutral"}  # mailauth calls a body that does not fit neutral


def test_relaxed_changes_on_the_way_are_allowed(verify: Verify) -> None:
    raw = signed().replace(b"Subject: ", b"SUBJECT:   ", 1).replace(b"\r\n\r\n--", b" \r\n\r\n--", 1) + b"\r\n\r\n"
    assert verify(raw, BOTH) == ["pass", "pass"]


def test_what_the_relay_writes_anew_is_not_signed(verify: Verify) -> None:
    raw = signed(rule=SenderRule("ses", rewritten_fields=("date", "message-id")))
    raw = re.sub(rb"Message-ID: [^\r]*", b"Message-ID: <other@email.amazonses.com>", raw)
    raw = re.sub(rb"Date: [^\r]*", b"Date: Mon, 01 Jan 2001 00:00:00 +0000", raw)
    assert verify(raw, BOTH) == ["pass", "pass"]


def test_a_signature_is_the_same_at_every_attempt_and_stands_before_the_message() -> None:
    plain = b"".join(compose(draft()).segments)
    first, second = signed(), signed()
    assert first == second
    assert first.endswith(plain)
    fields = first[: -len(plain)].decode("ascii")
    assert [line[:15] for line in fields.split("\r\n") if line and line[0] != " "] == ["DKIM-Signature:"] * 2
    assert all(len(line) <= 78 for line in fields.split("\r\n"))
    assert "t=1764000000;" in fields
    assert "l=" not in re.sub(r"b(h)?=[^;]*", "", fields)
    assert len(fields) <= 2 * SIGNATURE_ROOM


def test_a_fold_in_the_middle_of_a_field_list_is_read(verify: Verify) -> None:
    """`h=` is longer than a line as soon as fields are oversigned."""
    raw = signed(**RICH)
    field_list = re.search(rb"h=([^;]*);", raw)
    assert field_list is not None
    assert b"\r\n" in field_list[1]
    assert b"from:from:" in field_list[1].replace(b"\r\n  ", b"")
    assert verify(raw, BOTH) == ["pass", "pass"]


def test_large_attachments_are_signed_without_being_copied() -> None:
    import tracemalloc

    made = compose(draft(attachments=(Attachment("big.bin", b"x" * 8_000_000),)))
    tracemalloc.start()
    sign(made.segments, (ED25519,), AT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


# --- which keys -----------------------------------------------------------------------------------------------------


def test_every_valid_key_of_the_senders_domain_signs() -> None:
    old = DkimKey("a.example", "old", ED25519.private, until=AT)
    new = DkimKey("a.example", "new", ED25519.private, since=AT)
    other = DkimKey("b.example", "other", ED25519.private)
    ring = DkimRing((old, new, other), subdomains=("b.example",))
    assert [key.selector for key in ring.for_sender("x@a.example", AT - 1)] == ["old"]
    assert [key.selector for key in ring.for_sender("x@A.Example", AT)] == ["new"]
    assert [key.selector for key in ring.for_sender("x@news.b.example", AT)] == ["other"]
    assert ring.for_sender("x@news.a.example", AT) == ()
    assert ring.for_sender("x@example", AT) == ()
    assert ring.for_sender("x@notb.example", AT) == ()
    assert DkimRing().for_sender("x@a.example", AT) == ()


def test_a_rewritten_sender_is_signed_by_the_keys_of_the_login() -> None:
    made = compose(draft(from_=parse_mailbox("a@asked.example", "#")))
    rule = SenderRule("r", "login@163.com", must_equal_login=True, rewrite_from=True)
    asked = DkimKey("asked.example", "no", ED25519.private)
    sealed = seal(made.segments, "a@asked.example", "a@asked.example", rule, DkimRing((asked, *BOTH)), AT)
    assert sealed.signed_by == (RSA.label, ED25519.label)
    assert by_dkimpy(b"".join(sealed.segments), BOTH) == ["pass", "pass"]


def test_a_relay_may_send_unsigned() -> None:
    assert b"DKIM" not in signed(rule=SenderRule("r", dkim=False))
    assert b"DKIM" not in signed(keys=(DkimKey("other.example", "x", ED25519.private),))


def test_a_time_without_a_valid_key_is_told() -> None:
    first = DkimKey("a.example", "first", ED25519.private, until=AT)
    late = DkimKey("a.example", "late", ED25519.private, since=AT + 5)
    assert DkimRing((first, late)).gaps(AT - 9) == [("a.example", AT)]
    assert DkimRing((first,)).gaps(AT + 1) == [("a.example", AT + 1)]
    assert DkimRing((first, DkimKey("a.example", "next", ED25519.private, since=AT))).gaps(AT - 9) == []
    assert DkimRing((first, late)).knows("x@a.example")
    assert not DkimRing((first,)).knows("x@b.example")


def test_repeated_fields_are_signed_from_the_bottom_up(verify: Verify) -> None:
    """RFC 6376 5.4.2: whoever takes them from the top signs another one."""
    raw = b"From: a@163.com\r\nFeedback-ID: one\r\nFeedback-ID: two\r\nSubject: x\r\n\r\nbody\r\n"
    signatures = sign((raw,), BOTH, AT)
    assert verify(signatures + raw, BOTH) == ["pass", "pass"]
    without = raw.replace(b"Feedback-ID: one\r\n", b"", 1)
    assert "pass" not in verify(signatures + without, BOTH)


def test_records_are_what_verifiers_read() -> None:
    assert RSA.record.startswith("v=DKIM1; k=rsa; p=MII")
    assert re.fullmatch(r"v=DKIM1; k=ed25519; p=[A-Za-z0-9+/]{43}=", ED25519.record)
    strings = re.findall(r'"([^"]*)"', zone_line(RSA))
    assert "".join(strings) == RSA.record
    assert all(len(each) <= 255 for each in strings)


@pytest.mark.parametrize(("text", "good"), [("s1", True), ("a.b-c", True), ("", False), ("-a", False), ("a..b", False), ("a_b", False), ("a" * 64, False)])  # fmt: skip
def test_a_selector_is_made_of_labels(text: str, good: bool) -> None:
    assert is_selector(text) is good


def openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "is no private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is no private key in PEM"),
        (("genrsa", "1024"), "has 1024 bits"),
        (("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), "neither an RSA nor an Ed25519"),
        (("genrsa", "-aes128", "-passout", "pass:x", "2048"), "is encrypted"),
    ],
)
def test_a_key_that_must_not_sign_is_refused_with_its_reason(pem: Any, why: str) -> None:
    given = pem if isinstance(pem, bytes) else openssl(*pem)
    with pytest.raises(ValueError, match=why) as caught:
        load_private(given)
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [("genrsa", "2048"), ("genrsa", "-traditional", "2048"), ("genpkey", "-algorithm", "ed25519")]
)
def test_keys_that_openssl_makes_are_read(arguments: tuple[str, ...]) -> None:
    key = DkimKey("163.com", "s", load_private(openssl(*arguments)))
    assert by_dkimpy(signed((key,)), (key,)) == ["pass"]
