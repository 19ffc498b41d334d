"""DKIM signatures on composed bytes (RFC 6376, Ed25519 by RFC 8463): canonicalised relaxed/relaxed, no `l=`.

Pure: keys come loaded (mail/dkim_keys), the time is an argument, and the same bytes, keys and time give the same
signature. Which key signs for whom is the key ring's business; which fields a relay rewrites, and so must stay
unsigned, is told by its sender rule (mail/seal).
"""

import binascii
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from service.mail.dkim_keys import DkimKey
from service.mail.headers import FOLD

# RFC 6376 5.4.1, and what mailbox providers demand of bulk mail (RFC 8058 4: both unsubscribe fields)
SIGNED = (
    "from", "sender", "reply-to", "to", "cc", "date", "message-id", "subject", "in-reply-to", "references",
    "mime-version", "content-type", "content-transfer-encoding", "auto-submitted", "feedback-id", "importance", "x-priority",
    "list-id", "list-unsubscribe", "list-unsubscribe-post", "list-help", "list-subscribe", "list-owner", "list-archive",
    "list-post",
)  # fmt: skip
# named once more than they stand, so that nobody can add one (RFC 6376 8.15)
# but for what providers add to any mail: Feedback-ID (SES) and Auto-Submitted
OVERSIGNED = frozenset(SIGNED) - {"auto-submitted", "feedback-id"}

SIGNATURE_ROOM = 1600  # octets that one signature is allowed for, before it is made

_WHITE = re.compile(rb"[ \t]+")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")


def sign(segments: Sequence[bytes], keys: Sequence[DkimKey], at: int, unsigned: Collection[str] = ()) -> bytes:
    """The DKIM-Signature fields, one for each key, to stand before the message.

    segments: the message, its header block in the first; at: ms; unsigned: lower-case names of fields that the relay
    writes anew.
    """
    block, _, rest = segments[0].partition(b"\r\n\r\n")
    fields = _fields(block)
    names = _names(fields, unsigned)
    signed = b"".join(_taken(fields, names))
    body_hash = _base64(_body_hash([rest, *segments[1:]]))
    return b"".join(_signature(key, names, signed, body_hash, at) for key in keys)


def _signature(key: DkimKey, names: Sequence[str], signed: bytes, body_hash: str, at: int) -> bytes:
    """One field. What is signed last is the field itself with an empty `b=` and no CRLF (RFC 6376 3.7)."""
    field = (
        f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain};\r\n"
        f" s={key.selector}; t={at // 1000};\r\n"
        f" h={_wrapped(names)};\r\n"
        f" bh={body_hash};\r\n b="
    ).encode("ascii")
    value = _base64(key.sign(signed + _relaxed(field)))
    return field + _folded(value) + b"\r\n"


def _wrapped(names: Sequence[str]) -> str:
    """`h=` in lines of at most 78; white space is allowed around the colons (RFC 6376 3.5)."""
    lines, line = [], ""
    for index, name in enumerate(names):
        word = name + (":" if index < len(names) - 1 else "")
        if line and len(line) + len(word) > FOLD - 5:
            lines.append(line)
            line = ""
        line += word
    return "\r\n  ".join([*lines, line])


def _folded(value: str) -> bytes:
    """Base64 in lines; white space in it is ignored (RFC 6376 3.5)."""
    width = FOLD - 4
    return "\r\n  ".join(value[at : at + width] for at in range(0, len(value), width)).encode("ascii")


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


# --- header ---------------------------------------------------------------------------------------------------------


def _fields(block: bytes) -> Mapping[str, list[bytes]]:
    """Whole fields by lower-case name, in their order."""
    found: dict[str, list[bytes]] = {}
    for field in _FIELD_END.split(block):
        name = field.partition(b":")[0].decode("ascii", "replace").strip().lower()
        found.setdefault(name, []).append(field)
    return found


def _names(fields: Mapping[str, list[bytes]], unsigned: Collection[str]) -> list[str]:
    """What `h=` lists: each field as often as it stands, and the oversigned ones once more."""
    names: list[str] = []
    for name in SIGNED:
        if name not in unsigned:
            names += [name] * (len(fields.get(name, ())) + (name in OVERSIGNED))
    return names


def _taken(fields: Mapping[str, list[bytes]], names: Sequence[str]) -> Iterator[bytes]:
    """The canonical fields that `names` mean: repeated ones from the bottom up, missing ones as nothing (RFC 6376 5.4.2)."""
    left = {name: list(stand) for name, stand in fields.items()}
    for name in names:
        if stand := left.get(name):
            yield _relaxed(stand.pop()) + b"\r\n"


def _relaxed(field: bytes) -> bytes:
    """RFC 6376 3.4.2: lower-case name, unfolded, each run of white space one space, none around the colon or at the end."""
    name, _, value = field.partition(b":")
    return name.strip().lower() + b":" + _WHITE.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")


# --- body -----------------------------------------------------------------------------------------------------------


def _body_hash(pieces: Sequence[bytes]) -> bytes:
    """SHA-256 of the body, relaxed (RFC 6376 3.4.4); attachments are hashed as they lie, without a copy."""
    digest = hashlib.sha256()
    empty_lines = 0  # held back: those at the very end do not count
    for piece in _whole_lines(pieces):
        text = piece
        if b" " in piece or b"\t" in piece:
            text = _WHITE.sub(b" ", piece).replace(b" \r\n", b"\r\n")
        kept = len(text)
        while text.endswith(b"\r\n", 0, kept):
            kept -= 2
        if kept:
            digest.update(b"\r\n" * empty_lines)
            digest.update(memoryview(text)[:kept])
            empty_lines = 0
        empty_lines += (len(text) - kept) // 2
    if digest.digest() != hashlib.sha256().digest():
        digest.update(b"\r\n")
    return digest.digest()


def _whole_lines(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """The pieces, joined where a line reaches from one into the next."""
    held: list[bytes] = []
    for piece in pieces:
        held.append(piece)
        if piece.endswith(b"\r\n"):
            yield held[0] if len(held) == 1 else b"".join(held)
            held = []
    if held:
        yield b"".join(held)
