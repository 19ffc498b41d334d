"""Answers: what is stored, in the words of the API. Plain dicts, typed in api/answers, so that the hot path builds no models."""

from collections.abc import Mapping, Sequence

from pydantic_core import to_json

from service.api import answers
from service.api.problems import problem_document
from service.clock import rfc3339
from service.mail.lifecycle import State, message_status
from service.mail.lint import Finding
from service.mail.quota import HIGH, Quota
from service.mail.text import html_to_text
from service.mail.trouble import RelayEvent, Trouble
from service.relay.port import CheckStep, RelayStatus
from service.spool.messages import Messages
from service.spool.templates import Listed, Loaded
from service.spool.values import PRIORITIES, ItemResult, Prepared, Preview
from service.spool.waiting import HeldBy, Look
from service.store.shown import ApiKey, EventView, MessageView, RecipientView, Suppression, TemplateVersion
from service.store.values import QuotaUse
from service.tracing import trace_id

_PRIORITY_NAMES = {number: name for name, number in PRIORITIES.items()}
_TIMES = {"next_attempt_at", "relay_paused_until", "scheduled_at"}  # members of an event's data that are moments


def accepted(prepared: Prepared) -> answers.Accepted:
    """The body of a 202."""
    message = prepared.message
    states = [recipient.state for recipient in message.recipients]
    later = message.scheduled_at is not None and message.scheduled_at > message.created_at
    return {
        "id": message.id,
        "status": message_status(states, due_later=later),
        "message_id": f"<{message.message_id}>",
        "created_at": rfc3339(message.created_at),
        "scheduled_at": None if message.scheduled_at is None else rfc3339(message.scheduled_at),
        "recipients": [
            {"email": each.email, "kind": each.kind, "status": each.state.value} for each in message.recipients
        ],
        "warnings": list(message.warnings),
    }


def accepted_bytes(prepared: Prepared) -> bytes:
    """The same as JSON."""
    return to_json(accepted(prepared))


def batch_bytes(results: Sequence[ItemResult], request_id: str) -> bytes:
    """The answer to a batch: one entry for each message, in order."""
    entries = [_item(result, index, request_id) for index, result in enumerate(results)]
    good = sum(result.error is None for result in results)
    return b'{"accepted":%d,"refused":%d,"results":[%s]}' % (good, len(results) - good, b",".join(entries))


def _item(result: ItemResult, index: int, request_id: str) -> bytes:
    if result.replayed is not None:
        return b'{"index":%d,"replayed":true,"message":%s}' % (index, result.replayed)
    if result.prepared is not None:
        return b'{"index":%d,"message":%s}' % (index, accepted_bytes(result.prepared))
    assert result.error is not None
    return b'{"index":%d,"error":%s}' % (
        index,
        to_json(problem_document(result.error, f"/messages/{index}", request_id)),
    )


def preview(shown: Preview) -> answers.Preview:
    """The answer to a dry run."""
    draft = shown.draft
    return {
        "subject": draft.subject,
        "html": draft.html,
        "text": html_to_text(draft.html) if draft.text is None and draft.html is not None else draft.text,
        "headers": [{"name": name, "value": value} for name, value in shown.headers],
        "size": shown.prepared.message.size,
        "recipients": accepted(shown.prepared)["recipients"],
        "relays": [
            {
                "name": each.relay,
                "envelope_from": each.envelope_from,
                "from_rewritten": each.rewritten,
                "dkim": [key.label for key in each.keys],
            }
            for each in shown.plan
        ],
        "refusals": [
            {
                "name": each.relay,
                "errors": [
                    {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail} for fault in each.problems
                ],
            }
            for each in shown.refusals
        ],
        "template": shown.prepared.message.template,
        "warnings": [
            {"pointer": each.pointer, "code": each.code, "detail": each.detail} for each in shown.prepared.warnings
        ],
        "findings": [finding(each) for each in shown.findings],
    }


