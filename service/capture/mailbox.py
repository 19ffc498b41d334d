"""What the capture relay took: a bounded list of mails, newest first, read lazily."""

import email
import email.policy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import cached_property

MAX_MAILS = 1000
MAX_BYTES = 256 * 1024 * 1024


@dataclass
class Part:
    """One leaf of a mail."""

    number: int
    content_type: str
    filename: str
    content_id: str
    data: bytes


@dataclass
class CapturedMail:
    """One mail as it came over SMTP."""

    id: str
    received_at: int  # ms
    envelope_from: str
    recipients: Sequence[str]
    data: bytes = field(repr=False)

    @cached_property
    def message(self) -> EmailMessage:
        """Parsed by the standard library; broken MIME gives what can be read."""
        parsed = email.message_from_bytes(self.data, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    def header(self, name: str) -> str:
        """A header's text, empty when there is none or it can't be read."""
        try:
            return str(self.message.get(name, ""))
        except Exception:  # the parser raises many things on hostile headers
            return "(unreadable)"

    @cached_property
    def parts(self) -> list[Part]:
        """All leaves in order."""
        return [_part(number, leaf) for number, leaf in enumerate(self.message.walk()) if not leaf.is_multipart()]

    def body(self, content_type: str) -> str | None:
        """The first leaf of that type that is no attachment."""
        for part in self.parts:
            if part.content_type == content_type and not part.filename:
                return _decode(self.message, part)
        return None

    @property
    def attachments(self) -> list[Part]:
        """Leaves with a file name."""
        return [part for part in self.parts if part.filename]

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.data)


def _part(number: int, leaf: EmailMessage) -> Part:
    try:
        payload = leaf.get_payload(decode=True)
        data = payload if isinstance(payload, bytes) else b""
    except Exception:  # broken transfer encodings
        data = b""
    try:
        filename = leaf.get_filename() or ""
    except Exception:
        filename = "unreadable"
    return Part(number, leaf.get_content_type(), filename, str(leaf.get("Content-ID", "")).strip("<> "), data)


def _decode(message: EmailMessage, part: Part) -> str:
    leaf = next(leaf for number, leaf in enumerate(message.walk()) if number == part.number)
    for charset in (leaf.get_content_charset() or "utf-8", "utf-8", "gb18030"):
        try:
            return part.data.decode(charset)
        except (UnicodeDecodeError, LookupError):
            continue
    return part.data.decode("latin-1")


class Mailbox:
    """Bounded in number and bytes; the oldest go first."""

    def __init__(self, max_mails: int = MAX_MAILS, max_bytes: int = MAX_BYTES) -> None:
        self._mails: OrderedDict[str, CapturedMail] = OrderedDict()
        self._max_mails, self._max_bytes, self._bytes = max_mails, max_bytes, 0

    def add(self, mail: CapturedMail) -> None:
        """Keep a mail."""
        self._mails[mail.id] = mail
        self._bytes += mail.size
        while len(self._mails) > self._max_mails or (self._bytes > self._max_bytes and len(self._mails) > 1):
            _, oldest = self._mails.popitem(last=False)
            self._bytes -= oldest.size

    def get(self, id: str) -> CapturedMail | None:
        """A mail by id."""
        return self._mails.get(id)

    def clear(self) -> None:
        """Forget all."""
        self._mails.clear()
        self._bytes = 0

    def search(self, words: str = "") -> list[CapturedMail]:
        """Newest first, those in whose addresses or subject every word stands."""
        wanted = words.casefold().split()
        return [mail for mail in self if all(word in _haystack(mail) for word in wanted)]

    def __iter__(self) -> Iterator[CapturedMail]:
        return reversed(self._mails.values())

    def __len__(self) -> int:
        return len(self._mails)


def _haystack(mail: CapturedMail) -> str:
    parts = (mail.header("from"), mail.header("subject"), mail.envelope_from, *mail.recipients)
    return " ".join(parts).casefold()
