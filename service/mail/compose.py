"""From a draft to MIME bytes, written directly: no tree of objects, no second pass.

The tree is mixed > related > alternative (text, html, calendar); levels that would hold one part are left out.
Lines are CRLF, 7-bit unless an address needs SMTPUTF8. Nothing here decides who gets the message: the envelope is
made elsewhere, and Bcc is never written. mail/gate reads the result again before it is stored.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

from service.errors import FieldProblem, InvalidAttachment, ValidationFailed
from service.mail import headers
from service.mail.address import FORBIDDEN, Mailbox
from service.mail.bodies import attachment_part, check_alternative, check_attachment, clean_filename, text_part
from service.mail.draft import Attachment, Calendar, Draft
from service.mail.headers import check_custom_headers
from service.mail.text import html_to_text

__all__ = ["Composed", "Notice", "compose", "redate"]

# Characters, given or rendered. RFC 5322 limits lines, to 998 octets (2.1.1), and no unfolded field (2.2.3): what is longer is
# folded. So the number is ours.
MAX_SUBJECT = 2000
SEGMENT_FROM = 64 * 1024  # octets: larger attachment bodies are pieces of their own, so that equal ones are kept once
_MESSAGE_ID = re.compile(r"<?([^\s<>@]{1,250}@[^\s<>@]{1,250})>?")
_URL = re.compile(r"https://[\x21-\x3b\x3d\x3f-\x7e]{1,900}|mailto:[\x21-\x3b\x3d\x3f-\x7e]{1,900}")  # fits a line
_IMPORTANCE = {"x-priority", "importance"}
_METHOD = re.compile(r"[A-Z]{1,20}")
# RFC 5545 3.4 and 3.1: names without case, a content line may be folded; white space and a BOM around it do no harm
_ICALENDAR = re.compile(r"[\s\ufeff]*BEGIN:VCALENDAR[ \t]*[\r\n]", re.I)
_ICALENDAR_ENDS = re.compile(r"[\r\n]END:VCALENDAR\Z", re.I)
_FOLDED = re.compile(r"\r\n?[ \t]|\n[ \t]")
_ITS_METHOD = re.compile(r"(?:^|[\r\n])METHOD(?:;[^:\r\n]*)?:[ \t]*([^\r\n]*)", re.I)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that was changed or is doubtful; goes into `warnings` of the answer."""

    pointer: str
    code: str
    detail: str


@dataclass(slots=True)  # not frozen: one is made for each message
class Composed:
    """A message as bytes. The first segment holds the whole header block."""

    segments: tuple[bytes, ...]
    headers: tuple[str, ...]
    smtputf8: bool
    warnings: tuple[Notice, ...]
    size: int


@dataclass(slots=True)
class _Part:
    """A MIME entity being made: its Content-* fields and the pieces of its body."""

    fields: str
    body: list[bytes] = field(default_factory=list)
    ended: bool = False  # the body ends with a CRLF that is not part of its content: base64, or is empty
    names: tuple[str, ...] = ("Content-Type", "Content-Transfer-Encoding")  # of `fields`, where it is the whole message


def compose(draft: Draft) -> Composed:
    """Compose `draft`. Raises ValidationFailed (InvalidAttachment when only attachments are at fault)."""
    words = _words(draft)
    _check(draft, words)
    shown = [draft.from_, *draft.to, *draft.cc, *draft.reply_to, *((draft.sender,) if draft.sender else ())]
    utf8 = not "".join([each.email for each in shown]).isascii()
    notices: list[Notice] = []
    names = [_clean(attachment, index, notices) for index, attachment in enumerate(draft.attachments)]
    body = _body(draft, words, names)
    fields = _fields(draft, utf8)
    block = "".join([text for _, text in fields]) + "MIME-Version: 1.0\r\n" + body.fields + "\r\n"
    order = (*[name for name, _ in fields], "MIME-Version", *body.names)
    end = b"" if body.ended or body.body[-1].endswith(b"\r\n") else b"\r\n"  # RFC 5321 4.1.1.4: the last line is ended
    segments = _merge([block.encode(), *body.body, end])
    # bcc addresses are in no header, yet they need SMTPUTF8 as well
    smtputf8 = utf8 or not "".join([*draft.envelope, *[each.email for each in draft.bcc]]).isascii()
    return Composed(segments, order, smtputf8, tuple(notices), sum(map(len, segments)))


