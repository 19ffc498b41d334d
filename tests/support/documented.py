"""Whether an answer is what the OpenAPI document says of it, member by member: none too few, none that it doesn't name."""

import copy
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from service.api.openapi import document


@cache
def _closed() -> dict[str, Any]:
    """The document's schemas, with objects that have no further members."""
    components = copy.deepcopy(document()["components"])

    def close(schema: Any) -> None:
        if isinstance(schema, dict):
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
            schema = list(schema.values())
        for each in schema if isinstance(schema, list) else ():
            close(each)

    close(components)
    return components


@cache
def _validator(method: str, path: str, status: str) -> Any:
    """For the operation's answer of that status; None where it has no JSON."""
    content = document()["paths"][path][method.lower()]["responses"][status].get("content", {})
    of_json = next((each for media_type, each in content.items() if media_type.endswith("json")), None)
    if of_json is None:
        return None
    return jsonschema_rs.validator_for({**of_json["schema"], "components": _closed()}, validate_formats=True)


def assert_documented(method: str, path: str, status: int, body: Any) -> None:
    """`path` as the document writes it. Raises AssertionError with what is wrong."""
    validator = _validator(method, path, str(status))
    if validator is not None:
        faults = [f"{each.instance_path}: {each.message}" for each in validator.iter_errors(body)]
        assert not faults, (method, path, status, faults)


def assert_answer_documented(method: str, path: str, answer: httpx.Response) -> None:
    """The same of an answer; one without JSON says nothing."""
    if answer.headers.get("Content-Type", "").endswith("json"):
        assert_documented(method, path, answer.status_code, answer.json())
