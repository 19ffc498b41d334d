"""Values that are legal and odd, or wrong in an odd way: kept and found again, or refused by name; never a 500."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.running import ARTICLE, running


@pytest.mark.parametrize("email", ["a/b@z.org", "a?b#c%20@z.org", "用户@z.org", "leaver+1@z.org", "/@z.org"])
async def test_every_address_that_can_be_suppressed_is_found_at_its_location_and_can_be_freed(
    tmp_path: Path, email: str
) -> None:
    async with running(tmp_path) as (client, _):
        made = await client.post("/suppressions", json={"email": email})
        assert made.status_code == 201, made.text
        location = made.headers["location"]
        assert location == f"/suppressions/{quote(email, safe='@')}"
        assert (await client.get(location)).json()["data"][0]["email"] == email
        assert (await client.delete(location)).status_code == 204
        assert (await client.get(location)).status_code == 404


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"rate": "1/0s"}, "#/rate"),
        ({"rate": "1/99999999999999999999d"}, "#/rate"),
        ({"rate": "99999999999999999999/s"}, "#/rate"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "#/expires_at"),
    ],
)
async def test_a_key_that_could_never_be_used_is_not_made(tmp_path: Path, more: dict[str, str], pointer: str) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.post("/keys", json={"name": "shop", **more})
        assert answer.status_code == 422, answer.text
        assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
        assert (await client.get("/keys")).json()["data"] == []


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"ttl": 9007199254740993}, "is longer than 30 years"),
        ({"ttl": "9999999999999999d"}, "is longer than 30 years"),
        ({"ttl": 0.5}, "must be at least one second"),
        ({"ttl": "31d"}, "is longer than 30d (POSTROOM_MAX_TTL)"),
        ({"scheduled_at": "2099-01-01T00:00:00Z"}, "lies more than 90d ahead (POSTROOM_MAX_SCHEDULE)"),
    ],
)
async def test_what_is_too_long_is_said_to_be_so_in_days(tmp_path: Path, more: dict[str, Any], detail: str) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, **more})
        assert [each["detail"] for each in answer.json()["errors"]] == [detail]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/send?dry_run=true&dry_run=false", "dry_run"), ("/send/batch?on_error=partial&on_error=partial", "on_error")],
)
async def test_a_parameter_given_twice_is_refused_and_no_value_chosen(tmp_path: Path, path: str, name: str) -> None:
    async with running(tmp_path) as (client, _):
        body = ARTICLE if "batch" not in path else {"messages": [ARTICLE]}
        answer = await client.post(path, json=body)
        assert answer.status_code == 422
        assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [(f"#/{name}", "repeated")]
        assert (await client.get("/messages")).json()["data"] == []


async def test_an_item_of_a_batch_that_is_no_object_is_its_own_fault_and_hides_no_other(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        body = {"base": ARTICLE, "messages": [{}, 5, {"to": "nobody"}]}
        answer = await client.post("/send/batch", json=body)
        pointers = {each["pointer"]: each["detail"] for each in answer.json()["errors"]}
        assert answer.status_code == 422
        assert set(pointers) == {"#/messages/1", "#/messages/2/to"}
        assert pointers["#/messages/1"] == "must be an object"
        answer = await client.post("/send/batch?on_error=partial", json=body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["accepted"] == 1
        assert ["error" in each for each in answer.json()["results"]] == [False, True, True]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/messages/msg_x", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/keys", {"GET", "HEAD", "POST"}),
        ("/send", {"POST"}),
    ],
)
async def test_allow_names_every_method_of_a_path(tmp_path: Path, path: str, allowed: set[str]) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.put(path)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == allowed


async def test_a_dry_run_refuses_the_idempotency_key_that_the_real_one_would_refuse(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        for path in ("/send", "/send?dry_run=true"):
            answer = await client.post(path, json=ARTICLE, headers={"Idempotency-Key": "x" * 257})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


async def test_a_sender_says_where_mail_is_taken(tmp_path: Path) -> None:
    async with running(tmp_path, role="sender") as (client, _):
        answer = await client.post("/send", json=ARTICLE)
        assert answer.status_code == 404
        assert "`api` or `all`" in answer.json()["detail"]


async def test_senders_of_a_key_are_kept_in_the_form_in_which_they_are_compared(tmp_path: Path) -> None:
    async with running(tmp_path, auth="keys") as (client, service):
        _, token = await service.keys.create("default", "shop", ("send",), ["@EXAMPLE.com", "bücher.example"])
        headers = {"Authorization": f"Bearer {token}"}
        for sender in ("a@example.com", "b@bücher.example"):
            answer = await client.post("/send?dry_run=true", json={**ARTICLE, "from": sender}, headers=headers)
            assert answer.status_code == 200, answer.text


async def test_a_stored_key_whose_rate_is_none_is_a_401_that_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, auth="keys") as (client, service):
        key, token = await service.keys.create("default", "shop", ("read",))
        await service.store.add_key(
            replace(key, id="key_old", prefix="pr_" + "x" * 12, rate="foo", digest=_digest("x" * 43))
        )
        assert (await client.get("/messages", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        answer = await client.get("/messages", headers={"Authorization": f"Bearer pr_{'x' * 43}"})
        assert answer.status_code == 401
        assert "rate" in answer.json()["detail"]


def _digest(token: str) -> bytes:
    return hashlib.sha256(f"pr_{token}".encode()).digest()