def redate(segments: Sequence[bytes], date: int) -> tuple[bytes, ...]:
    """The same message with another Date (ms)."""
    head, mark, rest = segments[0].partition(b"\r\n\r\n")
    changed = re.sub(rb"(?m)^Date: [^\r\n]*", b"Date: " + headers.date(date).encode(), head, count=1)
    return (changed + mark + rest, *segments[1:])


# --- checks -----------------------------------------------------------------------------------------------------


def _check(draft: Draft, words: Mapping[str, bytes | None]) -> None:
    problems = [
        *_check_text("#/subject", draft.subject, FORBIDDEN),
        *check_custom_headers(draft.headers),
        *_check_importance(draft),
        *_check_ids(draft),
        *_check_unsubscribe(draft.unsubscribe_urls),
        *_check_words(words),
        *_check_calendar(draft.calendar),
    ]
    for index, alternative in enumerate(draft.alternatives):
        problems += check_alternative(alternative, f"#/alternatives/{index}")
    files = _check_files(draft.attachments) if draft.attachments else []
    if problems or files:
        kind = ValidationFailed if problems else InvalidAttachment
        raise kind(errors=[*problems, *files])


def _check_files(attachments: Sequence[Attachment]) -> list[FieldProblem]:
    found = [check_attachment(attachment, f"#/attachments/{index}") for index, attachment in enumerate(attachments)]
    return [*chain.from_iterable(found), *_check_content_ids(attachments)]


def _check_importance(draft: Draft) -> list[FieldProblem]:
    """The field writes two headers, which must not stand twice."""
    if draft.importance is None:
        return []
    return [
        FieldProblem(f"#/headers/{name}", "header_repeated", f"{name} is written by `importance`: give one of them")
        for name, _ in draft.headers
        if name.lower() in _IMPORTANCE
    ]


def _check_content_ids(attachments: Sequence[Attachment]) -> list[FieldProblem]:
    """`cid:` in the html must mean one file (RFC 2392 2)."""
    seen: set[str] = set()
    problems: list[FieldProblem] = []
    for index, each in enumerate(attachments):
        if each.content_id is not None and each.content_id in seen:
            pointer = f"#/attachments/{index}/content_id"
            problems.append(FieldProblem(pointer, "content_id_repeated", f"{each.content_id} stands twice"))
        elif each.content_id is not None:
            seen.add(each.content_id)
    return problems


def _check_text(pointer: str, text: str, forbidden: re.Pattern[str]) -> list[FieldProblem]:
    if forbidden.search(text):
        return [FieldProblem(pointer, "control_character", "holds a control character")]
    if len(text) > MAX_SUBJECT:
        return [FieldProblem(pointer, "too_long", f"must have at most {MAX_SUBJECT} characters")]
    return []


def _words(draft: Draft) -> dict[str, bytes | None]:
    """The texts of the message in UTF-8, each by the field that gave it; None: UTF-8 can't have it."""
    given = {"html": draft.html, "text": draft.text, "amp": draft.amp}
    if draft.calendar is not None:
        given["calendar/content"] = draft.calendar.content
    for index, alternative in enumerate(draft.alternatives):
        given[f"alternatives/{index}/content"] = alternative.content
    return {name: _utf8(text) for name, text in given.items() if text is not None}


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None


def _check_words(words: Mapping[str, bytes | None]) -> list[FieldProblem]:
    return [
        FieldProblem(f"#/{name}", "control_character", "holds NUL or a lone surrogate")
        for name, octets in words.items()
        if octets is None or b"\0" in octets
    ]


def _check_calendar(calendar: Calendar | None) -> list[FieldProblem]:
    """An iCalendar object whose method is the one that the part will name (RFC 5545 8.1)."""
    if calendar is None:
        return []
    problems: list[FieldProblem] = []
    if _METHOD.fullmatch(calendar.method) is None:
        problems.append(FieldProblem("#/calendar/method", "invalid_method", "must be an iTIP method such as REQUEST"))
    if FORBIDDEN.search(calendar.filename) or not clean_filename(calendar.filename):
        problems.append(FieldProblem("#/calendar/filename", "invalid_filename", "must be a name such as invite.ics"))
    text = calendar.content
    if _ICALENDAR.match(text) is None or _ICALENDAR_ENDS.search(text.rstrip()[-14:]) is None:
        detail = "must be an iCalendar object: from a line BEGIN:VCALENDAR to a line END:VCALENDAR (RFC 5545 3.4)"
        problems.append(FieldProblem("#/calendar/content", "invalid_calendar", detail))
    elif any(found.strip().upper() != calendar.method for found in _ITS_METHOD.findall(_FOLDED.sub("", text))):
        detail = f"its METHOD must be {calendar.method}, as calendar.method says, or be left out"
        problems.append(FieldProblem("#/calendar/content", "invalid_calendar", detail))
    return problems


