"""Suppressions, relays, keys, and what operators watch."""

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from starlette.responses import Response

from service.api import answers, views
from service.api.body import json_body
from service.api.convert import validate
from service.api.models import KeyIn, PauseIn, SuppressionIn
from service.api.operations import Call
from service.api.queries import CheckQuery, ReasonQuery, SuppressionQuery
from service.api.requests import json_response, only_query, query
from service.errors import FieldProblem, NotFound, RelayNotFound, ValidationFailed
from service.mail.address import make_mailbox
from service.relay.port import Relay
from service.spool.waiting import quotas_of
from service.store.shown import Suppression
from service.telemetry import CONTENT_TYPE

_SMALL = 1024 * 1024  # octets
_EVENTS = 50  # of a relay's account, at most


# --- suppressions -----------------------------------------------------------------------------------------------


def _address(call: Call) -> str:
    return make_mailbox(str(call.request.path_params["email"]), "", "#/email").email


async def list_suppressions(call: Call) -> Response:
    """GET /suppressions."""
    asked = query(call, SuppressionQuery)
    account = call.caller.account
    found = await call.context.store.list_suppressions(account, asked.reason, asked.limit + 1, asked.after)
    shown = found[: asked.limit]
    after = shown[-1].email if len(found) > asked.limit else None
    return json_response(views.page([views.suppression(each) for each in shown], after))


async def add_suppression(call: Call) -> Response:
    """POST /suppressions."""
    context = call.context
    async with json_body(call.request, context, _SMALL) as value:
        asked = validate(SuppressionIn, value, context.settings, context.clock.now())
    if asked.category and asked.reason != "unsubscribe":
        detail = "only an unsubscribe has a category; other reasons hold for all mail"
        raise ValidationFailed(errors=[FieldProblem("#/category", "conflict", detail)])
    entry = Suppression(
        asked.email.email, asked.reason, "api", context.clock.now(), None, asked.detail, asked.category or ""
    )
    new = await context.store.add_suppression(call.caller.account, entry)
    kept = await context.store.get_suppressions(call.caller.account, entry.email)
    same = (each for each in kept if (each.reason, each.category) == (entry.reason, entry.category))
    shown = next(same, replace(entry))
    location = f"/suppressions/{quote(entry.email, safe='@')}"
    return json_response(views.suppression(shown), 201 if new else 200, {"Location": location})


async def get_suppression(call: Call) -> Response:
    """GET /suppressions/{email}."""
    only_query(call.request)
    found = await call.context.store.get_suppressions(call.caller.account, _address(call))
    if not found:
        raise NotFound("This address is not suppressed.")
    return json_response(views.page([views.suppression(each) for each in found], None))


async def remove_suppression(call: Call) -> Response:
    """DELETE /suppressions/{email}."""
    asked = query(call, ReasonQuery)
    removed = await call.context.store.remove_suppressions(
        call.caller.account, _address(call), asked.reason, asked.category
    )
    if not removed:
        raise NotFound("This address is not suppressed.")
    return Response(status_code=204)


# --- relays -----------------------------------------------------------------------------------------------------


def _relay(call: Call) -> Relay:
    try:
        return call.context.relays.get(str(call.request.path_params["name"]))
    except RelayNotFound as error:
        raise NotFound(error.detail) from None


async def list_relays(call: Call) -> Response:
    """GET /relays."""
    only_query(call.request)
    relays = [call.context.relays.get(name) for name in call.context.relays.names()]
    return json_response(views.page(await _views(call, relays), None))


async def _views(call: Call, relays: Sequence[Relay]) -> list[answers.Relay]:
    context, now = call.context, call.context.clock.now()
    used = await quotas_of(context.store, context.relays, now)
    seen = await context.watch.statuses()
    alike: dict[str, list[str]] = {}
    for name in context.relays.names():
        alike.setdefault(context.relays.get(name).account, []).append(name)
    return [
        views.relay(
            seen.get(each.name) or each.status(now),
            each.quotas,
            used.get(each.name, ()),
            [name for name in alike.get(each.account, ()) if name != each.name],
        )
        for each in relays
    ]


async def _shown(call: Call, relay: Relay) -> Response:
    return json_response((await _views(call, [relay]))[0])


async def get_relay(call: Call) -> Response:
    """GET /relays/{name}."""
    only_query(call.request)
    relay = _relay(call)
    events = await call.context.store.relay_events(relay.account, _EVENTS)
    shown = (await _views(call, [relay]))[0]
    body: answers.RelayWithEvents = {**shown, "events": [views.relay_event(each) for each in events]}
    return json_response(body)


async def check_relay(call: Call) -> Response:
    """POST /relays/{name}/check."""
    asked, relay = query(call, CheckQuery), _relay(call)
    sender = make_mailbox(asked.from_, "", "#/from").email if asked.from_ is not None else ""
    steps = await relay.check(sender, force=asked.force)
    body: answers.Check = {"ok": all(step.ok for step in steps), "steps": [views.check_step(step) for step in steps]}
    return json_response(body)


async def pause_relay(call: Call) -> Response:
    """POST /relays/{name}/pause."""
    context, relay = call.context, _relay(call)
    async with json_body(call.request, context, _SMALL, optional=True) as value:
        asked = validate(PauseIn, value, context.settings, context.clock.now())
    await relay.hold(asked.reason)
    return await _shown(call, relay)


async def resume_relay(call: Call) -> Response:
    """POST /relays/{name}/resume."""
    relay = _relay(call)
    await relay.resume()
    return await _shown(call, relay)


# --- keys -------------------------------------------------------------------------------------------------------


async def list_keys(call: Call) -> Response:
    """GET /keys."""
    only_query(call.request)
    found = await call.context.keys.list(call.caller.account)
    return json_response(views.page([views.key(each) for each in found], None))


async def create_key(call: Call) -> Response:
    """POST /keys."""
    context = call.context
    async with json_body(call.request, context, _SMALL) as value:
        asked = validate(KeyIn, value, context.settings, context.clock.now())
    key, token = await context.keys.create(
        call.caller.account, asked.name, asked.scopes, asked.from_allowed, asked.rate, asked.expires_at
    )
    body: answers.NewKey = {**views.key(key), "key": token}
    return json_response(body, 201)


async def revoke_key(call: Call) -> Response:
    """DELETE /keys/{id}."""
    if not await call.context.keys.revoke(call.caller.account, str(call.request.path_params["id"])):
        raise NotFound("There is no such active key.")
    return Response(status_code=204)


# --- operation --------------------------------------------------------------------------------------------------


async def healthz(call: Call) -> Response:
    """GET /healthz."""
    body: answers.Alive = {"status": "alive"}
    return json_response(body)


async def readyz(call: Call) -> Response:
    """GET /readyz."""
    ready, report = await call.context.readiness.report()
    return json_response(report, 200 if ready else 503, None if ready else {"Retry-After": "1"})


async def metrics(call: Call) -> Response:
    """GET /metrics."""
    return Response(call.context.metrics.render(), media_type=CONTENT_TYPE)
