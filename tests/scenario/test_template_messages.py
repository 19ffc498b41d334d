"""What a template decides for its messages, dry runs that leave nothing behind, images that travel along."""

import asyncio
import base64
import email
import email.policy
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

from service.app import Service
from tests.support.running import ARTICLE, running

HEAD = 'subject = "Hi {{ name }}"\nttl = "10m"\npriority = "low"\nunsubscribe = "newsletter"\n[variables]\nname = "string"\n'
HTML = '<html lang="en"><head><title>T</title></head><body><p>Dear <b>{{ name }}</b></p></body></html>'
FILES = {"template.toml": HEAD, "html.j2": HTML}
PLAIN = {"template.toml": HEAD.replace('unsubscribe = "newsletter"\n', ""), "html.j2": HTML}
USE = {"name": "news", "variables": {"name": "Ada"}}
LETTER: dict[str, Any] = {"from": "a@example.com", "to": "b@example.org", "template": USE}
PNG = base64.b64encode(b"\x89PNG\r\n").decode()


async def seconds_to_live(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[float, str]:
    answer = await client.post("/send", json=body)
    assert answer.status_code == 202, answer.text
    view = (await client.get(answer.headers["location"])).json()
    made, ends = (datetime.fromisoformat(view[name]) for name in ("created_at", "expires_at"))
    return (ends - made).total_seconds(), view["priority"]


async def test_ttl_and_priority_are_the_templates_unless_the_request_says_otherwise(tmp_path: Path) -> None:
    async with running(tmp_path, hold=True) as (client, _):
        await client.put("/templates/news", json={"files": FILES})
        assert await seconds_to_live(client, LETTER) == (600, "low")
        assert await seconds_to_live(client, {**LETTER, "ttl": "1h", "priority": "high"}) == (3600, "high")
        assert await seconds_to_live(client, {**LETTER, "priority": "normal"}) == (600, "normal")
        plain = {"template.toml": "subject = 's'", "html.j2": "x"}
        await client.put("/templates/plain", json={"files": plain})
        assert await seconds_to_live(client, {**LETTER, "template": {"name": "plain"}}) == (4 * 86400, "normal")


async def test_who_left_a_category_gets_no_message_of_it_and_every_other(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        await client.put("/templates/news", json={"files": FILES})
        await client.put(
            "/templates/other", json={"files": {**FILES, "template.toml": HEAD.replace('"newsletter"', '"offers"')}}
        )
        await client.put("/templates/receipt", json={"files": PLAIN})
        leave = {"email": "b@example.org", "reason": "unsubscribe", "category": "newsletter"}
        assert (await client.post("/suppressions", json=leave)).status_code == 201
        assert (await client.post("/send", json=LETTER)).json()["code"] == "all_recipients_suppressed"
        both = await client.post("/send", json={**LETTER, "to": ["b@example.org", "c@example.org"]})
        assert [each["status"] for each in both.json()["recipients"]] == ["suppressed", "queued"]
        for name in ("other", "receipt"):
            answer = await client.post("/send", json={**LETTER, "template": {**USE, "name": name}})
            assert answer.status_code == 202, answer.text
        assert (await client.post("/send", json={**ARTICLE, "to": "b@example.org"})).status_code == 202
        assert (await client.delete("/suppressions/b@example.org")).status_code == 204
        assert (await client.post("/send", json=LETTER)).status_code == 202


async def test_who_leaves_while_a_message_waits_gets_it_no_more(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        await client.put("/templates/news", json={"files": FILES})
        await client.put("/templates/receipt", json={"files": PLAIN})
        for relay in service.relays.names():
            await client.post(f"/relays/{relay}/pause", json={})
        letter = (await client.post("/send", json=LETTER)).headers["location"]
        receipt = (await client.post("/send", json={**LETTER, "template": {**USE, "name": "receipt"}})).headers[
            "location"
        ]
        await client.post(
            "/suppressions", json={"email": "b@example.org", "reason": "unsubscribe", "category": "newsletter"}
        )
        for relay in service.relays.names():
            await client.post(f"/relays/{relay}/resume")
        assert await final(client, letter) == "suppressed"
        assert await final(client, receipt) == "sent"


async def final(client: httpx.AsyncClient, path: str) -> str:
    """The status once nothing waits any more."""
    deadline = asyncio.get_running_loop().time() + 10
    status = ""
    while (loop := asyncio.get_running_loop()).time() < deadline:
        status = str((await client.get(path)).json()["status"])
        if status not in {"queued", "sending", "deferred"}:
            break
        await asyncio.wait_for(asyncio.shield(loop.run_in_executor(None, lambda: None)), 5)  # let the others go on
    return status


async def test_a_message_of_a_category_without_a_way_to_leave_it_is_warned_of(tmp_path: Path) -> None:
    async with running(tmp_path, hold=True) as (client, _):
        await client.put("/templates/news", json={"files": FILES})
        warned = (await client.post("/send", json=LETTER)).json()["warnings"]
        assert [each["code"] for each in warned] == ["unsubscribe_url_missing"]
        url = {"unsubscribe_url": "https://example.com/leave"}
        assert (await client.post("/send", json={**LETTER, **url})).json()["warnings"] == []


async def test_the_text_part_is_made_from_the_html_where_the_template_has_none(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        await client.put("/templates/news", json={"files": FILES})
        await client.post("/send", json=LETTER, headers={"Prefer": "wait=10"})
        (mail,) = captured(service)
        assert mail.get_body(("plain",)).get_content().strip() == "Dear Ada"  # type: ignore[union-attr]
        assert "<b>Ada</b>" in mail.get_body(("html",)).get_content()  # type: ignore[union-attr]


def captured(service: Service) -> list[EmailMessage]:
    assert service.capture is not None
    return [each.message for each in service.capture.mailbox]


async def test_a_dry_run_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, recipient_limit="1/h") as (client, service):
        await client.put(
            "/templates/news", json={"files": {**FILES, "html.j2": HTML + '<img src="https://x.example/a.png">'}}
        )
        versions = (await client.get("/templates/news/versions")).json()
        key = {"Idempotency-Key": "k"}
        for _ in range(3):  # more often than the limit of the recipient
            answer = await client.post("/send?dry_run=true", json=LETTER, headers=key)
            assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert (shown["subject"], shown["text"].strip(), shown["template"]) == ("Hi Ada", "Dear Ada", "news@1")
        assert "<b>Ada</b>" in shown["html"]
        assert [each["name"] for each in shown["headers"]].count("Subject") == 1
        assert [each["name"] for each in shown["relays"]] == list(service.relays.names())
        assert [each["rule"] for each in shown["findings"]] == ["missing-alt"]
        assert [each["code"] for each in shown["warnings"]] == ["unsubscribe_url_missing"]
        assert (await client.get("/messages")).json()["data"] == []
        assert (await client.get("/templates/news/versions")).json() == versions
        assert captured(service) == []
        # neither the key nor the recipient's limit was used up, and the size was that of what is sent
        other = await client.post("/send", json={**LETTER, "tags": ["x"]}, headers={**key, "Prefer": "wait=10"})
        assert (other.status_code, other.json()["status"]) == (200, "sent")
        assert abs(other.json()["size"] - shown["size"]) <= 2
        (raw,) = (each.as_bytes() for each in captured(service))
        assert raw
        assert (await client.post("/send", json=LETTER)).status_code == 429


async def test_a_dry_run_that_is_refused_says_what_a_sending_would_say(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        wrong = {**LETTER, "template": {"name": "nope"}}
        dry, sent = await client.post("/send?dry_run=true", json=wrong), await client.post("/send", json=wrong)
        assert (
            (dry.status_code, dry.json()["code"])
            == (sent.status_code, sent.json()["code"])
            == (422, "template_not_found")
        )


async def test_data_urls_become_inline_attachments_when_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        html = f'<p>x</p><img alt="a" src="data:image/png;base64,{PNG}">'
        body = {**ARTICLE, "html": html, "embed_data_urls": True}
        shown = (await client.post("/send?dry_run=true", json=body)).json()
        assert "data:image" not in shown["html"]
        assert shown["findings"] == []
        kept = (await client.post("/send?dry_run=true", json={**body, "embed_data_urls": False})).json()
        assert [each["rule"] for each in kept["findings"]] == ["data-image"]
        await client.post("/send", json=body, headers={"Prefer": "wait=10"})
        (mail,) = captured(service)
        (image,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
        assert image.get_content() == b"\x89PNG\r\n"
        assert image.get_content_disposition() == "inline"
        assert f"cid:{image['content-id'].strip('<>')}" in mail.get_body(("html",)).get_content()  # type: ignore[union-attr]


async def test_a_test_mail_arrives_with_its_sample_and_the_files_of_the_sample(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        body = {"from": "a@example.com", "to": ["b@example.org"], "locale": "zh-CN"}
        answer = await client.post("/templates/invoice/send-test", json=body)
        assert answer.status_code == 202, answer.text
        assert await final(client, answer.headers["location"]) == "sent"
        (mail,) = captured(service)
        (pdf,) = mail.iter_attachments()
        assert (pdf.get_filename(), pdf.get_content()[:4]) == ("invoice-sample.pdf", b"%PDF")
        sample = (await client.post("/templates/invoice/render", json={"locale": "zh-CN"})).json()
        assert email.message_from_bytes(mail.as_bytes(), policy=email.policy.default)["subject"] == sample["subject"]
        view = (await client.get(answer.headers["location"])).json()
        assert (view["template"], view["tags"]) == ("invoice@1", {"test": ""})
        wrong = await client.post("/templates/invoice/send-test", json={**body, "variables": {"nmae": 1}})
        assert wrong.json()["code"] == "template_variables_invalid"
        assert "#/variables/nmae" in {each["pointer"] for each in wrong.json()["errors"]}


async def test_a_test_mail_is_as_large_as_a_mail_may_be_and_no_larger(tmp_path: Path) -> None:
    """By the limit of the service, and by a relay's; a fault that only the template can mend is at no field."""
    body = {"from": "a@example.com", "to": ["b@example.org"], "locale": "zh-CN"}
    async with running(tmp_path, hold=True, max_message_bytes=500) as (client, _):
        refused = await client.post("/templates/invoice/send-test", json=body)
        assert refused.status_code == 413
        assert "at most 500 (POSTROOM_MAX_MESSAGE_BYTES)" in refused.json()["detail"]
    file = tmp_path / "relays.toml"
    file.write_text('[relays.small]\nurl = "smtp://127.0.0.1:9?plaintext=allow"\nmax_bytes = 2000\n')
    async with running(tmp_path, hold=True, capture=False, relays_file=file) as (client, _):
        refused = await client.post("/templates/invoice/send-test", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "no_relay_for_message")
        (problem,) = refused.json()["errors"]
        assert (problem["pointer"], problem["code"]) == ("#", "too_large")
        assert "relay small takes at most 2000 octets" in problem["detail"]
