"""The linter itself: it is silent on good bytes, and each of its rules fires on bytes that break it.

The good message is written here by hand, so that neither the composer nor the linter can agree with itself.
"""

from collections import Counter

import pytest

from tests.support.rfc_lint import RULES, lint

GOOD = """\
Date: Mon, 24 Nov 2025 16:00:00 +0000
From: =?UTF-8?B?6YK5?= <zou@example.com>
Sender: Robot <robot@example.com>
Reply-To: "Help, Desk" <help@example.com>
To: a@example.org, B <b@example.org>
Message-ID: <01abc@example.com>
In-Reply-To: <first@example.org>
References: <zeroth@example.org> <first@example.org>
Subject: =?UTF-8?B?5rWL6K+V?= =?UTF-8?Q?caf=C3=A9?=
List-Unsubscribe: <https://example.com/u?a=1>, <mailto:u@example.com>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
Feedback-ID: a:b:c:d
MIME-Version: 1.0
Content-Type: multipart/mixed;
 boundary="=_mix"

--=_mix
Content-Type: multipart/related; type="text/html";
 boundary="=_rel"

--=_rel
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

caf=C3=A9 =
and a long line
--=_rel
Content-Type: image/png;
 name="=?UTF-8?B?5rWL?="
Content-Transfer-Encoding: base64
Content-Disposition: inline;
 filename*0*=UTF-8''%E6%B5%8B;
 filename*1*=.png
Content-ID: <logo>

iVBORw==
--=_rel--
--=_mix
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit
Content-Disposition: attachment;
 filename="a b.txt"

plain
--=_mix--
"""
LONG = "word " * 20 + "word"
LONGEST_WORD = "=?UTF-8?B?" + "YWFh" * 16 + "?="  # 76

