"""The OpenAPI 3.1 document, made from the operation table: an example for every operation and every error."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api import answers
from service.api.examples import ID
from service.api.operations import ErrorType, Operation, Success
from service.api.problems import problem_document
from service.api.table import OPERATIONS
from service.errors import FieldProblem, ValidationFailed

VERSION = "1"
_REF = "#/components/schemas/{model}"
# RFC 9110 15.5.14 and 15.5.21; before 3.13 Python has the names of older RFCs
_RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}
_TAGS = {
    "Sending": "Hand in mail.",
    "Messages": "What became of it.",
    "Templates": "Words and looks.",
    "Suppressions": "Addresses that get no mail.",
    "Relays": "The providers that carry it.",
    "Keys": "Who may do what.",
    "Operation": "For orchestrators and monitors.",
}
_BARE_ADDRESS = (
    "A bare address: no display name, no quotes, a full domain name. Percent-encode what a path does not hold, such as `?`, `#`"
    " and `%`."
)
_DESCRIPTION = """\
Other services hand in mail by `POST /send`; Postroom stores it durably, answers 202 and relays it.

* **Addresses** are `"a@b"`, `"Name <a@b>"` or `{"email", "name"}`, one or a list everywhere.
* **Errors** are `application/problem+json` (RFC 9457) with a stable `code`; `errors` names every faulty field by its
  RFC 6901 pointer, all at once. Unknown fields are faults; null is read as absent where a field may be absent. What is refused
  before its path is known has no `instance`: 400 `malformed_request`, 408 `request_timeout`, 431 `head_too_large`.
* **Idempotency-Key** makes a repeat of `POST /send` and `POST /send/batch` safe: the same request gets the same answer with
  `Idempotent-Replayed: true`; another request under the same key is a 422. Kept at least 24 hours.
* **Keys** are sent as `Authorization: Bearer pr_...`; each has scopes, and may be bound to sender addresses (`from`, `sender`
  and `envelope_from`, not `reply_to`) and a rate. The scope `admin` is the operator's: it acts on the keys of its account,
  and on the relays and templates of the whole service, whatever the account.
* Answers carry `X-Request-Id`. 409 (concurrent), 429 and 503 carry `Retry-After`.
"""


def document() -> dict[str, Any]:
    """The whole document, deterministic."""
    bodies = sorted({each.body for each in OPERATIONS if each.body}, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    schemas = {**definitions["$defs"], **_answer_schemas()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Postroom",
            "version": VERSION,
            "summary": "Transactional email over your own provider relays.",
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": words} for name, words in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, `pr_...`."}},
        },
    }


def _operation(each: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": each.id,
        "tags": [each.tag],
        "summary": each.summary,
        "description": each.description + (f" Needs the scope `{each.scope}`." if each.scope else ""),
        "parameters": _parameters(each),
        "responses": _responses(each),
    }
    if each.scope is not None:
        made["security"] = [{"key": []}]
    if each.body is not None:
        made["requestBody"] = {
            "required": not each.body_optional,
            "content": {
                "application/json": {
                    "schema": {"$ref": _REF.format(model=each.body.__name__)},
                    "examples": {name: {"value": value} for name, value in each.examples.items()},
                }
            },
        }
    return made


# --- parameters -------------------------------------------------------------------------------------------------


def _parameters(each: Operation) -> list[dict[str, Any]]:
    parameters = [_path_parameter(each, name) for name in re.findall(r"{(\w+)}", each.path)]
    if each.query is not None:
        parameters += _query_parameters(each.query)
    if each.id == "send":
        parameters.append(
            _parameter("query", "dry_run", {"type": "boolean", "default": False}, "Make everything, store nothing.")
        )
    if each.id == "send_batch":
        choice = {"type": "string", "enum": ["reject_all", "partial"], "default": "reject_all"}
        parameters.append(_parameter("query", "on_error", choice, "What to do when some messages have faults."))
    if each.idempotent:
        schema = {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$", "examples": ["order-4711"]}
        parameters.append(_parameter("header", "Idempotency-Key", schema, "Printable ASCII, bare or in double quotes."))
    if each.wait:
        schema = {"type": "string", "examples": ["wait=10"]}
        parameters.append(_parameter("header", "Prefer", schema, "`wait=N`: up to 30 seconds (RFC 7240)."))
    return parameters


def _parameter(place: str, name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": dict(schema)}


def _path_parameter(each: Operation, name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "examples": [each.path_examples.get(name, ID)]}
    if name == "email":
        schema |= {"maxLength": 254, "pattern": r"^[^@\s]+@[^@\s]+$"}
    return _parameter("path", name, schema, {"id": "Id.", "name": "Name.", "email": _BARE_ADDRESS}[name])


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_REF)
    properties = {name: dict(each) for name, each in schema["properties"].items() if name != "metadata"}
    return [_parameter("query", name, each, each.pop("description", "")) for name, each in properties.items()]


# --- responses --------------------------------------------------------------------------------------------------


def _responses(each: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for success in each.successes:
        responses[str(success.status)] = _success(success)
    by_status: dict[int, list[ErrorType]] = {}
    for error in each.all_errors:
        by_status.setdefault(error.status, []).append(error)
    for status, errors in sorted(by_status.items()):
        responses.setdefault(str(status), _errors(each, status, errors))
    return dict(sorted(responses.items()))


def _success(success: Success) -> dict[str, Any]:
    made: dict[str, Any] = {"description": success.description}
    headers = {"X-Request-Id": "Id of this request.", **success.headers}
    made["headers"] = {name: {"description": words, "schema": {"type": "string"}} for name, words in headers.items()}
    if success.schema is not None:
        schema = (
            {"$ref": _REF.format(model=success.schema)} if isinstance(success.schema, str) else dict(success.schema)
        )
        content: dict[str, Any] = {"schema": schema}
        if success.example is not None:
            content["example"] = success.example
        made["content"] = {success.media_type: content}
    return made


def _errors(each: Operation, status: int, errors: list[ErrorType]) -> dict[str, Any]:
    headers = {"X-Request-Id": "Id of this request."}
    if status in (409, 429, 503):
        headers["Retry-After"] = "Seconds, where repeating makes sense."
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer."
    return {
        "description": f"{_RENAMED.get(status) or HTTPStatus(status).phrase}: {', '.join(error.code for error in errors)}.",
        "headers": {name: {"description": words, "schema": {"type": "string"}} for name, words in headers.items()},
        "content": {
            "application/problem+json": {
                "schema": {"$ref": _REF.format(model="Problem")},
                "examples": {error.code: {"value": _error_example(each, error)} for error in errors},
            }
        },
    }


def _error_example(each: Operation, error: ErrorType) -> answers.Problem:
    problems = [FieldProblem("#/to/0", "invalid_address", "must have the form local@domain")]
    made = error(errors=problems if error is ValidationFailed else [])
    path = each.path
    for name in re.findall(r"{(\w+)}", path):
        path = path.replace(f"{{{name}}}", each.path_examples.get(name, ID))
    return problem_document(made, path, "req_01M86KP85SV3J083Y0N1904CWS")


def _answer_schemas() -> dict[str, Any]:
    """Schemas of the answers, by the names in the table."""
    named = {success.schema for each in OPERATIONS for success in each.successes if isinstance(success.schema, str)}
    return answers.schemas(sorted({*named, "Problem"}), _REF)
