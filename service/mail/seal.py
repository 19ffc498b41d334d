"""The last step before MAIL FROM: a relay's sender rule on composed bytes, then DKIM. Same rule and keys, same bytes.

Most consumer providers demand that envelope and From equal the login. A rule either refuses another sender (the
trial seal at accept makes that a 422) or rewrites it: envelope and From take the login, the display name stays, and
the address that was asked for becomes Reply-To. The keys of the domain that then stands in From sign (mail/dkim).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from service.errors import FieldProblem, SenderNotAccepted
from service.mail.address import email_key
from service.mail.dkim import sign
from service.mail.dkim_keys import DkimKey, DkimRing
from service.mail.headers import fold

_FROM = re.compile(rb"(?m)^From:(?:[^\r\n]|\r\n[ \t])*")
_REPLY_TO = re.compile(rb"(?m)^Reply-To:")
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')  # of the one mailbox: words or a quoted string, then the address


@dataclass(frozen=True, slots=True)
class SenderRule:
    """What a relay demands of the sender."""

    relay: str
    login: str = ""
    must_equal_login: bool = False
    rewrite_from: bool = False
    dkim: bool = True  # False: the relay's mail goes out without our signature
    rewritten_fields: tuple[str, ...] = ()  # lower-case names that the relay writes anew: never signed

    @property
    def id(self) -> str:
        """The same for rules that put the same sender on a message; the attempt keeps it. Most keep the one asked for."""
        return _id_of(self.login if self.must_equal_login and self.rewrite_from else None)


@cache
def _id_of(sender: str | None) -> str:
    return hashlib.sha256(repr(sender).encode()).hexdigest()[:12]


@dataclass(slots=True)
class Sealed:
    """What goes on the wire."""

    segments: tuple[bytes, ...]
    envelope_from: str
    header_from: str
    rule_id: str
    rewritten: bool
    signed_by: tuple[str, ...] = ()  # labels of the DKIM keys


def seal(
    segments: Sequence[bytes],
    envelope_from: str,
    header_from: str,
    rule: SenderRule,
    ring: DkimRing | None = None,
    at: int = 0,
) -> Sealed:
    """Apply `rule`, then sign with the keys that `ring` has for the sender at that time (ms, the same at each attempt).

    Without a ring it is the trial of a request. Raises SenderNotAccepted naming the address it must be.
    """
    sealed = Sealed(tuple(segments), envelope_from, header_from, rule.id, rewritten=False)
    if _must_rewrite(envelope_from, header_from, rule):
        block = _rewrite(segments[0], rule.login)
        sealed = Sealed((block, *segments[1:]), rule.login, rule.login, rule.id, rewritten=True)
    if ring is None or not (keys := signers(ring, sealed.header_from, rule, at)):
        return sealed
    signatures = sign(sealed.segments, keys, at, rule.rewritten_fields)
    segments = (signatures + sealed.segments[0], *sealed.segments[1:])
    return replace(sealed, segments=segments, signed_by=tuple(key.label for key in keys))


def signers(ring: DkimRing, header_from: str, rule: SenderRule, at: int) -> tuple[DkimKey, ...]:
    """The keys that sign for this From address through a relay: those of its domain, so that DMARC aligns (RFC 7489 3.1.1)."""
    return ring.for_sender(header_from, at) if rule.dkim else ()


def takes_sender(envelope_from: str, header_from: str, rule: SenderRule) -> bool:
    """Whether a message of that sender can be sealed by the rule."""
    try:
        _must_rewrite(envelope_from, header_from, rule)
    except SenderNotAccepted:
        return False
    return True


def _must_rewrite(envelope_from: str, header_from: str, rule: SenderRule) -> bool:
    """Whether the login takes the sender's place. Raises SenderNotAccepted when the rule only refuses."""
    if not rule.must_equal_login:
        return False
    login = email_key(rule.login)
    if email_key(header_from) == login and email_key(envelope_from) == login:
        return False
    if rule.rewrite_from:
        return True
    pointer = "#/from" if email_key(header_from) != login else "#/envelope_from"
    detail = f"relay {rule.relay} sends only as {rule.login}"
    raise SenderNotAccepted(detail, errors=[FieldProblem(pointer, SenderNotAccepted.code, detail)])


def _rewrite(head: bytes, login: str) -> bytes:
    """From takes the login; what was asked for becomes Reply-To unless there is one."""
    block, mark, rest = head.partition(b"\r\n\r\n")
    found = _FROM.search(block)
    assert found is not None
    tokens = _TOKENS.findall(found[0].partition(b":")[2].decode().replace("\r\n", ""))
    address = f"<{login}>" if len(tokens) > 1 else login
    new = fold("From", [*tokens[:-1], address])
    if not _REPLY_TO.search(block):
        new += fold("Reply-To", tokens)
    return block[: found.start()] + new.encode().removesuffix(b"\r\n") + block[found.end() :] + mark + rest