def _moment(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def message(view: MessageView, messages: Messages, look: Look) -> answers.Message:
    """One message, and what `look` saw that holds it back."""
    return {
        "id": view.id,
        "status": messages.status(view),
        "message_id": f"<{view.message_id}>",
        "from": view.from_email,
        "envelope_from": view.envelope_from,
        "subject": view.subject,
        "template": view.template,
        "tags": dict(view.tags),
        "metadata": dict(view.metadata),
        "priority": _PRIORITY_NAMES[view.priority],
        "delivery": view.delivery,
        "relay": view.relay,
        "size": view.size,
        "created_at": rfc3339(view.created_at),
        "scheduled_at": _moment(view.scheduled_at),
        "expires_at": rfc3339(view.expires_at),
        "closed_at": _moment(view.closed_at),
        "content_purged_at": _moment(view.content_purged_at),
        "recipients": [_recipient(view, each, look) for each in view.recipients],
        "warnings": list(view.warnings),
    }


def _recipient(view: MessageView, each: RecipientView, look: Look) -> answers.Recipient:
    held = look.held_by(view, each)
    reply: answers.LastReply | None = None
    if each.last_code is not None or each.last_text:
        reply = {"code": each.last_code, "enhanced_code": each.last_enhanced or None, "text": each.last_text}
    return {
        "email": each.email,
        "name": each.name,
        "kind": each.kind,
        "status": each.state.value,
        "updated_at": rfc3339(each.updated_at),
        "attempts": each.attempts,
        "attempts_in_doubt": each.in_doubt,
        "next_attempt_at": _moment(each.due_at),
        "held_back_by": held.words if held else None,
        "held_by": _held_by(held) if held else None,
        "relay": each.relay,
        "class": each.last_kind or None,
        "last_reply": reply,
        "provider_message_id": each.provider_message_id if each.state is not State.QUEUED else None,
    }


def _held_by(held: HeldBy) -> answers.Held:
    return {"reason": held.reason, "relay": held.relay, "quota": held.quota, "until": _moment(held.until)}


def event(view: EventView) -> answers.Event:
    """One line of the delivery log."""
    data = {
        name: rfc3339(value) if name in _TIMES and value is not None else value for name, value in view.data.items()
    }
    if (traceparent := data.get("traceparent")) is not None:
        data["trace_id"] = trace_id(traceparent)
    return {
        "id": view.seq,
        "at": rfc3339(view.at),
        "type": view.type,
        "recipient": view.recipient,
        "attempt": view.attempt,
        "data": data,
    }


def page(entries: Sequence[Mapping[str, object]], after: str | None) -> answers.Page:
    """A page of a list; `next` goes into `after` for the following one."""
    return {"data": list(entries), "next": after}


def template(each: Loaded | Listed) -> answers.Template:
    """A template."""
    source = each.source
    return {
        "name": source.name,
        "version": each.number,
        "digest": source.digest,
        "description": source.description,
        "locales": list(source.locales),
        "default_locale": source.default_locale,
        "variables": dict(source.schema),
        "samples": {locale: dict(words.sample) for locale, words in source.locales.items()},
        "defaults": {"ttl": source.ttl, "priority": source.priority, "unsubscribe": source.category},
    }


def template_version(each: TemplateVersion) -> answers.TemplateVersion:
    """One version of a template."""
    return {
        "name": each.name,
        "version": each.number,
        "digest": each.digest,
        "created_at": rfc3339(each.created_at),
    }


def finding(each: Finding) -> answers.Finding:
    """What the lint found."""
    return {
        "rule": each.rule,
        "severity": each.severity,
        "file": each.file,
        "line": each.line,
        "detail": each.detail,
    }


def suppression(each: Suppression) -> answers.Suppression:
    """A suppression."""
    return {
        "email": each.email,
        "reason": each.reason,
        "origin": each.origin,
        "created_at": rfc3339(each.created_at),
        "message": each.message,
        "detail": each.detail,
        "category": each.category or None,
    }


def relay(
    status: RelayStatus, quotas: Sequence[Quota], used: Sequence[QuotaUse], same_account: Sequence[str]
) -> answers.Relay:
    """A relay as all processes see it, how much is taken of the quotas of its account, and who shares that account."""
    taken = {use.quota: use for use in used}
    return {
        "name": status.name,
        "host": status.host,
        "port": status.port,
        "tls": status.tls,
        "preset": status.preset or None,
        "health": status.health.value,
        "account": status.account,
        "same_account": list(same_account),
        "reason": status.reason or None,
        "until": _moment(status.until),
        "connections": status.connections,
        "max_connections": status.max_connections,
        "in_flight": status.in_flight,
        "sent": status.sent,
        "last_reply": status.last_reply or None,
        "last_error": status.last_error or None,
        "troubles": [_trouble(each) for each in status.troubles],
        "proven_at": _moment(status.proven_at),
        "prober": status.prober,
        "quotas": [_quota(quota, taken.get(quota)) for quota in quotas],
    }


def _trouble(each: Trouble) -> answers.Trouble:
    """`probe`: it stands after `until` too, until a login succeeds."""
    return {
        "kind": each.kind,
        "at": rfc3339(each.at),
        "until": _moment(each.until),
        "probe": each.probe,
        "times": each.times,
        "reason": each.reason,
    }


def relay_event(each: RelayEvent) -> answers.RelayEvent:
    """Something that happened to a relay of the account."""
    return {"at": rfc3339(each.at), "kind": each.kind, "relay": each.relay, "detail": each.detail or None}


def _quota(quota: Quota, use: QuotaUse | None) -> answers.QuotaLeft:
    """Those of a recipient or a domain have a count for each, which is not shown."""
    return {
        "quota": quota.text,
        "per": quota.per.value,
        "unit": quota.unit.value,
        "limit": quota.rate.count,
        "used": use.used if use else None,
        "in_flight": use.in_flight if use else None,
        "left": use.left_for(HIGH + 1) if use else None,
        "left_for_high": use.left_for(HIGH) if use else None,
        "next_free_at": _moment(use.free_at or None) if use else None,
        "next_free_at_for_high": _moment(use.free_at_high or None) if use else None,
    }


def check_step(step: CheckStep) -> answers.CheckStep:
    """One step of a relay's check."""
    return {
        "name": step.name,
        "ok": step.ok,
        "state": step.state.value,
        "milliseconds": None if step.milliseconds is None else round(step.milliseconds, 2),
        "detail": step.detail,
        "hint": step.hint or None,
    }


def key(each: ApiKey) -> answers.Key:
    """An API key, without its secret."""
    return {
        "id": each.id,
        "account": each.account,
        "name": each.name,
        "prefix": each.prefix,
        "scopes": list(each.scopes),
        "from_allowed": list(each.from_allowed),
        "rate": each.rate,
        "created_at": rfc3339(each.created_at),
        "expires_at": _moment(each.expires_at),
        "revoked_at": _moment(each.revoked_at),
    }
