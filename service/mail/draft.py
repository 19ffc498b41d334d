"""What a message shall be: the composer's input, with every field of its right type."""

from dataclasses import dataclass

from service.mail.address import Mailbox


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file. `content_type` is guessed from the name when None; `inline` ones are shown by `cid:` in the html."""

    filename: str
    content: bytes
    content_type: str | None = None
    content_id: str | None = None
    disposition: str = "attachment"  # or "inline"


@dataclass(frozen=True, slots=True)
class Calendar:
    """An invitation (RFC 5545) with its iTIP method (RFC 5546), e.g. REQUEST."""

    method: str
    content: str
    filename: str = "invite.ics"


@dataclass(frozen=True, slots=True)
class Alternative:
    """The message in one more format, for readers that prefer it to html: `text/markdown`, `text/watch-html`."""

    content_type: str
    content: str


@dataclass(slots=True)  # not frozen: to make a frozen one of so many fields takes seven times as long
class Draft:
    """One message before it is bytes. `bcc` is here for completeness and never written."""

    from_: Mailbox
    message_id: str  # without <>
    date: int  # ms
    boundary_seed: str  # unique for each message; boundaries are made of it
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    sender: Mailbox | None = None
    subject: str = ""
    html: str | None = None
    text: str | None = None
    amp: str | None = None  # AMP for Email
    alternatives: tuple[Alternative, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    calendar: Calendar | None = None
    headers: tuple[tuple[str, str], ...] = ()
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    unsubscribe_urls: tuple[str, ...] = ()  # https: and mailto:, at most one of each
    importance: str | None = None  # high | normal | low
    auto_submitted: bool = True
    envelope: tuple[str, ...] = ()  # all addresses on the wire: one that is not ASCII needs SMTPUTF8
