"""POST /send and POST /send/batch."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from service import failpoints
from service.api import views
from service.api.body import fingerprint, json_body
from service.api.convert import submission, validate
from service.api.models import BatchIn, BatchItemIn, SendIn
from service.api.operations import Call
from service.api.reading import shown
from service.api.requests import flag, idempotency_key, json_response, only_query, prefer_wait
from service.errors import FieldProblem, PostroomError, ValidationFailed
from service.mail.lifecycle import OPEN
from service.spool.values import Answer, ItemResult, Submission
from service.telemetry import bind_message

_ITEMS_AT_ONCE = 25  # of a batch, checked without a pause
_MESSAGE_ALLOWED = "POSTROOM_MAX_MESSAGE_BYTES allows {} octets of content, which base64 makes a third larger."
_BATCH_ALLOWED = "POSTROOM_MAX_BATCH_BYTES allows {} octets of messages, which base64 makes a third larger."


async def send(call: Call) -> Response:
    """One message: 202, 200 after `Prefer: wait`, or the preview of a dry run."""
    request, context = call.request, call.context
    asks_more = bool(request.scope["query_string"])
    if asks_more:
        only_query(request, "dry_run")
    settings = context.settings
    allowed = partial(_MESSAGE_ALLOWED.format, settings.max_message_bytes)
    async with json_body(request, context, settings.raw_body_limit, allowed=allowed) as value:
        key = idempotency_key(request, value)
        if asks_more and flag(request, "dry_run"):
            return json_response(views.preview(await context.submitter.preview(_made(call, value), call.caller)))
        answer = await context.submitter.submit(partial(_made, call, value), call.caller, key, views.accepted_bytes)
    seconds = prefer_wait(request, context.settings.max_wait)
    if seconds is None:
        return accepted(answer)
    return await _after_wait(call, answer, seconds)


def _made(call: Call, value: Any) -> Submission:
    settings = call.context.settings
    return submission(validate(SendIn, value, settings, call.context.clock.now()))


def _id_of(body: bytes) -> str:
    """The id in an answer that `views.accepted_bytes` made: its first member."""
    return body[7 : body.index(b'"', 7)].decode()


def accepted(answer: Answer) -> Response:
    """The 202 of one message."""
    id = _id_of(answer.body)
    bind_message(id)
    return _answered(answer, id)


def _answered(answer: Answer, id: str | None) -> Response:
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    if id is not None:
        headers["Location"] = f"/messages/{id}"
    failpoints.passed("answer.before_202")
    return Response(answer.body, 202, headers=headers, media_type="application/json")


async def _after_wait(call: Call, answer: Answer, seconds: float) -> Response:
    id = _id_of(answer.body)
    view = await call.context.messages.wait(call.caller.account, id, seconds)
    if any(each.state in OPEN for each in view.recipients):
        return accepted(answer)
    headers = {"Location": f"/messages/{id}", "Preference-Applied": f"wait={seconds:g}"}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    return json_response(await shown(call, view), headers=headers)


async def send_batch(call: Call) -> Response:
    """Many messages, each on top of `base`."""
    request, context = call.request, call.context
    only_query(request, "on_error")
    partial_ok = _on_error(request.query_params.get("on_error", "reject_all"))
    settings = context.settings
    limit = settings.max_batch_bytes * 4 // 3 + 1024 * 1024
    allowed = partial(_BATCH_ALLOWED.format, settings.max_batch_bytes)
    context.submitter.check_open()  # what is refused anyway waits for no turn
    turn = context.batches.turn(call.caller.account, request.is_disconnected)
    async with json_body(request, context, limit, allowed=allowed, turn=turn) as value:
        batch = validate(BatchIn, value, settings, context.clock.now())
        if len(batch.messages) > settings.max_batch_messages:
            detail = (
                f"{len(batch.messages)} messages; at most {settings.max_batch_messages} (POSTROOM_MAX_BATCH_MESSAGES)"
            )
            raise ValidationFailed(errors=[FieldProblem("#/messages", "too_many_messages", detail)])
        items: list[Submission | PostroomError] = []
        decoded: dict[int, Any] = {}
        keys: set[str] = set()
        for number, message in enumerate(batch.messages, 1):
            whole = _with_base(batch.base, message) if isinstance(message, dict) else None
            items.append(_item(call, whole, decoded, keys))
            if number % _ITEMS_AT_ONCE == 0:
                await context.store.make_way()  # a batch must not hold up the loop
        key = idempotency_key(request, value)
        answer = await context.submitter.submit_batch(
            items,
            call.caller,
            key,
            partial=partial_ok,
            shape=partial(_shape, request_id=call.request_id),
            shape_item=views.accepted_bytes,
        )
    if partial_ok and answer.body.startswith(b'{"accepted":0,'):
        return _nothing_accepted(answer)
    return _answered(answer, None)


def _with_base(base: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """null is absent, so it leaves what `base` has; of what only the message has it stays, to be judged there."""
    if None not in message.values():
        return {**base, **message}
    return {**base, **{name: each for name, each in message.items() if each is not None or name not in base}}


def _on_error(value: str) -> bool:
    if value not in {"reject_all", "partial"}:
        raise ValidationFailed(errors=[FieldProblem("#/on_error", "invalid_choice", "must be reject_all or partial")])
    return value == "partial"


def _item(
    call: Call, value: dict[str, Any] | None, decoded: dict[int, Any], keys: set[str]
) -> Submission | PostroomError:
    """One message, None when it is no object. `decoded` and `keys` are those of the messages before it."""
    if value is None:
        return ValidationFailed(errors=[FieldProblem("#", "dict_type", "must be an object")])
    settings = call.context.settings
    try:
        asked = validate(BatchItemIn, value, settings, call.context.clock.now(), decoded)
        if asked.idempotency_key in keys:
            detail = "another message of this batch has the same key"
            raise ValidationFailed(errors=[FieldProblem("#/idempotency_key", "repeated", detail)])
        keys.update(filter(None, [asked.idempotency_key]))
        print_ = fingerprint("POST", "/send/batch#item", "", value) if asked.idempotency_key else b""
        return submission(asked, key=asked.idempotency_key, fingerprint=print_)
    except PostroomError as error:
        return error


def _shape(results: Sequence[ItemResult], request_id: str) -> bytes:
    return views.batch_bytes(results, request_id)


def _nothing_accepted(answer: Answer) -> Response:
    """A partial batch of which nothing was good is a 422 with every fault."""
    entries = json.loads(answer.body)["results"]
    problems = [
        FieldProblem(each["pointer"], each["code"], each["detail"]).under(f"/messages/{entry['index']}")
        for entry in entries
        for each in entry["error"].get("errors") or [{"pointer": "#", **_only(entry["error"])}]
    ]
    raise ValidationFailed("None of the messages was accepted.", errors=problems)


def _only(error: dict[str, Any]) -> dict[str, Any]:
    return {"code": error["code"], "detail": error["detail"]}
