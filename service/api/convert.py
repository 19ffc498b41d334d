"""From a request body to the use case's value: everything that needs more than one field, or a limit, is checked here."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from service.api.models import AttachmentIn, BatchIn, DsnIn, FilterIn, SendIn, Strict
from service.api.problems import field_problems
from service.durations import shown
from service.errors import FieldProblem, InvalidAttachment, ValidationFailed
from service.mail.bodies import check_attachment, guess_type, in_utf8
from service.mail.draft import Alternative, Attachment, Calendar
from service.mail.envelope import Dsn
from service.mail.headers import check_custom_headers
from service.settings import Settings
from service.spool.values import Submission, TemplateUse
from service.store.shown import MessageFilter

M = TypeVar("M", bound=Strict)

MOST_TOLD = 100  # faults in one answer
_MOST_VALUES = 10_000  # of a request


def validate(model: type[M], value: Any, settings: Settings, now: int, decoded: dict[int, Any] | None = None) -> M:
    """`value` as `model`. Raises ValidationFailed with all faults of all fields, a hundred at most.

    `decoded`: base64 of a batch that is decoded already, so that messages that share a text share its bytes.
    """
    problems: list[FieldProblem] = []
    parsed: M | None = None
    if not issubclass(model, BatchIn):
        _refuse_masses(value)
    try:
        parsed = model.model_validate(value, context=decoded)
    except ValidationError as error:
        problems = field_problems(error, value, model)
    if issubclass(model, SendIn) and isinstance(value, dict):
        problems += _beyond_fields(value, parsed, settings, now)
    if problems:
        files = all(each.pointer.startswith("#/attachments/") for each in problems)
        raise (InvalidAttachment if files else ValidationFailed)(errors=problems[:MOST_TOLD])
    assert parsed is not None
    return parsed


def _refuse_masses(value: Any) -> None:
    """A fault of each of a million entries would take gigabytes to tell. Variables of templates have limits of their own."""
    left, pending = _MOST_VALUES, [value]
    while pending and left > 0:
        each = pending.pop()
        if isinstance(each, dict):
            left -= len(each)
            pending += [inner for name, inner in each.items() if name != "variables"] if left > 0 else []
        elif isinstance(each, list):
            left -= len(each)
            pending += each if left > 0 else []
    if left <= 0:
        detail = f"the request holds more than {_MOST_VALUES} values beside the variables of a template"
        raise ValidationFailed(errors=[FieldProblem("#", "too_many", detail)])


def _beyond_fields(value: dict[str, Any], parsed: Any, settings: Settings, now: int) -> list[FieldProblem]:
    """Faults that no single field shows."""
    problems: list[FieldProblem] = []
    headers = value.get("headers")
    if isinstance(headers, dict):
        given = [(name, text) for name, each in headers.items() for text in _as_list(each) if isinstance(text, str)]
        problems += check_custom_headers(given)
    counted = [each for kind in ("to", "cc", "bcc") for each in _as_list(value.get(kind))]
    if not counted:
        problems.append(FieldProblem("#/to", "missing", "at least one recipient in to, cc or bcc is required"))
    if len(counted) > settings.max_recipients:
        detail = f"{len(counted)} recipients; at most {settings.max_recipients} (POSTROOM_MAX_RECIPIENTS)"
        problems.append(FieldProblem("#/to", "too_many_recipients", detail))
    problems += _count_problems(value, settings)
    problems += _content_problems(value)
    if parsed is not None:
        problems += _attachment_problems(parsed)
        problems += _time_problems(parsed, settings, now)
    return problems


def _count_problems(value: Mapping[str, Any], settings: Settings) -> list[FieldProblem]:
    """More of something than a setting allows."""
    counts = {name: _count(value[name]) for name in ("attachments", "headers", "tags", "metadata") if name in value}
    if not counts:
        return []
    limits = {
        "attachments": settings.max_attachments,
        "headers": settings.max_headers,
        "tags": settings.max_tags,
        "metadata": settings.max_metadata,
    }
    return [
        FieldProblem(f"#/{name}", "too_many", f"at most {limits[name]} (POSTROOM_MAX_{name.upper()})")
        for name, count in counts.items()
        if count > limits[name]
    ]


def _count(value: Any) -> int:
    """Entries of a list; entries of an object, where a list stands for several."""
    if isinstance(value, dict):
        return sum(len(each) if isinstance(each, list) else 1 for each in value.values())
    return len(value) if isinstance(value, list) else 0


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _content_problems(value: Mapping[str, Any]) -> list[FieldProblem]:
    problems: list[FieldProblem] = []
    bodies = [name for name in ("html", "text") if value.get(name) is not None]
    if value.get("template") is not None:
        problems += [
            FieldProblem(f"#/{name}", "conflict", "stands beside a template; give one of them") for name in bodies
        ]
        return problems
    if not bodies:
        problems.append(FieldProblem("#/text", "missing", "html, text or template is required"))
    if value.get("subject") is None:
        problems.append(FieldProblem("#/subject", "missing", "is required without a template"))
    return problems


def _attachment_problems(parsed: SendIn) -> list[FieldProblem]:
    if not parsed.attachments:
        return []
    problems = [
        FieldProblem(f"#/attachments/{index}/content", "missing", "give content or text, one of them")
        for index, each in enumerate(parsed.attachments)
        if (each.content is None) == (each.text is None)
    ]
    return problems + [
        problem
        for index, each in enumerate(parsed.attachments)
        for problem in check_attachment(_attachment(each), f"#/attachments/{index}")
    ]


def _time_problems(parsed: SendIn, settings: Settings, now: int) -> list[FieldProblem]:
    problems: list[FieldProblem] = []
    if parsed.scheduled_at is not None:
        problems += schedule_problems(parsed.scheduled_at, settings, now)
    if parsed.ttl is not None and parsed.ttl > settings.max_ttl:
        detail = f"is longer than {shown(settings.max_ttl)} (POSTROOM_MAX_TTL)"
        problems.append(FieldProblem("#/ttl", "too_long", detail))
    return problems


def schedule_problems(at: int, settings: Settings, now: int) -> list[FieldProblem]:
    """Whether a time may be scheduled for."""
    if at <= now:
        return [FieldProblem("#/scheduled_at", "in_the_past", "lies in the past")]
    if at > now + settings.max_schedule * 1000:
        detail = f"lies more than {shown(settings.max_schedule)} ahead (POSTROOM_MAX_SCHEDULE)"
        return [FieldProblem("#/scheduled_at", "too_far_ahead", detail)]
    return []


def _attachment(each: AttachmentIn) -> Attachment:
    disposition = each.disposition or ("inline" if each.content_id else "attachment")
    if each.content is not None:
        return Attachment(each.filename, each.content, each.content_type, each.content_id, disposition)
    content_type = in_utf8(each.content_type or guess_type(each.filename))
    return Attachment(each.filename, (each.text or "").encode(), content_type, each.content_id, disposition)


def submission(asked: SendIn, *, key: str | None = None, fingerprint: bytes = b"") -> Submission:
    """The use case's value."""
    template = asked.template
    return Submission(
        from_=asked.from_,
        to=tuple(asked.to),
        cc=tuple(asked.cc),
        bcc=tuple(asked.bcc),
        reply_to=tuple(asked.reply_to),
        sender=asked.sender,
        envelope_from=asked.envelope_from.email if asked.envelope_from else None,
        subject=asked.subject,
        html=asked.html,
        text=asked.text,
        template=TemplateUse(template.name, template.variables, template.locale) if template else None,
        amp=asked.amp,
        alternatives=tuple([Alternative(each.content_type, each.content) for each in asked.alternatives]),
        embed_data_urls=asked.embed_data_urls,
        attachments=tuple(map(_attachment, asked.attachments)),
        calendar=(
            Calendar(asked.calendar.method, asked.calendar.content, asked.calendar.filename) if asked.calendar else None
        ),
        headers=tuple([(name, text) for name, each in asked.headers.items() for text in each]),
        tags=tuple(asked.tags),
        metadata=tuple(asked.metadata.items()),
        scheduled_at=asked.scheduled_at,
        ttl=asked.ttl,
        priority=asked.priority,
        importance=asked.importance,
        relay=asked.relay,
        delivery=asked.delivery,
        unsubscribe_urls=tuple(asked.unsubscribe_url),
        in_reply_to=asked.in_reply_to,
        references=tuple(asked.references),
        auto_submitted=asked.auto_submitted,
        dsn=_dsn(asked.dsn) if asked.dsn else None,
        idempotency_key=key,
        fingerprint=fingerprint,
    )


def _dsn(asked: DsnIn) -> Dsn:
    return Dsn(tuple(asked.notify), None if asked.return_ is None else asked.return_ == "full")


def message_filter(asked: FilterIn) -> MessageFilter:
    """Conditions as the store takes them."""
    message_id = asked.message_id.strip("<>") if asked.message_id else None
    provider_message_id = asked.provider_message_id.strip("<>") if asked.provider_message_id else None
    return MessageFilter(
        status=asked.status,
        recipient=asked.recipient,
        from_email=asked.from_,
        tag=asked.tag,
        metadata=tuple(asked.metadata.items()),
        template=asked.template,
        relay=asked.relay,
        message_id=message_id,
        provider_message_id=provider_message_id,
        since=asked.since,
        until=asked.until,
    )
