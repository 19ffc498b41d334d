"""What the edge hands to the use cases and gets back. Nothing here knows HTTP, SQL or SMTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.durations import Rate
from service.errors import FieldProblem, PostroomError
from service.mail.address import Mailbox
from service.mail.compose import Notice
from service.mail.dkim_keys import DkimKey
from service.mail.draft import Alternative, Attachment, Calendar, Draft
from service.mail.envelope import Dsn
from service.mail.lint import Finding
from service.store.values import NewMessage

PRIORITIES = {"high": 0, "normal": 1, "low": 2}
SCOPES = ("send", "read", "content", "admin")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the account and what its key allows."""

    account: str
    key_id: str
    scopes: frozenset[str]
    from_allowed: tuple[str, ...] = ()
    rate: Rate | None = None


@dataclass(slots=True)  # not frozen: one is made for each message
class TemplateUse:
    """Which template, with what."""

    name: str  # or name@3
    variables: Mapping[str, Any]
    locale: str | None = None


@dataclass(slots=True)  # not frozen: to make a frozen one of so many fields takes seven times as long
class Submission:
    """One message as asked for: every field is of its right type and grammar, nothing is looked up yet."""

    from_: Mailbox
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    sender: Mailbox | None = None
    envelope_from: str | None = None
    subject: str | None = None
    html: str | None = None
    text: str | None = None
    amp: str | None = None
    alternatives: tuple[Alternative, ...] = ()
    embed_data_urls: bool = False
    template: TemplateUse | None = None
    attachments: tuple[Attachment, ...] = ()
    calendar: Calendar | None = None
    headers: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    scheduled_at: int | None = None  # ms
    ttl: float | None = None  # seconds
    priority: str | None = None  # the template's, else normal
    importance: str | None = None
    relay: str | None = None
    delivery: str = "at_least_once"
    unsubscribe_urls: tuple[str, ...] = ()
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    auto_submitted: bool = True
    dsn: Dsn | None = None  # without its id
    idempotency_key: str | None = None  # of an item in a batch
    fingerprint: bytes = b""  # of that item


@dataclass(slots=True)  # not frozen: one is made for each message
class Prepared:
    """A submission made ready to be stored."""

    message: NewMessage
    warnings: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The 202 body as bytes, and whether it is the kept answer of an earlier request."""

    body: bytes
    replayed: bool = False


@dataclass(slots=True)  # not frozen: one is made for each message
class ItemResult:
    """One item of a batch: the stored message, the kept answer of its own key, or the error."""

    prepared: Prepared | None = None
    replayed: bytes | None = None
    error: PostroomError | None = None


@dataclass(slots=True)  # not frozen: one is made for each message
class RelayPlan:
    """A relay that may carry the message, as a dry run shows it."""

    relay: str
    envelope_from: str
    rewritten: bool
    keys: tuple[DkimKey, ...]  # that sign it
    gap: bool = False  # its domain has keys, but none that is valid then


@dataclass(frozen=True, slots=True)
class RelayRefusal:
    """A relay that may not carry the message, and every reason."""

    relay: str
    problems: tuple[FieldProblem, ...]
    exact: bool = False  # something is against it that neither sender nor needs in the route tell


@dataclass(slots=True)  # not frozen: one is made for each message
class Preview:
    """What a dry run answers: everything a real one would have made."""

    prepared: Prepared
    draft: Draft
    plan: Sequence[RelayPlan]
    refusals: Sequence[RelayRefusal] = ()
    headers: Sequence[tuple[str, str]] = ()
    findings: Sequence[Finding] = ()
