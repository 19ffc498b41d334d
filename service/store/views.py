"""What both dialects make of rows: views of messages, keys, the conditions of a list and the index it is driven by.

The columns come in the order in which the statements of the same name list them. Pure.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from service.mail.address import email_key
from service.mail.envelope import Dsn
from service.mail.lifecycle import SCHEDULED, State
from service.store.shown import ApiKey, EventView, MessageFilter, MessageView, RecipientView
from service.store.values import NewMessage, NewRecipient

SPAN = 1000  # rid = message * SPAN + n; no message may have more recipients


def numbered(message: NewMessage) -> Iterable[tuple[int, NewRecipient]]:
    """Its recipients by their numbers. Raises ValueError when they would run into those of the next message."""
    if len(message.recipients) > SPAN:
        raise ValueError(f"{len(message.recipients)} recipients; a message has room for {SPAN}")
    return enumerate(message.recipients)


def recipient_view(row: Sequence[Any]) -> RecipientView:
    """A row of `get_message: recipients`."""
    rid, email, name, kind, state, *rest = row
    return RecipientView(rid % SPAN, email, name, kind, State(state), *rest)


def message_view(row: Sequence[Any], recipients: tuple[RecipientView, ...]) -> MessageView:
    """A row of `get_message: by id`."""
    (_, *front, tags, metadata, size, content_purged_at, warnings) = row
    noted = tuple(json.loads(warnings)) if warnings else ()
    values: list[Any] = [*front, _pairs(tags), _pairs(metadata), size, content_purged_at, noted, recipients]
    return MessageView(*values)


def _pairs(text: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text)) if text else ()


def event_view(row: Sequence[Any]) -> EventView:
    """A row of `list_events: by message`."""
    seq, at, type, email, attempt, data = row
    return EventView(seq, at, type, email, attempt, json.loads(data) if data else {})


def accepted_data(message: NewMessage) -> str | None:
    """What the first line of a message's log holds beside its time."""
    return json.dumps({"traceparent": message.traceparent}) if message.traceparent else None


def dsn_text(message: NewMessage) -> str | None:
    """What a message asks of delivery status notifications, as it is kept."""
    return json.dumps([message.dsn.notify, message.dsn.whole]) if message.dsn else None


def dsn_of(text: str | None, id: str) -> Dsn | None:
    """The same, read back."""
    if not text:
        return None
    notify, whole = json.loads(text)
    return Dsn(tuple(notify), whole, id)


def key_row(key: ApiKey) -> dict[str, Any]:
    """An API key as it is kept."""
    return {
        "id": key.id,
        "prefix": key.prefix,
        "digest": key.digest,
        "account": key.account,
        "name": key.name,
        "scopes": json.dumps(key.scopes),
        "from_allowed": json.dumps(key.from_allowed),
        "rate": key.rate,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


@lru_cache(maxsize=1024)  # the same few keys ask all the time; a row that has changed is another row
def key_of(row: tuple[Any, ...]) -> ApiKey:
    """A row of `find_key: by prefix`."""
    id, prefix, digest, account, name, scopes, from_allowed, *rest = row
    return ApiKey(id, prefix, digest, account, name, tuple(json.loads(scopes)), tuple(json.loads(from_allowed)), *rest)


def pick_driver(where: MessageFilter) -> tuple[str, dict[str, Any]]:
    """The index to read, and what it needs beside the conditions: ids before addresses before labels before states."""
    if where.message_id is not None:
        return "message_id", {}
    if where.provider_message_id is not None:
        return "provider_message_id", {}
    if where.recipient is not None:
        return "recipient", {}
    if where.metadata:
        name, value = where.metadata[0]
        return "metadata", {"metadata_name": name, "metadata_value": value}
    if where.tag is not None:
        return "tag", {}
    if where.status is not None:
        return "status", {}
    if where.template is not None and "@" in where.template:
        return "template", {}
    if where.from_email is not None:
        return "from_email", {}
    if where.relay is not None:
        return "relay", {}
    return "all", {}


def conditions(where: MessageFilter, now: int) -> dict[str, Any]:
    """The bindings of the fragment `other conditions`; None is any."""
    tag, colon, value = (where.tag or "").partition(":")
    scheduled = where.status == SCHEDULED
    return {
        "from_email": where.from_email,
        "template": where.template,
        "message_id": where.message_id,
        "provider_message_id": where.provider_message_id,
        "since": where.since,
        "until": where.until,
        "scheduled_after": now if scheduled else None,
        "tag": tag if where.tag is not None else None,
        "tag_value": value if colon else None,
        "metadata": json.dumps(where.metadata) if where.metadata else None,
        "status": State.QUEUED.value if scheduled else where.status,
        "recipient": email_key(where.recipient) if where.recipient is not None else None,
        "relay": where.relay,
    }
