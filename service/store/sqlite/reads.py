"""Views of messages: one by id, a list by filter, the delivery log.

A list is driven by the most selective index there is for its conditions and read newest first; the other conditions
are checked on the view, and reading stops at the limit.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import apsw

from service.clock import ulid_floor
from service.errors import FieldProblem, ValidationFailed
from service.mail.address import email_key
from service.mail.lifecycle import SCHEDULED, State
from service.store.port import EventView, MessageFilter, MessageView, RecipientView
from service.store.sqlite.accept import SPAN
from service.store.sqlite.writer import QUERIES

_NEWEST = 2**50  # above any row number, and times SPAN still an integer of SQLite


class Reader:
    """Reads on one connection; not for two threads at once."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def run(self, name: str, bindings: Any = ()) -> Any:
        """Run a named statement."""
        return self._connection.execute(QUERIES[name], bindings)

    def one(self, name: str, bindings: Any = ()) -> Any:
        """The first row, or None; the statement is finished, so that it pins no snapshot."""
        rows = self._connection.execute(QUERIES[name], bindings).fetchall()
        return rows[0] if rows else None

    # --- one message ---------------------------------------------------------------------------------------------

    def message(self, account: str, id: str) -> MessageView | None:
        """A message of an account."""
        row = self.one("get_message: by id", (id, account))
        return self._view(row) if row else None

    def _view(self, row: tuple[Any, ...]) -> MessageView:
        recipients = self.run("get_message: recipients", {"first": row[0] * SPAN}).fetchall()
        return _message_view(row, tuple(_recipient_view(each) for each in recipients))

    def events(self, account: str, id: str) -> list[EventView]:
        """The log of a message."""
        rows = self.run("list_events: by message", (id, account)).fetchall()
        return [
            EventView(seq, at, type, email, attempt, json.loads(data) if data else {})
            for seq, at, type, email, attempt, data in rows
        ]

    # --- lists ---------------------------------------------------------------------------------------------------

    def messages(
        self, account: str, where: MessageFilter, limit: int, after: str | None, now: int
    ) -> list[tuple[int, MessageView]]:
        """Row numbers and views, newest first."""
        found: list[tuple[int, MessageView]] = []
        before = self._before(account, where, after)
        seen = 0
        for (seq,) in self._driver(account, where, before):
            if seq == seen:  # several recipients of one message
                continue
            seen = seq
            view = self._view(self.one("get_message: by seq", (seq,)))
            if where.since is not None and view.created_at < where.since:
                break  # newest first: all that follow are older
            if _matches(view, where, now):
                found.append((seq, view))
                if len(found) == limit:
                    break
        return found

    def _before(self, account: str, where: MessageFilter, after: str | None) -> int:
        before = _NEWEST
        if where.until is not None:
            row = self.one("list_messages: until", (ulid_floor(where.until, "msg_"), account))
            before = row[0] if row and row[0] is not None else before
        if after is not None:
            row = self.one("list_messages: cursor", (after, account))
            if row is None:
                raise ValidationFailed(
                    errors=[FieldProblem("#/after", "invalid_cursor", "must be the `next` of an earlier page")]
                )
            before = min(before, row[0])
        return before

    def _driver(self, account: str, where: MessageFilter, before: int) -> Iterator[Any]:
        name, bindings = _pick_driver(where)
        return iter(self.run(f"list_messages: {name}", {"account": account, "before": before, **bindings}))


def _pick_driver(where: MessageFilter) -> tuple[str, dict[str, Any]]:
    """The index to read: ids before addresses before labels before states."""
    if where.message_id is not None:
        return "message_id", {"message_id": where.message_id}
    if where.provider_message_id is not None:
        return "provider_message_id", {"provider_message_id": where.provider_message_id}
    if where.recipient is not None:
        return "recipient", {"recipient": email_key(where.recipient)}
    if where.metadata:
        name, value = where.metadata[0]
        return "metadata", {"metadata_name": name, "metadata_value": value}
    if where.tag is not None:
        return "tag", {"tag": where.tag.partition(":")[0]}
    if where.status is not None and where.status in set(State):
        return "status", {"status": where.status}
    if where.status == SCHEDULED:
        return "status", {"status": State.QUEUED.value}
    if where.template is not None and "@" in where.template:
        return "template", {"template": where.template}
    if where.from_email is not None:
        return "from_email", {"from_email": where.from_email}
    if where.relay is not None:
        return "relay", {"relay": where.relay}
    return "all", {}


def _matches(view: MessageView, where: MessageFilter, now: int) -> bool:
    """Whether every condition holds."""
    tags = dict(view.tags)
    metadata = dict(view.metadata)
    return all(
        (
            where.status is None or _has_status(view, where.status, now),
            where.recipient is None
            or any(email_key(each.email) == email_key(where.recipient) for each in view.recipients),
            where.from_email is None or view.from_email == where.from_email,
            where.tag is None or _has_tag(tags, where.tag),
            all(metadata.get(name) == value for name, value in where.metadata),
            where.template is None or _is_template(view.template, where.template),
            where.relay is None or any(each.relay == where.relay for each in view.recipients),
            where.message_id is None or view.message_id == where.message_id,
            where.provider_message_id is None
            or any(each.provider_message_id == where.provider_message_id for each in view.recipients),
            where.until is None or view.created_at < where.until,
        )
    )


def _has_status(view: MessageView, status: str, now: int) -> bool:
    if status == SCHEDULED:
        later = view.scheduled_at is not None and view.scheduled_at > now
        return later and any(each.state is State.QUEUED for each in view.recipients)
    return any(each.state == status for each in view.recipients)


def _has_tag(tags: Mapping[str, str], wanted: str) -> bool:
    name, colon, value = wanted.partition(":")
    return name in tags and (not colon or tags[name] == value)


def _is_template(template: str | None, wanted: str) -> bool:
    return template is not None and (template == wanted or template.partition("@")[0] == wanted)


def _recipient_view(row: tuple[Any, ...]) -> RecipientView:
    rid, email, name, kind, state, *rest = row
    return RecipientView(rid % SPAN, email, name, kind, State(state), *rest)


def _pairs(text: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text)) if text else ()


def _message_view(row: tuple[Any, ...], recipients: tuple[RecipientView, ...]) -> MessageView:
    (_, *front, tags, metadata, size, content_purged_at, warnings) = row
    noted = tuple(json.loads(warnings)) if warnings else ()
    values: list[Any] = [*front, _pairs(tags), _pairs(metadata), size, content_purged_at, noted, recipients]
    return MessageView(*values)
