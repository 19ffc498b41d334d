"""Header fields as bytes: encoding (RFC 2047), folding (RFC 5322 2.2.3), and which names a caller may not set.

Unstructured text and display names become encoded words when they must; structured fields (Message-ID, References,
List-*, Feedback-ID) are never encoded: they fold at white space and long tokens pass 78.
"""

import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from service.errors import FieldProblem, pointer_step
from service.mail.address import FORBIDDEN, Mailbox

FOLD = 76  # RFC 2047 2: no longer line may hold an encoded word; RFC 5322 2.1.1 would allow 78
LIMIT = 998  # RFC 5322 2.1.1: MUST
_WORD = 75  # RFC 2047 2: longest encoded word
_WORD_FRAME = len("=?UTF-8?B?" + "?=")

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 3.6.8: printable ASCII but colon
_PLAIN = re.compile(r"[\x20-\x7e]*")
_PHRASE_SAFE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_ENCODED_LOOK = re.compile(r"=\?|\?=")
ENCODED_WORD = re.compile(r"=\?[^?]*\?[BbQq]\?")  # begins what some reader decodes wherever it stands (RFC 2047 5)

_OWN_FIELD = {  # header -> the request's field that sets it
    "from": "from",
    "to": "to",
    "cc": "cc",
    "bcc": "bcc",
    "reply-to": "reply_to",
    "sender": "sender",
    "subject": "subject",
    "in-reply-to": "in_reply_to",
    "references": "references",
    "list-unsubscribe": "unsubscribe_url",
    "list-unsubscribe-post": "unsubscribe_url",
}
_OURS = {
    "date",
    "message-id",
    "received",
    "return-path",
    "authentication-results",
    "delivered-to",
    "auto-submitted",
    "dkim-signature",
    "domainkey-signature",
    "apparently-to",
    "errors-to",
    "disposition-notification-to",
    "return-receipt-to",
    "x-confirm-reading-to",
    "envelope-to",
    "x-original-to",
    "x-envelope-from",
    "received-spf",
    "bimi-selector",
    "bimi-location",
    "encoding",
    "lines",
    "status",
    "x-status",
    "x-uid",
}
# commands to providers (SendGrid, SparkPost, Mandrill) that add recipients behind the envelope
_ADDS_RECIPIENTS = {"x-smtpapi", "x-msys-api", "x-mc-bccaddress"}
_OURS_PREFIX = ("mime-", "content-", "arc-", "resent-", "x-postroom-", "downgraded-")
STRUCTURED = {"feedback-id", "list-id", "list-help", "list-post", "list-owner", "list-archive", "list-subscribe"}


def check_custom_headers(headers: Iterable[tuple[str, str]]) -> list[FieldProblem]:
    """Every fault of caller-given header fields, by name."""
    problems: list[FieldProblem] = []
    seen: dict[str, str] = {}
    for name, value in headers:
        problem = _check_header(name, value, seen)
        if problem is not None:
            problems.append(FieldProblem(f"#/headers/{pointer_step(name)}", *problem))
        seen.setdefault(name.lower(), name)
    return problems


def _check_header(name: str, value: str, seen: Mapping[str, str]) -> tuple[str, str] | None:
    lowered = name.lower()
    if _FIELD_NAME.fullmatch(name) is None:
        return "invalid_header_name", "a header name is 1 to 76 printable ASCII characters without colon or space"
    if lowered in _OWN_FIELD:
        return "header_not_allowed", f"{name} has a field of its own: use `{_OWN_FIELD[lowered]}`"
    if lowered in _ADDS_RECIPIENTS:
        return "header_not_allowed", f"{name} can add recipients behind the envelope: use to, cc, bcc"
    if lowered in _OURS or lowered.startswith(_OURS_PREFIX):
        return "header_not_allowed", f"{name} is set by the service"
    if seen.get(lowered, name) != name:
        return "header_repeated", f"{name} is given twice in different case"
    if FORBIDDEN.search(value):
        return "control_character", f"the value of {name} holds a control character"
    if lowered in STRUCTURED and seen.get(lowered) == name:
        return "header_repeated", f"{name} stands once"
    if lowered in STRUCTURED and not value.isascii():
        return "invalid_header_value", f"{name} is a structured field: ASCII only"
    if lowered in STRUCTURED and ENCODED_WORD.search(value):
        return "invalid_header_value", f"{name} is a structured field: no encoded words"
    if lowered in STRUCTURED and any(len(token) > LIMIT - 80 for token in value.split(" ")):
        return "header_too_long", f"{name} holds a token that does not fit a line of {LIMIT} octets"
    if len(value.encode("utf-8", "replace")) > 16_384:
        return "header_too_long", f"{name} is longer than 16384 octets"
    return None


