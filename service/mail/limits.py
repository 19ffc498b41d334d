"""What a relay takes of a message, and what a message needs: compared when it is accepted, and again when it is sent.

A need is a word with the field that makes it: `cc`, `inline`, `.exe`, `25M`. The words go into the message's route
(mail/route), so a relay that is added or changed while the message waits is judged by them too, without a look at the
message. Files are known by their names alone: nothing here looks into an archive, nor at the content of a file.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from service.mail.bodies import clean_filename
from service.mail.draft import Draft
from service.mail.envelope import Offer

_MEBIBYTE = 1024 * 1024
_FEW = 50  # recipients: no provider that is known takes fewer, so that a word for them would say nothing
_COUNTED = re.compile(r"([0-9]+)([MR])")
_EXTENSION = re.compile(r"\.[a-z0-9_]{1,20}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a relay takes. The defaults take everything."""

    max_bytes: int | None = None  # octets of a message
    max_recipients: int | None = None  # in one transaction: the sender splits what has more
    max_message_recipients: int | None = None  # of a message in all, however it is split
    cc: bool = True
    bcc: bool = True
    inline: bool = True  # files shown within the html
    calendar: bool = True  # an invitation as a part of its own
    alternatives: bool = True  # further formats beside text and html
    forbidden_extensions: tuple[str, ...] = ()  # lower case, with the dot

    def take(self, word: str) -> bool:
        """Whether they allow a need. A size or count is refused where all that the word stands for is too much."""
        if word in FLAGS:
            return bool(getattr(self, word))
        if word.startswith("."):
            return word not in self.forbidden_extensions
        if (found := _COUNTED.fullmatch(word)) is not None:
            count, most = int(found[1]), self.max_bytes if found[2] == "M" else self.max_message_recipients
            return most is None or most > (count - 1) * (_MEBIBYTE if found[2] == "M" else 1)
        return True


FLAGS = ("cc", "bcc", "inline", "calendar", "alternatives")
"""Keys of Limits that are true or false, and the words of the needs that they answer."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a message asks of whoever carries it. `refusal` goes on after "relay NAME"."""

    word: str
    pointer: str
    code: str
    refusal: str


def offers(offer: Offer | None, word: str) -> bool:
    """Whether a relay that said so in EHLO can do it; while nothing is known of it, yes."""
    if offer is None:
        return True
    if word == "smtputf8":
        return offer.smtputf8
    return Limits(max_bytes=offer.max_size or None).take(word)


def is_extension(text: str) -> bool:
    """Whether it is written as one is compared: `.exe`."""
    return _EXTENSION.fullmatch(text) is not None


def needs_of(draft: Draft, size: int, recipients: int, risky: Collection[str], *, smtputf8: bool) -> list[Need]:
    """All needs of a message.

    size: octets. recipients: forward-paths. risky: extensions that any relay forbids; the others need no word.
    """
    needs = [*_of_addresses(draft, smtputf8), *_of_parts(draft), *_of_files(draft, risky)]
    if size > _MEBIBYTE:
        needs.append(
            Need(f"{-(-size // _MEBIBYTE)}M", largest_field(draft), "too_large", f"takes less than {size} octets")
        )
    if recipients > _FEW:
        needs.append(Need(f"{recipients}R", "#/to", "too_many_recipients", f"takes fewer than {recipients} recipients"))
    return needs


def largest_field(draft: Draft) -> str:
    """The field that a message which is too large should do without."""
    if draft.attachments:
        largest = max(range(len(draft.attachments)), key=lambda index: len(draft.attachments[index].content))
        return f"#/attachments/{largest}"
    return "#/html" if len(draft.html or "") > len(draft.text or "") else "#/text"


def _of_addresses(draft: Draft, smtputf8: bool) -> Iterable[Need]:
    if draft.cc:
        yield Need("cc", "#/cc", "cc_not_taken", "takes no Cc")
    if draft.bcc:
        yield Need("bcc", "#/bcc", "bcc_not_taken", "takes no Bcc")
    if smtputf8:
        refusal = "does not offer SMTPUTF8 (RFC 6531), which an address of this message needs"
        yield Need("smtputf8", _international(draft), "smtputf8_not_offered", refusal)


def _international(draft: Draft) -> str:
    """The field with the first address that is not ASCII."""
    if not draft.from_.ascii:
        return "#/from"
    if draft.sender is not None and not draft.sender.ascii:
        return "#/sender"
    for field in ("to", "cc", "bcc", "reply_to"):
        for index, mailbox in enumerate(getattr(draft, field)):
            if not mailbox.ascii:
                return f"#/{field}/{index}"
    return "#/envelope_from"


def _of_parts(draft: Draft) -> Iterable[Need]:
    shown = [index for index, each in enumerate(draft.attachments) if each.disposition == "inline" or each.content_id]
    if shown:
        yield Need("inline", f"#/attachments/{shown[0]}", "inline_not_taken", "takes no files within the html")
    if draft.calendar is not None:
        yield Need("calendar", "#/calendar", "calendar_not_taken", "takes no invitations")
    if draft.amp is not None or draft.alternatives:
        pointer = "#/amp" if draft.amp is not None else "#/alternatives"
        yield Need("alternatives", pointer, "alternatives_not_taken", "takes no formats beside text and html")


def _of_files(draft: Draft, risky: Collection[str]) -> Iterable[Need]:
    files: Sequence[tuple[str, str]] = [
        (each.filename, f"#/attachments/{index}/filename") for index, each in enumerate(draft.attachments)
    ]
    if draft.calendar is not None:
        files = [*files, (draft.calendar.filename, "#/calendar/filename")]
    for filename, pointer in files:
        if (extension := extension_of(filename)) in risky:
            yield Need(extension, pointer, "forbidden_attachment", f"takes no {extension} files")


def extension_of(filename: str) -> str:
    """`.exe` of `Setup.EXE` and of `setup.exe. `, as Windows reads it; empty when there is none."""
    stem, dot, extension = clean_filename(filename).rstrip(". ").rpartition(".")
    return (dot + extension).lower() if stem or dot else ""
