"""The OpenAPI document is true: every request example gets its documented status, and an answer of its documented form."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.openapi import document
from service.api.table import OPERATIONS
from service.clock import SYSTEM, rfc3339
from tests.support.documented import assert_answer_documented, assert_documented
from tests.support.running import ARTICLE, running

EXAMPLES = [
    (
        operation.method,
        operation.path,
        name,
        value,
        {str(success.status) for success in operation.successes},
        dict(operation.path_examples),
    )
    for operation in OPERATIONS
    for name, value in (operation.examples.items() if operation.body else [("", None)])
]


@pytest.mark.parametrize(
    ("method", "path", "name", "value", "statuses", "places"), EXAMPLES, ids=lambda value: str(value)[:30]
)
async def test_each_example_gets_its_documented_status(
    method: str, path: str, name: str, value: Any, statuses: set[str], places: dict[str, str], tmp_path: Path
) -> None:
    async with running(tmp_path, max_schedule=10**10) as (client, _):  # the example's date is far ahead
        places |= await _make_what_the_path_names(client, path)
        asked = path
        for place, text in places.items():
            asked = asked.replace(f"{{{place}}}", text)
        answer = await client.request(method, asked, **({} if value is None else {"json": value}))
        assert str(answer.status_code) in statuses, answer.text
        assert_answer_documented(method, path, answer)


async def _make_what_the_path_names(client: httpx.AsyncClient, path: str) -> dict[str, str]:
    """The thing that an example's path speaks of."""
    if path.startswith("/messages/{id}"):
        soon = rfc3339(SYSTEM.now() + 3_600_000)
        id = (await client.post("/send", json={**ARTICLE, "scheduled_at": soon})).json()["id"]
        if path.endswith("/retry"):
            await client.post(f"/messages/{id}/cancel")
        return {"id": id}
    if path == "/suppressions/{email}":
        await client.post("/suppressions", json={"email": "gone@example.org"})
    if path == "/templates/{name}":
        await client.put("/templates/hello", json={})
    if path == "/keys/{id}":
        return {"id": (await client.post("/keys", json={"name": "x"})).json()["id"]}
    return {}


def test_every_operation_has_examples_of_its_body_and_of_all_its_errors() -> None:
    made = document()
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["examples"], (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400 and "application/problem+json" in response.get("content", {}):
                    for code, example in response["content"]["application/problem+json"]["examples"].items():
                        assert (example["value"]["code"], example["value"]["status"]) == (code, int(status))


def test_every_example_of_an_answer_has_the_form_that_its_schema_says() -> None:
    seen = 0
    for operation in OPERATIONS:
        for success in operation.successes:
            if isinstance(success.schema, str):
                assert_documented(operation.method, operation.path, success.status, success.example)
                seen += 1
    assert seen > 30


def test_an_answer_with_a_member_too_few_or_too_many_is_noticed() -> None:
    whole = {"status": "alive"}
    assert_documented("GET", "/healthz", 200, whole)
    for wrong in ({}, {"status": "alive", "since": 1}, {"status": None}):
        with pytest.raises(AssertionError):
            assert_documented("GET", "/healthz", 200, wrong)
