"""The last step before MAIL FROM: a relay's sender rule on composed bytes. Deterministic: same rule, same bytes.

Most consumer providers demand that envelope and From equal the login. A rule either refuses another sender (the
trial seal at accept makes that a 422) or rewrites it: envelope and From take the login, the display name stays, and
the address that was asked for becomes Reply-To. DKIM signs after the rule, here.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.errors import FieldProblem, SenderNotAccepted
from service.mail.address import email_key

_FROM = re.compile(rb"(?m)^From:(?:[^\r\n]|\r\n[ \t])*")
_REPLY_TO = re.compile(rb"(?m)^Reply-To:")
_ADDRESS = re.compile(rb"[^\s<>,]+@[^\s<>,]+(?=>?$)")


@dataclass(frozen=True, slots=True)
class SenderRule:
    """What a relay demands of the sender."""

    relay: str
    login: str = ""
    must_equal_login: bool = False
    rewrite_from: bool = False
    allowed: tuple[str, ...] = ()  # addresses or domains; empty = any

    @property
    def id(self) -> str:
        """The same for equal rules; the attempt keeps it."""
        text = repr((self.login, self.must_equal_login, self.rewrite_from))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Sealed:
    """What goes on the wire."""

    segments: tuple[bytes, ...]
    envelope_from: str
    rule_id: str
    rewritten: bool


def seal(segments: Sequence[bytes], envelope_from: str, header_from: str, rule: SenderRule) -> Sealed:
    """Apply `rule`. Raises SenderNotAccepted naming the address it must be."""
    if not rule.must_equal_login:
        return Sealed(tuple(segments), envelope_from, rule.id, rewritten=False)
    login = email_key(rule.login)
    if email_key(header_from) == login and email_key(envelope_from) == login:
        return Sealed(tuple(segments), envelope_from, rule.id, rewritten=False)
    if not rule.rewrite_from:
        pointer = "#/from" if email_key(header_from) != login else "#/envelope_from"
        detail = f"relay {rule.relay} sends only as {rule.login}"
        raise SenderNotAccepted(detail, errors=[FieldProblem(pointer, SenderNotAccepted.code, detail)])
    return Sealed((_rewrite(segments[0], rule.login), *segments[1:]), rule.login, rule.id, rewritten=True)


def _rewrite(head: bytes, login: str) -> bytes:
    """From takes the login; what was asked for becomes Reply-To unless there is one."""
    block, mark, rest = head.partition(b"\r\n\r\n")
    found = _FROM.search(block)
    assert found is not None
    old = found[0]
    new = _ADDRESS.sub(lambda _: login.encode(), old, count=1)
    block = block[: found.start()] + new + block[found.end() :]
    if not _REPLY_TO.search(block):
        reply_to = b"Reply-To:" + old.partition(b":")[2]
        end = found.start() + len(new)
        block = block[:end] + b"\r\n" + reply_to + block[end:]
    return block + mark + rest
