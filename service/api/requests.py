"""Pieces of a request that several handlers read: query, Idempotency-Key, Prefer."""

import re
from collections import Counter
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.api.body import fingerprint
from service.api.convert import validate
from service.api.models import Strict
from service.api.operations import Call
from service.errors import FieldProblem, InvalidIdempotencyKey, ValidationFailed
from service.store.values import IdempotencyKey

M = TypeVar("M", bound=Strict)

_PRINTABLE = re.compile(r"[\x20-\x7e]{1,256}")
_TWICE = "stands twice in the query"
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:[;,]|$)", re.I)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(to_json(value), status, headers=headers, media_type="application/json")


def query(call: Call, model: type[M]) -> M:
    """The query as `model`. `metadata.KEY=value` becomes metadata; a name twice is a fault. Raises ValidationFailed."""
    value: dict[str, Any] = {}
    for name, text in call.request.query_params.multi_items():
        if name.startswith("metadata."):
            value.setdefault("metadata", {})[name.removeprefix("metadata.")] = text
        elif name in value:
            raise ValidationFailed(errors=[FieldProblem(f"#/{name}", "repeated", _TWICE)])
        else:
            value[name] = int(text) if name == "limit" and text.isascii() and text.isdigit() and len(text) < 9 else text
    return validate(model, value, call.context.settings, call.context.clock.now())


def flag(request: Request, name: str) -> bool:
    """A query parameter that is true or false. Raises ValidationFailed."""
    value = request.query_params.get(name, "false").lower()
    if value not in {"true", "false"}:
        raise ValidationFailed(errors=[FieldProblem(f"#/{name}", "invalid_flag", "must be true or false")])
    return value == "true"


def only_query(request: Request, *known: str) -> None:
    """Refuse query parameters that are not known, and one given twice, of which one would be read. Raises ValidationFailed."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    repeated = [name for name in known if given[name] > 1]
    if repeated:
        raise ValidationFailed(errors=[FieldProblem(f"#/{name}", "repeated", _TWICE) for name in repeated])
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        detail = f"is not known here; known are {', '.join(known) or 'none'}"
        raise ValidationFailed(errors=[FieldProblem(f"#/{name}", "unknown_parameter", detail) for name in unknown])


def idempotency_key(request: Request, value: Any) -> IdempotencyKey | None:
    """Key and fingerprint; bare and quoted keys are equal. Raises InvalidIdempotencyKey."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    key = given.strip()
    if len(key) >= 2 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if _PRINTABLE.fullmatch(key) is None:
        raise InvalidIdempotencyKey
    query_string = request.scope["query_string"].decode("latin-1")
    return IdempotencyKey(key, fingerprint(request.method, request.scope["path"], query_string, value))


def prefer_wait(request: Request, longest: float) -> float | None:
    """Seconds of `Prefer: wait=N` (RFC 7240 section 4.3), bounded."""
    found = _WAIT.search(request.headers.get("prefer", ""))
    return min(float(found[1]), longest) if found else None
