"""Bad input at the door: a clear answer that names the field, never a 500, nothing stored."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.running import ARTICLE, running

JSON = {"Content-Type": "application/json"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service_client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with running(tmp_path_factory.mktemp("doors"), body_timeout=2.0) as (client, _):
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def client(service_client: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    yield service_client
    listed = (await service_client.get("/messages")).json()["data"]
    assert listed == [], "nothing was stored"


def pointers(answer: httpx.Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["status"] == answer.status_code
    return {each["pointer"]: each["code"] for each in document.get("errors", [])}


@pytest.mark.parametrize("bad", ["\r\n", "\n", "\r", "\0", "\x0b", "\x7f", "\u0085", "\u2028", "\u2029"])
@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("#/subject", lambda bad: {"subject": f"Hi{bad}Bcc: x@y.example"}),
        ("#/from", lambda bad: {"from": {"email": "a@b.example", "name": f"N{bad}X: y"}}),
        ("#/to/0", lambda bad: {"to": [f"a{bad}@b.example"]}),
        ("#/to", lambda bad: {"to": f"a@b.example{bad}RCPT TO:<x@y.example>"}),
        ("#/headers/X-Foo", lambda bad: {"headers": {"X-Foo": f"a{bad}Bcc: x@y.example"}}),
        ("#/attachments/0/filename", lambda bad: {"attachments": [{"filename": f"a{bad}b", "content": ""}]}),
        ("#/attachments/0/content_id", lambda bad: {"attachments": [{"filename": "a", "content": "", "content_id": f"x{bad}y"}]}),
        ("#/attachments/0/content_type", lambda bad: {"attachments": [{"filename": "a", "content": "", "content_type": f"text/x{bad}"}]}),
        ("#/unsubscribe_url", lambda bad: {"unsubscribe_url": f"https://x.example/{bad}"}),
        ("#/in_reply_to", lambda bad: {"in_reply_to": f"<a@b{bad}>"}),
        ("#/references/0", lambda bad: {"references": [f"<a@b{bad}>"]}),
        ("#/envelope_from", lambda bad: {"envelope_from": f"a{bad}@b.example"}),
        ("#/reply_to", lambda bad: {"reply_to": f"N{bad} <a@b.example>"}),
        ("#/template/name", lambda bad: {"template": {"name": f"a{bad}"}, "text": None, "html": None}),
    ],
)  # fmt: skip
async def test_a_control_character_is_named_by_its_field(
    client: httpx.AsyncClient, bad: str, field: str, make: Any
) -> None:
    answer = await client.post("/send", json={**ARTICLE, **make(bad)})
    assert answer.status_code == 422, answer.text
    assert field in pointers(answer)


@pytest.mark.parametrize(
    "address",
    [
        "a@b.example, c@d.example", "a,b@c.example", "a b@c.example", '"a b"@c.example', "a(comment)@b.example",
        "@route:a@b.example", "group: a@b.example;", "a@[192.0.2.1]", "=?utf-8?q?a?=@b.example", "a＠b.example", "a@b@c.example",
        "a..b@c.example", ".a@b.example", "a.@b.example", "a@-b.example", "a@b", "a@b..example", "a@b.example.", "a@", "@b.example",
        "", " ",
        "a@b_c.example", "x" * 65 + "@b.example", "a@" + "b" * 64 + ".example", "a@" + ".".join(["b" * 60] * 5) + ".example",
        "<a@b.example", "a@b.example>", "N <a@b.example> <c@d.example>", "a@b.example\u200b", "a@xn--a.example", "a\u202e@b.example",
    ],
)  # fmt: skip
async def test_an_address_outside_the_grammar_is_refused(client: httpx.AsyncClient, address: str) -> None:
    answer = await client.post("/send", json={**ARTICLE, "to": ["good@example.org", address]})
    assert answer.status_code == 422, answer.text
    assert "#/to/1" in pointers(answer)


@pytest.mark.parametrize(
    "name",
    [
        "From", "to", "CC", "Bcc", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Foo", "DKIM-Signature",
        "ARC-Seal", "Received", "Return-Path", "Resent-To", "Authentication-Results", "Delivered-To",
        "List-Unsubscribe", "List-Unsubscribe-Post", "Auto-Submitted", "Reply-To", "Sender", "In-Reply-To",
        "References", "X Foo", "X-Foo:", "X-\u00e9", "",
    ],
)  # fmt: skip
async def test_a_header_that_is_ours_or_malformed_is_refused(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/send", json={**ARTICLE, "headers": {name: "x"}})
    assert answer.status_code == 422, answer.text
    assert any(pointer.startswith("#/headers/") for pointer in pointers(answer))


async def test_all_faults_are_told_at_once_with_a_guess(client: httpx.AsyncClient) -> None:
    body = {
        "from": "nobody",
        "to": ["ok@example.org", "bad"],
        "subjekt": "x",
        "text": 5,
        "ttl": "soon",
        "scheduled_at": "tomorrow",
        "headers": {"Bcc": "x@y.example"},
        "attachments": [{"filename": "a", "content": "%%%"}],
        "priority": "urgent",
        "a/b~c d": 1,
    }
    answer = await client.post("/send", json=body)
    assert answer.status_code == 422
    assert {
        "#/from", "#/to/1", "#/subjekt", "#/text", "#/ttl", "#/scheduled_at", "#/headers/Bcc", "#/attachments/0/content",
        "#/priority", "#/a~1b~0c%20d", "#/subject",
    } <= set(pointers(answer))  # fmt: skip
    assert "did you mean subject?" in answer.text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"x"', 422),
        (b'{"from": NaN}', 400),
        (b'{"from": Infinity}', 400),
        (b'{"ttl": 1e999}', 400),
        (b'{"ttl": ' + b"9" * 5000 + b"}", 400),
        (b'{"from":"a@b.example","from":"c@d.example"}', 400),
        (b'{"subject":"\\ud800"}', 400),
        (b'{"\\udfff":1}', 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"subject":"\xff"}', 400),
        ('{"subject":"ä"}'.encode("utf-16"), 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 50_000, 400),
        (b'{"template":{"variables":' + b"[" * 40 + b"]" * 40 + b"}}", 400),
        (b"{}{}", 400),
        (b"{'a':1}", 400),
    ],
)
async def test_a_body_that_is_no_strict_json_is_refused(client: httpx.AsyncClient, body: bytes, code: int) -> None:
    answer = await client.post("/send", content=body, headers=JSON)
    assert answer.status_code == code, answer.text
    pointers(answer)


async def test_brackets_inside_strings_are_no_depth(client: httpx.AsyncClient) -> None:
    answer = await client.post("/send?dry_run=true", json={**ARTICLE, "text": "[" * 1000 + '\\"{' * 1000})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {},
        {**JSON, "Content-Encoding": "gzip"},
        {**JSON, "Content-Encoding": "br"},
    ],
)
async def test_another_media_type_or_encoding_is_refused(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    body = json.dumps(ARTICLE).encode()
    content = gzip.compress(body) if "Content-Encoding" in headers else body
    answer = await client.post("/send", content=content, headers=headers)
    assert answer.status_code == 415
    pointers(answer)


async def test_a_body_over_the_limit_is_refused_while_it_streams(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"text":"'
        for _ in range(10_000):
            yield b"x" * 65536

    answer = await client.post("/send", content=endless(), headers=JSON)
    assert answer.status_code == 413
    declared = await client.post("/send", content=b"x", headers={**JSON, "Content-Length": str(10**10)})
    assert declared.status_code == 413


@pytest.mark.parametrize(
    ("path", "named"),
    [("/send", "POSTROOM_MAX_MESSAGE_BYTES allows 26214400 octets"), ("/send/batch", "POSTROOM_MAX_BATCH_BYTES allows"),
     ("/suppressions", "no setting changes that")],
)  # fmt: skip
async def test_a_body_over_the_limit_is_told_which_setting_it_follows_from(
    client: httpx.AsyncClient, path: str, named: str
) -> None:
    answer = await client.post(path, content=b"x", headers={**JSON, "Content-Length": str(10**10)})
    assert answer.status_code == 413
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b" \n"])
async def test_an_empty_body_is_called_empty(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/send", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["detail"]) == (400, "The body is empty: send one JSON object.")


async def test_too_much_decoded_content_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, max_message_bytes=1000) as (client, _):
        files = [{"filename": "a.bin", "content": base64.b64encode(b"x" * 1001).decode()}]
        answer = await client.post("/send", json={**ARTICLE, "attachments": files})
        assert answer.status_code == 413
        assert "POSTROOM_MAX_MESSAGE_BYTES" in answer.json()["detail"]


async def test_too_many_recipients_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/send", json={**ARTICLE, "to": [f"u{n}@example.org" for n in range(51)]})
    assert answer.status_code == 422
    assert pointers(answer)["#/to"] == "too_many_recipients"


@pytest.mark.parametrize("field", ["attachments", "headers", "tags", "metadata"])
async def test_each_count_has_its_setting(field: str, tmp_path: Path) -> None:
    values = {
        "attachments": [{"filename": "a", "content": ""}] * 2,
        "headers": {"X-A": "1", "X-B": "2"},
        "tags": ["a", "b"],
        "metadata": {"a": "1", "b": "2"},
    }
    async with running(tmp_path, **{f"max_{field}": 1}) as (limited, _):
        answer = await limited.post("/send?dry_run=true", json={**ARTICLE, field: values[field]})
        assert answer.status_code == 422
        assert pointers(answer) == {f"#/{field}": "too_many"}
        assert f"POSTROOM_MAX_{field.upper()}" in answer.text


@pytest.mark.parametrize("key", ["", "\t", "x" * 257, "ключ", '""'])
async def test_a_malformed_idempotency_key_is_refused(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post("/send", json=ARTICLE, headers={"Idempotency-Key": key.encode()})  # type: ignore[dict-item]
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_idempotency_key"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/nowhere", 404), ("PUT", "/send", 405), ("GET", "/send", 405), ("GET", "/messages/msg_x", 404),
     ("POST", "/messages/msg_x/cancel", 404), ("POST", "/messages/msg_x/retry", 404), ("DELETE", "/messages/msg_x", 404),
     ("GET", "/templates/nope", 404), ("GET", "/templates/..%2f..%2fetc", 404), ("GET", "/suppressions/x@y.example", 404),
     ("GET", "/suppressions/nonsense", 422), ("GET", "/messages?limit=0", 422), ("GET", "/messages?limit=1000", 422),
     ("GET", "/messages?colour=red", 422), ("GET", "/messages?status=odd", 422), ("GET", "/messages?after=x", 422),
     ("GET", "/messages?status=sent&status=sent", 422), ("POST", "/send?dry_run=maybe", 415), ("DELETE", "/keys/x", 404),
     ("POST", "/relays/none/check", 404)],
)  # fmt: skip
async def test_paths_and_queries_that_are_wrong_get_a_problem(
    client: httpx.AsyncClient, method: str, path: str, code: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == code, answer.text
    pointers(answer)
    if code == 405:
        assert answer.headers["allow"] == "POST"


async def test_template_faults_are_all_named(client: httpx.AsyncClient) -> None:
    template = {"name": "verify-email", "variables": {"product": 5, "codee": "1", "minutes": 10}}
    answer = await client.post("/send", json={"from": "a@b.example", "to": "c@d.example", "template": template})
    assert answer.status_code == 422
    assert answer.json()["code"] == "template_variables_invalid"
    assert pointers(answer) == {
        "#/template/variables/code": "missing",
        "#/template/variables/codee": "unknown_variable",
        "#/template/variables/product": "invalid_variable",
    }
    unknown = await client.post(
        "/send", json={"from": "a@b.example", "to": "c@d.example", "template": {"name": "verify-mail"}}
    )
    assert unknown.json()["code"] == "template_not_found"
    assert "did you mean verify-email?" in unknown.text


async def test_no_answer_echoes_a_body_or_a_secret(client: httpx.AsyncClient) -> None:
    canary = "canary-7f3a"
    body = {
        **ARTICLE,
        "text": canary,
        "to": "bad",
        "metadata": {"k": 5},
        "template": {"name": "x", "variables": {"p": canary}},
    }
    answer = await client.post("/send", json=body, headers={"Authorization": f"Bearer pr_{canary}"})
    assert answer.status_code == 422
    assert canary not in answer.text


@pytest.mark.parametrize("field", ["path", "href", "url", "raw"])
async def test_nothing_is_attached_by_path_or_url(client: httpx.AsyncClient, field: str) -> None:
    answer = await client.post(
        "/send", json={**ARTICLE, "attachments": [{"filename": "a", "content": "", field: "/etc/passwd"}]}
    )
    assert pointers(answer) == {f"#/attachments/0/{field}": "unknown_field"}


async def test_directory_parts_and_direction_marks_leave_file_names_with_a_warning(client: httpx.AsyncClient) -> None:
    files = [{"filename": "../../etc/\u202egnp.exe", "content": "eA=="}]
    answer = await client.post("/send?dry_run=true", json={**ARTICLE, "attachments": files})
    assert answer.status_code == 200, answer.text
    (warning,) = answer.json()["warnings"]
    assert (warning["pointer"], warning["code"]) == ("#/attachments/0/filename", "filename_changed")
