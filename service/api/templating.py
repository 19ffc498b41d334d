"""Templates: look, preview, check, publish, reload, send a test."""

import asyncio
from dataclasses import replace

from starlette.responses import Response

from service.api import answers, views
from service.api.body import json_body
from service.api.convert import validate
from service.api.models import FilesIn, PublishIn, RenderIn, SendTestIn
from service.api.operations import Call
from service.api.requests import idempotency_key, json_response, only_query
from service.api.sending import accepted
from service.errors import FieldProblem, NotFound, PostroomError, TemplateNotFound, TemplateRefused, ValidationFailed
from service.mail.lint import Finding
from service.mail.render import Rendered, Template
from service.mail.template import NAME
from service.spool.check import check_template, fault_problem
from service.spool.scaffold import scaffold
from service.spool.templates import Loaded
from service.spool.values import Submission, TemplateUse

_LARGE = 4 * 1024 * 1024  # octets: a template with its layouts and languages
_SMALL = 1024 * 1024


async def _loaded(call: Call) -> Loaded:
    try:
        return await call.context.templates.get(str(call.request.path_params["name"]))
    except TemplateNotFound as error:
        raise NotFound(error.errors[0].detail) from None


def _name(call: Call) -> str:
    name = str(call.request.path_params["name"])
    if NAME.fullmatch(name) is None:
        detail = "a template's name is lower-case letters, digits and hyphens, at most 64"
        raise ValidationFailed(errors=[FieldProblem("#/name", "invalid_name", detail)])
    return name


async def list_templates(call: Call) -> Response:
    """GET /templates."""
    only_query(call.request)
    return json_response(views.page([views.template(each) for each in await call.context.templates.all()], None))


async def get_template(call: Call) -> Response:
    """GET /templates/{name}."""
    only_query(call.request)
    return json_response(views.template(await _loaded(call)))


async def list_versions(call: Call) -> Response:
    """GET /templates/{name}/versions."""
    only_query(call.request)
    try:
        found = await call.context.templates.versions(_name(call))
    except TemplateNotFound as error:
        raise NotFound(error.errors[0].detail) from None
    return json_response(views.page([views.template_version(each) for each in found], None))


async def render_template(call: Call) -> Response:
    """POST /templates/{name}/render."""
    context = call.context
    loaded = await _loaded(call)
    async with json_body(call.request, context, _SMALL, optional=True) as value:
        asked = validate(RenderIn, value, context.settings, context.clock.now())
        variables = loaded.template.sample(asked.locale) if asked.variables is None else asked.variables
        rendered = context.submitter.render(loaded.template, variables, asked.locale)
    return json_response(_rendered(loaded, rendered))


def _rendered(loaded: Loaded, rendered: Rendered) -> answers.Rendered:
    return {
        "name": rendered.template,
        "version": loaded.number,
        "locale": rendered.locale,
        "subject": rendered.subject,
        "html": rendered.html,
        "text": rendered.text,
    }


async def _findings(call: Call, template: Template) -> list[Finding]:
    def render(each: Template, locale: str) -> Rendered:
        return call.context.submitter.render(each, each.sample(locale), locale)

    return await asyncio.to_thread(check_template, template, render)  # every language, rendered and looked through


def _report(findings: list[Finding]) -> answers.TemplateCheck:
    return {
        "ok": all(each.severity != "error" for each in findings),
        "findings": [views.finding(each) for each in findings],
    }


async def check_loaded(call: Call) -> Response:
    """POST /templates/{name}/check."""
    return json_response(_report(await _findings(call, (await _loaded(call)).template)))


async def check_files(call: Call) -> Response:
    """POST /templates/check: nothing is kept."""
    context = call.context
    async with json_body(call.request, context, _LARGE) as value:
        asked = validate(FilesIn, value, context.settings, context.clock.now())
        template = await context.templates.compile("draft", asked.files)
    return json_response(_report(await _findings(call, template)))


async def publish_template(call: Call) -> Response:
    """PUT /templates/{name}."""
    context, name = call.context, _name(call)
    async with json_body(call.request, context, _LARGE) as value:
        asked = validate(PublishIn, value, context.settings, context.clock.now())
        before = await _current(call, name)
        loaded = await context.templates.publish(name, scaffold(name) if asked.files is None else asked.files)
    body: answers.PublishedTemplate = {**views.template(loaded), **_report(await _findings(call, loaded.template))}
    changed = before is None or before.template.digest != loaded.template.digest
    return json_response(body, 201 if changed else 200, {"Location": f"/templates/{name}"})


async def _current(call: Call, name: str) -> Loaded | None:
    """What a name means now; None: nothing that can be used."""
    try:
        return await call.context.templates.get(name)
    except (TemplateNotFound, TemplateRefused):
        return None


async def retire_template(call: Call) -> Response:
    """DELETE /templates/{name}."""
    only_query(call.request)
    try:
        await call.context.templates.retire(_name(call))
    except TemplateNotFound as error:
        raise NotFound(error.errors[0].detail) from None
    return Response(status_code=204)


async def reload_templates(call: Call) -> Response:
    """POST /templates/reload."""
    found = await call.context.templates.reload()
    faults = [fault_problem(fault) for fault in found.faults]
    body: answers.TemplatesReloaded = {
        "templates": [{"name": each.template.name, "version": each.number} for each in found.loaded],
        "refused": [{"pointer": each.pointer, "code": each.code, "detail": each.detail} for each in faults],
    }
    return json_response(body)


async def send_test(call: Call) -> Response:
    """POST /templates/{name}/send-test: the sample, by the same way as every message."""
    context = call.context
    loaded = await _loaded(call)
    async with json_body(call.request, context, _SMALL) as value:
        asked = validate(SendTestIn, value, context.settings, context.clock.now())
        if len(asked.to) > context.settings.max_recipients:
            detail = f"{len(asked.to)} recipients; at most {context.settings.max_recipients} (POSTROOM_MAX_RECIPIENTS)"
            raise ValidationFailed(errors=[FieldProblem("#/to", "too_many_recipients", detail)])
        template = loaded.template
        variables = dict(template.sample(asked.locale)) if asked.variables is None else asked.variables
        one = Submission(
            from_=asked.from_,
            to=tuple(asked.to),
            template=TemplateUse(str(call.request.path_params["name"]), variables, asked.locale),
            attachments=context.templates.sample_attachments(template, context.settings.max_message_bytes),
            tags=(("test", ""),),
            relay=asked.relay,
        )
        key = idempotency_key(call.request, value)
        try:
            answer = await context.submitter.submit(lambda: one, call.caller, key, views.accepted_bytes)
        except PostroomError as error:
            error.errors = tuple(map(_of_send_test, error.errors))
            raise
    return accepted(answer)


def _of_send_test(problem: FieldProblem) -> FieldProblem:
    """A fault of the message, at the field of this request that made it; `#` for what the template itself brings."""
    path = problem.pointer.removeprefix("#").removeprefix("/template")
    field = path.removeprefix("/").partition("/")[0]
    known = {each.alias or name for name, each in SendTestIn.model_fields.items()}
    return replace(problem, pointer=f"#{path}" if field in known else "#")
