"""One strict grammar for addresses, the same for policy and for the wire.

Local part: dot-atom of at most 64 octets (RFC 5321 4.5.3.1.1); with non-ASCII characters RFC 6532's dot-atom, which
needs SMTPUTF8. Domain: letters, digits and hyphens, or IDNA, stored as A-labels. Quoted local parts, comments,
groups, routes, address literals and encoded words are legal somewhere and refused here: each has been used to
smuggle a recipient. The address on the wire is the stored one, byte for byte.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import idna

from service.errors import FieldProblem, ValidationFailed

MAX_ADDRESS = 254  # octets: RFC 5321 4.5.3.1.3 allows a path of 256 with its angle brackets
MAX_LOCAL = 64
MAX_DOMAIN = 253
MAX_NAME = 320  # characters of a display name

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"  # RFC 5322 3.2.3
_ASCII_LOCAL = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_UTEXT = rf"\u0080-\U0010ffff{_ATEXT}"
_UTF8_LOCAL = re.compile(rf"[{_UTEXT}]+(?:\.[{_UTEXT}]+)*")  # RFC 6532 3.2
_LDH = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NAMED = re.compile(r'(?:(?P<quoted>"(?:[^"\\]|\\.)*") *|(?P<bare>[^<>"]*))<(?P<email>[^<>]*)>')
_SPECIALS = re.compile(r"[,:;@()\[\]\\]")  # RFC 5322 3.2.3, but the dot of "J. Doe"
# CR, LF, NUL and the other C0 controls, DEL, C1 (with NEL U+0085), line and paragraph separators, lone surrogates
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# bidirectional controls and invisible marks that make a name read as another
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
SEVERAL = 'one address in a string; give a list: ["a@x.org", "b@x.org"]'


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address in wire form and its display name."""

    email: str
    name: str = ""

    @property
    def ascii(self) -> bool:
        """False: the message needs SMTPUTF8 (RFC 6531)."""
        return self.email.isascii()


def parse_mailbox(value: str, pointer: str) -> Mailbox:
    """`a@b` or `Name <a@b>`; the name may stand in double quotes. Raises ValidationFailed."""
    if FORBIDDEN.search(value):
        raise _problem(pointer, "holds a control character", "control_character")
    value = value.strip(" ")
    found = _NAMED.fullmatch(value) if "<" in value else None
    if not (found and found["quoted"]) and value.count("@") > 1 and ("," in value or ";" in value):
        raise _problem(pointer, SEVERAL)
    if "<" not in value and ">" not in value:
        return make_mailbox(value, "", pointer)
    if found is None:
        raise _problem(pointer, "must be `a@b` or `Name <a@b>`, one address")
    # a list, a group or a comment, of which one address would be read: never take part of it for a name
    if found["bare"] and _SPECIALS.search(found["bare"]):
        raise _problem(pointer, "must be one address; a name with , : ; @ ( ) [ ] or \\ stands in double quotes")
    return make_mailbox(found["email"], _unquoted(found["quoted"]) if found["quoted"] else found["bare"], pointer)


def make_mailbox(email: str, name: str, pointer: str) -> Mailbox:
    """A mailbox from its parts. Raises ValidationFailed."""
    if FORBIDDEN.search(name):
        raise _problem(pointer, "the display name holds a control character", "control_character")
    if len(name) > MAX_NAME:
        raise _problem(pointer, f"the display name is longer than {MAX_NAME} characters")
    return Mailbox(_normal(email, pointer), name.strip())


def _normal(email: str, pointer: str) -> str:
    if len(email) > 2 * MAX_ADDRESS:  # before anything is normalised: that takes time that grows with the square
        raise _problem(pointer, f"the address is longer than {MAX_ADDRESS} octets")
    if FORBIDDEN.search(email):
        raise _problem(pointer, "the address holds a control character", "control_character")
    local, at, domain = email.rpartition("@")
    if not at or not local or not domain:
        raise _problem(pointer, "must have the form local@domain")
    if "@" in local:
        raise _problem(pointer, "must hold one @")
    if "=?" in local:
        raise _problem(pointer, "an encoded word is no address")
    if local.isascii():
        valid = _ASCII_LOCAL.fullmatch(local) is not None
    else:
        local = unicodedata.normalize("NFC", local)  # RFC 6532 3.1
        # fullwidth and small forms of @ , < and others, which a careless reader takes for these
        plain = unicodedata.normalize("NFKC", local)
        valid = local.isprintable() and all(_UTF8_LOCAL.fullmatch(form) is not None for form in (local, plain))
    if not valid:
        raise _problem(pointer, "the part before @ must be letters, digits and !#$%&'*+/=?^_`{|}~- between single dots")
    if len(local.encode()) > MAX_LOCAL:
        raise _problem(pointer, f"the part before @ is longer than {MAX_LOCAL} octets")
    address = f"{local}@{_known_domain(domain, pointer)}"
    if len(address.encode()) > MAX_ADDRESS:
        raise _problem(pointer, f"the address is longer than {MAX_ADDRESS} octets")
    return address


def parse_domain(domain: str, pointer: str) -> str:
    """A domain as lower-case A-labels (UTS 46, RFC 5891). Raises ValidationFailed."""
    lowered = domain.lower()
    if not domain.isprintable():
        raise _problem(pointer, "the domain holds an invisible character")
    if not lowered.isascii() or "xn--" in lowered:
        try:
            lowered = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise _problem(pointer, "the domain is not a valid internationalised domain name") from None
    if lowered.startswith("["):
        raise _problem(pointer, "an address literal is not accepted: use a domain name")
    if len(lowered) > MAX_DOMAIN or _LDH.fullmatch(lowered) is None:
        raise _problem(pointer, "the domain must be a full domain name, for example mail.example.com")
    return lowered


_known_domain = lru_cache(maxsize=4096)(parse_domain)  # many readers have their mailboxes at the same few


def email_key(email: str) -> str:
    """The form in which addresses are compared: suppressions, duplicates, limits.

    Only ASCII letters lose their case: relays take `straße@` and `strasse@` for two mailboxes, and so do we.
    """
    if email.isascii():
        return email.lower()
    return unicodedata.normalize("NFC", email[: 2 * MAX_ADDRESS]).translate(_LOWER)


_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _unquoted(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted[1:-1])


def _problem(pointer: str, detail: str, code: str = "invalid_address") -> ValidationFailed:
    return ValidationFailed(errors=[FieldProblem(pointer, code, detail)])