# --- values -----------------------------------------------------------------------------------------------------


def encode_words(text: str, before: str = "") -> list[str]:
    """Text as RFC 2047 encoded words, each <= 75 and split between characters; the first fits a line behind `before`."""
    words: list[str] = []
    raw = text.encode()
    room = _room(FOLD - len(before) - 1) if before else _ROOM
    if room < _SMALLEST:
        room = _ROOM  # fold() will begin a new line
    at = 0
    while len(raw) - at > room:
        end = at + room
        while raw[end] & 0xC0 == 0x80:  # in the middle of a character (RFC 3629 3)
            end -= 1
        words.append(_word(raw[at:end]))
        at, room = end, _ROOM
    if at < len(raw):
        words.append(_word(raw[at:]))
    return words


def _room(length: int) -> int:
    """Octets of text that an encoded word of this length holds."""
    return (length - _WORD_FRAME) // 4 * 3


_ROOM = _room(_WORD)
_SMALLEST = 6  # octets: any character in UTF-8, in whole groups of three


def _word(chunk: bytes) -> str:
    return "=?UTF-8?B?" + binascii.b2a_base64(chunk, newline=False).decode() + "?="


def unstructured(name: str, text: str) -> str:
    """A field of free text: as it is when plain ASCII, else encoded words. Returns the whole field with CRLF."""
    plain = _PLAIN.fullmatch(text) is not None and not _ENCODED_LOOK.search(text)
    # white space at either end, runs of it, and tokens too long for a line survive only inside encoded words
    if plain and text == text.strip(" ") and "  " not in text and not _has_long_token(text):
        return fold(name, text.split(" "))
    return fold(name, encode_words(text, f"{name}:"))


def _has_long_token(text: str) -> bool:
    return len(text) > 175 and any(len(token.encode()) > 700 for token in text.split(" "))


def utf8_unstructured(name: str, text: str) -> str:
    """The same for an internationalised message (RFC 6532): UTF-8 as it is, unless a reader would trim or refold it."""
    if text == text.strip() and "  " not in text and not _ENCODED_LOOK.search(text) and not _has_long_token(text):
        return fold(name, text.split(" "))
    return fold(name, encode_words(text, f"{name}:"))


def structured(name: str, text: str) -> str:
    """A field that must not be encoded: folds at white space only."""
    return fold(name, text.split())


def phrase(name: str, utf8: bool, before: str = "") -> list[str]:
    """A display name as tokens: an atom phrase, a quoted string that fits a line, or encoded words.

    RFC 5322 3.2.5, RFC 2047 5. What stands `before` it on the line counts for the first word.
    """
    if not name:
        return []
    if _PHRASE_SAFE.fullmatch(name) and "  " not in name and not _ENCODED_LOOK.search(name) and len(name) < 200:
        return name.split(" ")
    quoted = '"' + _quoted(name) + '"'
    if (utf8 or name.isascii()) and not _ENCODED_LOOK.search(name) and len(before) + 1 + len(quoted) <= FOLD:
        return [quoted]
    return encode_words(name, before)


def addresses(name: str, mailboxes: Sequence[Mailbox], utf8: bool) -> str:
    """An address list field."""
    tokens: list[str] = []
    for index, mailbox in enumerate(mailboxes):
        comma = "," if index < len(mailboxes) - 1 else ""
        words = phrase(mailbox.name, utf8, "" if index else f"{name}:")
        tokens += words
        tokens.append((f"<{mailbox.email}>" if words else mailbox.email) + comma)
    return fold(name, tokens)


def fold(name: str, tokens: Sequence[str]) -> str:
    """`Name: tokens`, folded before a token that would pass column 76; a token is never split.

    The first token stays on the first line, where most readers look for it, unless it is an encoded word that a
    long field name leaves no room for.
    """
    line = " ".join((f"{name}:", *tokens))
    if len(line) <= FOLD:
        return line + "\r\n"
    line = f"{name}:"
    lines: list[str] = []
    for index, token in enumerate(tokens):
        if (index or token.startswith("=?UTF-8?B?")) and len(line) + 1 + len(token) > FOLD:
            lines.append(line)
            line = ""
        line += " " + token
    lines.append(line)
    return "\r\n".join(lines) + "\r\n"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date(ms: int) -> str:
    """RFC 5322 3.3 date-time in UTC. Not strftime: its names follow the process's locale."""
    return _date(ms // 1000)


@lru_cache(maxsize=16)  # thousands of messages are made in one second
def _date(seconds: int) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year} {at:%H:%M:%S} +0000"


def parameters(values: Mapping[str, str]) -> str:
    """MIME parameters, each on a line of its own; values are ASCII here."""
    return "".join(f';\r\n {name}="{_quoted(value)}"' for name, value in values.items())


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
