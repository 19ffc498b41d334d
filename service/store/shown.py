"""What the store tells people and those who answer them: messages and their log, addresses, templates, keys, the queue.

Values only: times are milliseconds since the epoch. What senders work on is store/values', what may be asked store/port's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.mail.lifecycle import State


@dataclass(frozen=True, slots=True)
class RecipientView:
    """A recipient as the API shows it."""

    n: int
    email: str
    name: str
    kind: str
    state: State
    updated_at: int
    due_at: int | None  # while it waits
    attempts: int
    in_doubt: int
    relay: str | None  # of the last attempt
    provider_message_id: str | None
    last_code: int | None
    last_enhanced: str
    last_text: str
    last_kind: str
    held_by: str | None = None  # relay and quota that put it off until `due_at`


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as the API shows it."""

    id: str
    account: str
    message_id: str
    created_at: int
    scheduled_at: int | None
    expires_at: int
    closed_at: int | None
    priority: int
    delivery: str
    route: str
    relay: str | None
    from_email: str
    envelope_from: str
    subject: str
    template: str | None
    tags: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    size: int
    content_purged_at: int | None
    warnings: tuple[Mapping[str, str], ...]
    recipients: tuple[RecipientView, ...]


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of the delivery log. `data` holds reply, phase, relay, timings, what was done."""

    seq: int
    at: int
    type: str  # accepted | a lifecycle Event | rescheduled | erased
    recipient: str | None
    attempt: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """All conditions hold together; None means any."""

    status: str | None = None  # "has a recipient in that state"; also `scheduled`
    recipient: str | None = None
    from_email: str | None = None
    tag: str | None = None  # "name" or "name:value"
    metadata: tuple[tuple[str, str], ...] = ()
    template: str | None = None  # name, or name@version
    relay: str | None = None
    message_id: str | None = None
    provider_message_id: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why an address gets no mail. One address may stand there for an address fault and for an unsubscribe apart."""

    email: str
    reason: str  # bad_address | complaint | unsubscribe | manual
    origin: str  # delivery | api | bounce
    created_at: int
    message: str | None  # id of the message that led to it
    detail: str
    category: str = ""  # of an unsubscribe: only messages of this category are held back


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One immutable form of a template: equal files, equal digest, equal number."""

    name: str
    number: int
    digest: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored: never its secret, only the SHA-256 of it."""

    id: str
    prefix: str
    digest: bytes
    account: str
    name: str
    scopes: tuple[str, ...]
    from_allowed: tuple[str, ...]  # addresses or domains; empty = any
    rate: str | None  # e.g. "100/s"
    created_at: int
    expires_at: int | None
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class WaitingLane:
    """Recipients of one route, priority and state that wait. Times are ms."""

    route: str
    priority: int
    state: State
    count: int
    due: int  # of them now
    in_doubt: int  # of them, had an attempt in doubt
    perhaps_sent: int  # of them, due now and accepted before the copy was taken
    oldest: int  # when its first message was accepted


@dataclass(frozen=True, slots=True)
class WaitingRecipient:
    """A recipient that waits, as an operator is shown it. Times are ms."""

    id: str
    account: str
    email: str
    route: str
    priority: int
    state: State
    due_at: int
    in_doubt: int
    created_at: int
    subject: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What would be sent. `open_attempts`: of processes that have ended, or that send just now."""

    lanes: Sequence[WaitingLane]
    first: Sequence[WaitingRecipient]  # in the order of priority and due time
    open_attempts: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """For metrics and readiness. `oldest_due` is by priority, ms, only recipients that are due now."""

    counts: Mapping[State, int]
    oldest_due: Mapping[int, int]