def _check_ids(draft: Draft) -> list[FieldProblem]:
    if draft.in_reply_to is None and not draft.references:
        return []
    given = [("#/in_reply_to", draft.in_reply_to)] if draft.in_reply_to is not None else []
    given += [(f"#/references/{index}", value) for index, value in enumerate(draft.references)]
    return [
        FieldProblem(pointer, "invalid_message_id", "must be a Message-ID such as `<id@example.com>`")
        for pointer, value in given
        if value is None or not _is_message_id(value)
    ]


def _is_message_id(value: str) -> bool:
    plain = value.isascii() and not FORBIDDEN.search(value) and not headers.ENCODED_WORD.search(value)
    return plain and _MESSAGE_ID.fullmatch(value) is not None


_URL_DETAIL = "must be an https: or mailto: URL of at most 900 ASCII characters, without spaces and encoded words"


def _check_unsubscribe(urls: Sequence[str]) -> list[FieldProblem]:
    if not urls:
        return []
    problems = [
        FieldProblem(_unsubscribe_place(urls, index), "invalid_url", _URL_DETAIL)
        for index, url in enumerate(urls)
        if _URL.fullmatch(url) is None or headers.ENCODED_WORD.search(url)
    ]
    if not problems and len({url.partition(":")[0] for url in urls}) != len(urls):
        problems.append(FieldProblem("#/unsubscribe_url", "invalid_url", "one https: URL and one mailto: at most"))
    return problems


def _unsubscribe_place(urls: Sequence[str], index: int) -> str:
    return "#/unsubscribe_url" if len(urls) == 1 else f"#/unsubscribe_url/{index}"


# --- header block -----------------------------------------------------------------------------------------------


def _fields(draft: Draft, utf8: bool) -> list[tuple[str, str]]:
    """(name, whole field) in the order in which they are written."""
    free = headers.utf8_unstructured if utf8 else headers.unstructured
    fields = [
        ("Date", f"Date: {headers.date(draft.date)}\r\n"),
        ("From", _from_field(draft.from_, utf8)),
    ]
    if draft.sender is not None:
        fields.append(("Sender", headers.addresses("Sender", (draft.sender,), utf8)))
    for name, mailboxes in (("Reply-To", draft.reply_to), ("To", draft.to), ("Cc", draft.cc)):
        if mailboxes:
            fields.append((name, headers.addresses(name, mailboxes, utf8)))
    if not draft.to and not draft.cc:
        fields.append(("To", "To: undisclosed-recipients:;\r\n"))  # RFC 5322 3.4: an empty group
    fields.append(("Message-ID", f"Message-ID: <{draft.message_id}>\r\n"))
    if draft.in_reply_to is not None:
        fields.append(("In-Reply-To", headers.structured("In-Reply-To", _bracketed(draft.in_reply_to))))
    if draft.references:
        references = " ".join(_bracketed(each) for each in draft.references)
        fields.append(("References", headers.structured("References", references)))
    fields.append(("Subject", free("Subject", draft.subject)))
    fields += _marks(draft)
    for name, value in draft.headers:
        write = headers.structured if name.lower() in headers.STRUCTURED else free
        fields.append((name, write(name, value)))
    return fields


@lru_cache(maxsize=1024)  # senders are few
def _from_field(mailbox: Mailbox, utf8: bool) -> str:
    return headers.addresses("From", (mailbox,), utf8)


def _marks(draft: Draft) -> list[tuple[str, str]]:
    """Fields that tell machines how to treat the message."""
    fields: list[tuple[str, str]] = []
    if draft.unsubscribe_urls:
        listed = [f"<{url}>" for url in sorted(draft.unsubscribe_urls)]  # https before mailto: the first is preferred
        tokens = [*(f"{each}," for each in listed[:-1]), listed[-1]]
        fields.append(("List-Unsubscribe", headers.fold("List-Unsubscribe", tokens)))  # RFC 2369 2
        if listed[0].startswith("<https:"):  # RFC 8058 3.1
            fields.append(("List-Unsubscribe-Post", "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"))
    if draft.importance is not None:
        number = {"high": 1, "normal": 3, "low": 5}[draft.importance]
        fields.append(("X-Priority", f"X-Priority: {number}\r\n"))
        fields.append(("Importance", f"Importance: {draft.importance}\r\n"))
    if draft.auto_submitted:
        fields.append(("Auto-Submitted", "Auto-Submitted: auto-generated\r\n"))  # RFC 3834 5
    return fields


