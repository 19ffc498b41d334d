"""Messages after they were accepted: look, move, cancel, retry, erase."""

from starlette.responses import Response

from service.api import answers, views
from service.api.body import json_body
from service.api.convert import message_filter, schedule_problems, validate
from service.api.models import FilterIn, RescheduleIn
from service.api.operations import Call
from service.api.queries import ListQuery
from service.api.requests import json_response, only_query, query
from service.errors import FieldProblem, ValidationFailed
from service.store.shown import MessageFilter, MessageView

_SMALL = 64 * 1024  # octets of a body that holds no message


def _id(call: Call) -> str:
    return str(call.request.path_params["id"])


async def shown(call: Call, view: MessageView) -> answers.Message:
    """A message, with what holds it back."""
    messages = call.context.messages
    return views.message(view, messages, await messages.look([view]))


async def list_messages(call: Call) -> Response:
    """GET /messages."""
    asked = query(call, ListQuery)
    where = message_filter(asked)
    messages, after = await call.context.messages.list(call.caller.account, where, asked.limit, asked.after)
    look = await call.context.messages.look(messages)
    shown = [views.message(each, call.context.messages, look) for each in messages]
    return json_response(views.page(shown, after))


async def get_message(call: Call) -> Response:
    """GET /messages/{id}."""
    only_query(call.request)
    view = await call.context.messages.get(call.caller.account, _id(call))
    return json_response(await shown(call, view))


async def list_events(call: Call) -> Response:
    """GET /messages/{id}/events."""
    only_query(call.request)
    events = await call.context.messages.events(call.caller.account, _id(call))
    return json_response(views.page([views.event(each) for each in events], None))


async def get_raw(call: Call) -> Response:
    """GET /messages/{id}/raw."""
    only_query(call.request)
    raw = await call.context.messages.raw(call.caller.account, _id(call))
    headers = {"Content-Disposition": f'attachment; filename="{_id(call)}.eml"', "X-Content-Type-Options": "nosniff"}
    return Response(raw, media_type="message/rfc822", headers=headers)


async def reschedule(call: Call) -> Response:
    """PATCH /messages/{id}."""
    context = call.context
    async with json_body(call.request, context, _SMALL) as value:
        asked = validate(RescheduleIn, value, context.settings, context.clock.now())
    if problems := schedule_problems(asked.scheduled_at, context.settings, context.clock.now()):
        raise ValidationFailed(errors=problems)
    view = await context.messages.reschedule(call.caller.account, _id(call), asked.scheduled_at)
    return json_response(await shown(call, view))


async def cancel(call: Call) -> Response:
    """POST /messages/{id}/cancel."""
    view = await call.context.messages.cancel(call.caller.account, _id(call))
    return json_response(await shown(call, view))


async def cancel_where(call: Call) -> Response:
    """POST /messages/cancel."""
    context = call.context
    async with json_body(call.request, context, _SMALL) as value:
        where = message_filter(validate(FilterIn, value, context.settings, context.clock.now()))
    if where == MessageFilter():
        detail = "an empty filter would cancel everything: name at least one condition"
        raise ValidationFailed(errors=[FieldProblem("#", "missing", detail)])
    canceled = await context.messages.cancel_where(call.caller.account, where)
    body: answers.Canceled = {"canceled": len(canceled), "messages": canceled}
    return json_response(body)


async def retry(call: Call) -> Response:
    """POST /messages/{id}/retry."""
    view = await call.context.messages.retry(call.caller.account, _id(call))
    return json_response(await shown(call, view), 202, {"Location": f"/messages/{_id(call)}"})


async def erase(call: Call) -> Response:
    """DELETE /messages/{id}."""
    await call.context.messages.erase(call.caller.account, _id(call))
    return Response(status_code=204)
