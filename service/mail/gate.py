"""The gate: composed bytes are read again, by a parser that shares no code with the writer, before they are stored.

The header block must hold exactly the intended names in the intended order, and nothing that could be read as a second
header, a second message, or a line that a relay would break. A violation is our bug: a 500 with an alert.
"""

from functools import lru_cache

from service.errors import ComposeViolation
from service.mail.compose import Composed
from service.mail.headers import LIMIT
from service.mail.line_ends import has_bare_line_end, in_lines_of_76

_ONCE = ("Date", "From", "Message-ID", "Subject", "MIME-Version", "To", "Cc", "Reply-To", "Sender")
_REQUIRED = frozenset({"Date", "From", "Message-ID", "Subject", "MIME-Version"})
_NEVER = {"bcc", "return-path", "received", "resent-to", "resent-bcc"}


def inspect(composed: Composed) -> None:
    """Raises ComposeViolation."""
    for segment in composed.segments:
        _inspect_lines(segment, utf8=composed.smtputf8)
    end = composed.segments[0].find(b"\r\n\r\n")
    if end < 0:
        raise ComposeViolation("the first segment holds no end of the header block")
    names = _names(composed.segments[0][:end])
    if names != composed.headers:
        raise ComposeViolation(f"header fields are {names}, intended were {composed.headers}")
    if violation := _violation(names):
        raise ComposeViolation(violation)


@lru_cache(maxsize=256)  # most messages have the same fields
def _violation(names: tuple[str, ...]) -> str:
    """What is wrong with fields of these names; nothing of most."""
    for name in _ONCE:
        if names.count(name) > 1:
            return f"{name} stands {names.count(name)} times"
    if _REQUIRED.difference(names):
        return "a required header field is missing"
    if _NEVER.intersection(map(str.lower, names)):
        return "a header field stands there that is never written"
    return ""


def _inspect_lines(segment: bytes, *, utf8: bool) -> None:
    if b"\0" in segment:
        raise ComposeViolation("a NUL octet")
    if not utf8 and not segment.isascii():
        raise ComposeViolation("an octet over 127 in a 7-bit message")
    if in_lines_of_76(segment):
        return
    if has_bare_line_end(segment):
        raise ComposeViolation("a bare CR or LF")
    if _has_long_line(segment):
        raise ComposeViolation("a line over 998 octets")  # RFC 5322 2.1.1


def _has_long_line(segment: bytes) -> bool:
    """Whether a line is over 998: from the last end of a line within reach of one to the next such, not line by line."""
    at = 0
    while len(segment) - at > LIMIT:
        end = segment.rfind(b"\n", at, at + LIMIT + 2)
        if end < 0:
            return True
        at = end + 1
    return False


def _names(block: bytes) -> tuple[str, ...]:
    names: list[str] = []
    for line in block.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if not names or not line.strip():
                raise ComposeViolation("a folded line without field or content")
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not name or name.strip() != name:
            raise ComposeViolation("a line in the header block that is no field")
        names.append(name.decode("ascii", "replace"))
    return tuple(names)
