"""Errors as RFC 9457 `application/problem+json`, and pydantic's findings as pointers into the request."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from service.api.answers import Problem
from service.api.elsewhere import told_elsewhere
from service.api.wording import sentence
from service.errors import FieldProblem, PostroomError, pointer_step

MEDIA_TYPE = "application/problem+json"
MOST_READ = 200  # findings; more than are told


def problem_document(error: PostroomError, instance: str, request_id: str) -> Problem:
    """The members of the problem."""
    document: Problem = {
        "type": f"urn:postroom:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "request_id": request_id,
    }
    if error.errors:
        document["errors"] = [
            {"pointer": each.pointer, "code": each.code, "detail": each.detail} for each in error.errors
        ]
    return document


def problem_response(
    error: PostroomError, instance: str, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer; Retry-After on 409, 429 and 503, WWW-Authenticate on 401."""
    extra = dict(headers or {})
    if error.retry_after is not None:
        extra["Retry-After"] = str(max(1, int(error.retry_after + 0.999)))
    if error.status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="postroom"'
    body = to_json(problem_document(error, instance, request_id))
    return Response(body, error.status, headers=extra, media_type=MEDIA_TYPE)


def field_problems(error: ValidationError, value: Any, model: type[BaseModel]) -> list[FieldProblem]:
    """Every finding, with a pointer that exists in `value` (or would, where something is missing)."""
    found = error.errors(include_url=False, include_input=True, include_context=True)
    return [_problem(each, value, model) for each in found[:MOST_READ]]


def _problem(found: Any, value: Any, model: type[BaseModel]) -> FieldProblem:
    location: Sequence[str | int] = found["loc"]
    kind: str = found["type"]
    pointer = _pointer(location, value, keep_last=kind in {"missing", "extra_forbidden"})
    if kind == "postroom":
        return FieldProblem(pointer, found["ctx"]["code"], found["ctx"]["detail"])
    if kind == "extra_forbidden":
        return FieldProblem(pointer, "unknown_field", _unknown(location, model))
    return FieldProblem(pointer, kind, sentence(kind, found.get("ctx", {}), of_text=isinstance(found["input"], str)))


def _pointer(location: Sequence[str | int], value: Any, *, keep_last: bool) -> str:
    """The location without the steps that the request does not have (one given where a list is meant)."""
    steps: list[str] = []
    for index, step in enumerate(location):
        known = isinstance(value, dict) and step in value
        if known or (isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)):
            value = value[step]
        elif not (keep_last and index == len(location) - 1):
            continue
        steps.append(pointer_step(str(step)))
    return "#" + "".join(f"/{step}" for step in steps)


def _unknown(location: Sequence[str | int], model: type[BaseModel]) -> str:
    """What is said of a field that there is not: its name here, why it is refused, or the nearest there is."""
    name = str(location[-1])
    within = _model_at(model, [step for step in location[:-1] if isinstance(step, str)])
    if within is None:
        return "is not known"
    names = [field.alias or each for each, field in within.model_fields.items()]
    if (told := told_elsewhere(name, within, names)) is not None:
        return told
    near = get_close_matches(name.lower(), names, 1, 0.6)
    return f"is not known; did you mean {near[0]}?" if near else f"is not known; known are {', '.join(names)}"


def _model_at(model: type[BaseModel], steps: Sequence[str]) -> type[BaseModel] | None:
    for step in steps:
        field = next((each for name, each in model.model_fields.items() if step in (each.alias, name)), None)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in getattr(annotation, "__args__", ()) if (found := _model_in(each))), None)