BROKEN = {
    "bare-line-end": [("plain\r\n", "plain\n"), ("plain\r\n", "plain\r\r\n")],
    "nul": [("plain\r\n", "pl\0ain\r\n")],
    "eight-bit": [("plain\r\n", "plän\r\n")],
    "utf-8": [("B <b@", "\udcff <b@")],
    "line-998": [("plain\r\n", "x" * 999 + "\r\n")],
    "ends-with-crlf": [("--=_mix--\r\n", "--=_mix--")],
    "header-end": [('"a b.txt"\r\n\r\n', '"a b.txt"\r\n'), ("\r\n\r\n", "\r\n")],
    "fold-78": [
        ("Feedback-ID:", f"X-Long: {LONG}\r\nFeedback-ID:"),
        ('"Help, Desk"', f'"Help, {LONG}"'),
        (";\r\n boundary", ";" + " " * 60 + "boundary"),
    ],
    "fold-blank": [("MIME-Version: 1.0", "MIME-Version: 1.0\r\n \t")],
    "field-name": [
        ("Feedback-ID:", "Feedback ID:"),
        ("Feedback-ID:", "no field\r\nFeedback-ID:"),
        ("Subject: ", "Subject:"),
        ("Content-ID: <logo>", "Content-ID <logo>"),
    ],
    "once": [
        (f"{name}: ", f"{name}: 1.0\r\n{name}: ") for name in ("Date", "From", "To", "Subject", "MIME-Version", "Content-ID")
    ],
    "required": [(f"\r\n{name}:", "\r\nX-Other:") for name in ("From", "Message-ID", "Subject", "MIME-Version", "To")],
    "never": [
        ("To: a@", "Bcc: x@example.org\r\nTo: a@"),
        ("To: a@", "Received: from x\r\nTo: a@"),
        ("Date: ", "Resent-To: a@example.org\r\nDate: "),
    ],
    "date": [
        ("Mon, 24", "Tue, 24"),
        ("+0000", "GMT"),
        ("+0000", "+0060"),
        ("24 Nov", "31 Nov"),
        ("Nov 2025", "nov. 2025"),
        ("16:00:00", "24:00:00"),
        ("Mon, 24", "24"),
    ],
    "message-id": [("<01abc@", "01abc@"), ("<01abc@", "<01 abc@"), ("<01abc@", "<01abc."), ("<01abc@", "<测@")],
    "references": [("<zeroth@example.org> ", "zeroth "), ("To: <first@example.org>", "To: first")],
    "from": [
        ("<zou@example.com>", "zou"),
        ("<zou@example.com>", "<zou@example.com>, <b@example.com>"),
        ("Robot <robot@", "Robot, X <robot@"),
        ("Robot <robot@", "Robot <rob..ot@"),
    ],
    "recipients": [
        ("a@example.org,", "a@example.org"),
        ("a@example.org,", "a@,"),
        ('"Help, Desk"', "Help, Desk"),
        ("B <b@", "(B) <b@"),
        ("B <b@example.org>", "B <b@[127.0.0.1]>"),
    ],
    "word-75": [("=?UTF-8?B?6YK5?=", LONGEST_WORD), ('"=?UTF-8?B?5rWL?="', f'"{LONGEST_WORD}"')],
    "word-line-76": [("?= <zou@", f"?= {'z' * 60} <zou@")],
    "word-whole": [
        ("?B?5rWL6K+V?=", "?B?5rWL6K8=?="),  # ends amid a character
        ("?B?5rWL6K+V?=", "?B?5rWL6K+?="),  # no padding
        ("?B?5rWL6K+V?=", "?B?DQpCY2M6?="),  # CR LF Bcc:
        ("UTF-8?Q", "X-NONE?Q"),
        ("=C3=A9?=", "=C3?="),
    ],
    "word-apart": [("?= =?", "?==?"), ("Subject: =?", "Subject: x=?"), ("?= <zou@", "?=<zou@")],
    "word-quoted": [
        ('"Help, Desk"', '"=?UTF-8?B?6YK5?="'),
        ('filename="a b.txt"', 'filename="=?UTF-8?B?6YK5?="'),
        ("charset=utf-8", 'charset="=?UTF-8?B?6YK5?="'),
    ],
    "word-address": [("<zou@", "<=?UTF-8?B?6YK5?=@"), ("a@example.org", "=?UTF-8?Q?a?=@example.org")],
    "word-structured": [
        ("a:b:c:d", "=?UTF-8?B?6YK5?="),
        ("<01abc@", "<=?UTF-8?B?6YK5?=@"),
        ("<first@", "<=?UTF-8?Q?x?=@"),
        ("u?a=1>", "u?a=?UTF-8?Q?x?=>"),
        ("<logo>", "<=?UTF-8?Q?x?=>"),
    ],
    "mime-version": [("MIME-Version: 1.0", "MIME-Version: 1.1")],
    "content-type": [
        ("Type: image/png", "Type: image"),
        ("Type: image/png", "Type: image/png x"),
        ("; charset=utf-8", "; charset=utf-8; Charset=utf-8"),
    ],
    "disposition": [("Disposition: inline", "Disposition: somewhere"), ("Disposition: inline", "Disposition: in line")],
    "parameters": [
        ("filename*1*", "filename*2*"),
        ("filename*0*", "filename*1*"),
        ("UTF-8''%E6", "%E6"),
        ("%E6%B5%8B", "%E6%B5"),
        ("%E6%B5%8B", "%ZZ"),
        ("charset=utf-8", "charset=utf/8"),
    ],
    "encoding": [("Encoding: 7bit", "Encoding: 9bit"), ("plain\r\n", "plän\r\n")],
    "composite": [("--=_mix\r\n", "--=_mix\r\nContent-Transfer-Encoding: base64\r\n")],
    "boundary": [("=_mix", "=_" + "m" * 69), ("=_mix", "=_mix "), ("=_mix", "=*mix"), (' boundary="=_rel"', " x=y")],
    "boundary-inside": [
        ("plain\r\n", "plain\r\n--=_mix\r\n"),
        ("plain\r\n", "plain\r\n--=_mixed\r\n"),
        ("plain\r\n", "plain =_mix\r\n"),
        ("=_rel", "=_mixture"),
    ],
    "boundary-closing": [
        ("--=_mix--\r\n", "\r\n"),
        ("--=_rel--\r\n", "\r\n"),
        ("--=_mix--\r\n", "--=_mix--\r\nmore\r\n"),
        ("\r\n\r\n--=_mix", "\r\n\r\nbefore\r\n--=_mix"),
        ("plain\r\n", "plain\r\n--=_mix--\r\n"),
    ],
    "base64": [
        ("iVBORw==", "iVBORw"),
        ("iVBORw==", "iVB_Rw=="),
        ("iVBORw==", "iVBORw== "),
        ("iVBORw==", "YWFh" * 20),
    ],
    "quoted-printable": [
        ("=A9 =", "=A9 "),
        ("=A9 =", "=a9 ="),
        ("=A9 =", "=A ="),
        ("=A9 =", "=A9\x01="),
        ("long line", "x" * 80),
        ("long line", "long line\t"),
    ],
    "related": [('type="text/html"', 'type="image/png"'), ('; type="text/html"', "")],
    "content-id": [("<logo>", "logo"), ("<logo>", "<lo go>"), ("--=_mix\r\nContent-Type: text", "--=_mix\r\nContent-ID: <logo>\r\nContent-Type: text")],
    "list-unsubscribe": [("<https://", "https://"), ("<https://", "<http://"), ("a=1>, ", "a=1> ")],
    "one-click": [("<https://example.com/u?a=1>, ", ""), ("=One-Click", "=Yes"), ("List-Unsubscribe:", "X-Other:")],
}  # fmt: skip


def octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def good() -> str:
    return GOOD.replace("\n", "\r\n")


def fired(raw: bytes) -> set[str]:
    """The ids of the rules that found something; with and without SMTPUTF8 for the one rule that depends on it."""
    return {fault.split(" ")[0] for eai in (False, True) for fault in lint(raw, eai=eai)}


def test_a_good_message_has_no_fault() -> None:
    assert lint(octets(good())) == []


def test_utf8_in_fields_is_good_when_sent_with_smtputf8_and_not_without() -> None:
    raw = octets(good().replace("B <b@", "用户 <用户@"))
    assert lint(raw, eai=True) == []
    assert [fault.split(" ")[0] for fault in lint(raw)] == ["eight-bit"]


def test_each_rule_has_an_id_of_its_own_and_bytes_that_break_it() -> None:
    assert max(Counter(rule.id for rule in RULES).values()) == 1
    assert {rule.id for rule in RULES} == set(BROKEN)


@pytest.mark.parametrize(
    ("rule", "old", "new"), [(rule, *change) for rule, changes in BROKEN.items() for change in changes]
)
def test_a_rule_fires_on_bytes_that_break_it(rule: str, old: str, new: str) -> None:
    raw = good()
    assert old in raw
    everywhere = old in {"=_mix", "=_rel", "\r\n\r\n"}
    assert rule in fired(octets(raw.replace(old, new, -1 if everywhere else 1)))


def test_bytes_without_any_form_are_faulty_and_never_raise() -> None:
    for raw in (
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"x",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n",
        bytes(range(256)),
    ):
        assert lint(raw) != []