def _bracketed(message_id: str) -> str:
    return f"<{message_id.strip('<>')}>"


# --- body -------------------------------------------------------------------------------------------------------


def _clean(attachment: Attachment, index: int, notices: list[Notice]) -> str:
    name = clean_filename(attachment.filename)
    if name != attachment.filename:
        detail = f"the file name was changed to {name!r}: no directories, no direction marks, at most 255 characters"
        notices.append(Notice(f"#/attachments/{index}/filename", "filename_changed", detail))
    return name


def _body(draft: Draft, words: Mapping[str, bytes | None], names: Sequence[str]) -> _Part:
    inline: list[_Part] = []
    files: list[_Part] = []
    for attachment, name in zip(draft.attachments, names, strict=True):
        related = attachment.disposition == "inline" and attachment.content_id is not None and draft.html is not None
        (inline if related else files).append(_file(attachment, name))
    if (calendar := draft.calendar) is not None:
        name = clean_filename(calendar.filename)
        files.append(
            _file(Attachment(name, calendar.content.encode(), f"text/calendar; {_invitation(calendar)}"), name)
        )
    part = _alternative(draft, words)
    if inline:
        subtype = f'related; type="{_media_type(part)}"'  # RFC 2387 3.1: required
        part = _multipart(subtype, [part, *inline], draft.boundary_seed, "rel")
    if files:
        part = _multipart("mixed", [part, *files], draft.boundary_seed, "mix")
    return part


def _file(attachment: Attachment, name: str) -> _Part:
    fields, body = attachment_part(attachment, name)
    return _Part(fields, [body], ended=True)


def _text(subtype: str, text: str, octets: bytes | None) -> _Part:
    fields, body = text_part(subtype, text, octets)
    return _Part(fields, [body], ended=_BASE64 in fields or not body)


_BASE64 = "Encoding: base64"


def _alternative(draft: Draft, words: Mapping[str, bytes | None]) -> _Part:
    """Plainest first (RFC 2046 5.1.4): text, others, AMP, html, invitation."""
    text = draft.text
    if text is None:
        text = html_to_text(draft.html) if draft.html is not None else ""
    parts = [_text("plain", text, words.get("text"))]
    for index, each in enumerate(draft.alternatives):
        subtype = each.content_type.lower().removeprefix("text/")
        parts.append(_text(subtype, each.content, words[f"alternatives/{index}/content"]))
    if draft.amp is not None:
        parts.append(_text("x-amp-html", draft.amp, words["amp"]))
    if draft.html is not None:
        parts.append(_text("html", draft.html, words["html"]))
    if draft.calendar is not None:
        invitation = _text("calendar", draft.calendar.content, words["calendar/content"])
        invitation.fields = invitation.fields.replace("charset=utf-8", _invitation(draft.calendar), 1)
        parts.append(invitation)
    return parts[0] if len(parts) == 1 else _multipart("alternative", parts, draft.boundary_seed, "alt")


def _invitation(calendar: Calendar) -> str:
    """RFC 5545 3.1.4: the charset must be named; 8.1: so must the method, as in the content."""
    return f"charset=utf-8; method={calendar.method}"


def _multipart(subtype: str, parts: Sequence[_Part], seed: str, mark: str) -> _Part:
    """RFC 2046 5.1. `=_` occurs neither in base64 nor in quoted-printable, and a 7-bit text with `--=_` is never left as
    it is (mail/bodies), so the boundary can't occur in a body.
    """
    boundary = f"=_{mark}_{seed}"
    body: list[bytes] = []
    before = ""
    for part in parts:
        body += [f"{before}--{boundary}\r\n{part.fields}\r\n".encode(), *part.body]
        before = "" if part.ended else "\r\n"
    body.append(f"{before}--{boundary}--".encode())
    fields = f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n'
    return _Part(fields, body, names=("Content-Type",))


def _media_type(part: _Part) -> str:
    return part.fields.removeprefix("Content-Type: ").partition(";")[0]


def _merge(pieces: Sequence[bytes]) -> tuple[bytes, ...]:
    """Join small pieces; large ones stay alone, uncopied."""
    if sum(map(len, pieces)) < SEGMENT_FROM:
        return (b"".join(pieces),)
    merged: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < SEGMENT_FROM or (not merged and not small):
            small.append(piece)
            continue
        merged.append(b"".join(small))
        merged.append(piece)
        small = []
    if small:
        merged.append(b"".join(small))
    return tuple(piece for piece in merged if piece)
