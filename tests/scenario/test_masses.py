"""Requests that are small and would cost much: they are refused before they do, or share what they have in common."""

import base64
import time
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running import ARTICLE, running


async def timed(client: httpx.AsyncClient, path: str, body: Any) -> tuple[httpx.Response, float, float]:
    """The answer, seconds of this process, and MiB at the peak beyond what was there."""
    tracemalloc.start()
    began = time.process_time()
    answer = await client.post(path, json=body)
    seconds = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return answer, seconds, peak / 1024**2


@pytest.mark.parametrize(
    "mass",
    [
        {"to": [1] * 300_000},
        {f"field{n}": n for n in range(100_000)},
        {"attachments": [{f"x{n}": n for n in range(100)}] * 1000},
        {"headers": {f"X-{n}": 5 for n in range(100_000)}},
        {"to": [{"email": "a@b.example", f"x{n}": 1} for n in range(5_000)]},
    ],
)
async def test_a_mass_of_faults_is_one_fault(tmp_path: Path, mass: dict[str, Any]) -> None:
    async with running(tmp_path, hold=True) as (client, _):
        answer, seconds, peak = await timed(client, "/send", {**ARTICLE, **mass})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "too_many"
    assert len(answer.content) < 10_000
    assert seconds < 10  # traced memory is slow; unbounded it took minutes
    assert peak < 300


async def test_at_most_a_hundred_faults_are_told(tmp_path: Path) -> None:
    async with running(tmp_path, hold=True) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, **{f"field{n}": n for n in range(500)}})
        assert len(answer.json()["errors"]) == 100
        batch = {"base": ARTICLE, "messages": [{f"field{n}": n for n in range(10)}] * 200}
        answer = await client.post("/send/batch", json=batch)
        assert len(answer.json()["errors"]) == 500
        assert "The first 500 of 2000" in answer.json()["detail"]


async def test_messages_of_a_batch_share_the_attachment_of_their_base(tmp_path: Path) -> None:
    """2 MiB decoded once, not two hundred times."""
    file = {"filename": "a.bin", "content": base64.b64encode(b"x" * 2 * 1024**2).decode()}
    batch = {"base": {**ARTICLE, "attachments": [file]}, "messages": [{"to": f"u{n}@x.example"} for n in range(60)]}
    async with running(tmp_path, hold=True, max_batch_bytes=20 * 1024**2) as (client, _):
        answer, _, peak = await timed(client, "/send/batch", batch)
    assert answer.status_code == 413, "what they compose to is over the limit, which is found while composing"
    assert peak < 100


async def test_one_key_twice_in_a_batch_is_told_at_once(tmp_path: Path) -> None:
    batch = {"base": {**ARTICLE, "idempotency_key": "z"}, "messages": [{}, {}]}
    async with running(tmp_path, hold=True) as (client, _):
        answer = await client.post("/send/batch", json=batch)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == ["#/messages/1/idempotency_key"]


async def test_images_of_html_count_as_attachments(tmp_path: Path) -> None:
    html = "".join(f'<img src="data:image/png;base64,{base64.b64encode(b"%d" % n).decode()}">' for n in range(60))
    async with running(tmp_path, hold=True) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "html": html, "embed_data_urls": True})
        assert answer.status_code == 422
        assert "POSTROOM_MAX_ATTACHMENTS" in answer.json()["errors"][0]["detail"]


async def test_a_test_mail_has_no_more_recipients_than_a_mail(tmp_path: Path) -> None:
    body = {"from": "a@x.example", "to": [f"u{n}@x.example" for n in range(60)]}
    async with running(tmp_path, hold=True) as (client, _):
        answer = await client.post("/templates/welcome/send-test", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "too_many_recipients")


async def test_a_subject_has_one_limit_whether_it_is_given_or_rendered(tmp_path: Path) -> None:
    home = tmp_path / "templates" / "long"
    home.mkdir(parents=True)
    (home / "template.toml").write_text("""
subject = "{{ words }}"
[variables]
type = "object"
properties = {words = {type = "string", maxLength = 5000}}
[sample]
words = "Hello"
""")
    (home / "html.j2").write_text("<p>Hello</p>")
    (home / "text.j2").write_text("Hello")
    async with running(tmp_path, hold=True, templates_dir=home.parent) as (client, _):

        async def faults(words: str) -> list[list[tuple[str, str]]]:
            to = {"from": ARTICLE["from"], "to": ARTICLE["to"]}
            bodies = (
                {**ARTICLE, "subject": words},
                {**to, "template": {"name": "long", "variables": {"words": words}}},
            )
            answers = [await client.post("/send", json=body) for body in bodies]
            return [[(each["pointer"], each["detail"]) for each in one.json().get("errors", ())] for one in answers]

        assert await faults("x" * 2000) == [[], []]
        assert await faults("x" * 2001) == [
            [("#/subject", "must have at most 2000 characters")],
            [("#/template/variables", "subject: must have at most 2000 characters")],
        ]


@pytest.mark.parametrize("name", ["X-SMTPAPI", "x-smtpapi", "X-MC-BccAddress", "X-MSYS-API"])
async def test_a_command_to_a_provider_adds_no_recipient(tmp_path: Path, name: str) -> None:
    async with running(tmp_path, hold=True) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "headers": {name: '{"to": ["evil@x.example"]}'}})
    assert answer.status_code == 422
    assert "behind the envelope" in answer.json()["errors"][0]["detail"]


async def test_an_envelope_that_is_not_ascii_needs_smtputf8_too(tmp_path: Path) -> None:
    async with running(tmp_path, hold=True) as (client, service):
        answer = await client.post("/send", json={**ARTICLE, "envelope_from": "用户@例子.example"})
        (delivery,) = (await claimed(service)).deliveries
    assert answer.status_code == 202
    assert delivery.smtputf8


async def claimed(service: Any) -> Any:
    from service.store.values import Want

    (route,) = await service.store.due_routes()
    wants = [Want(route.route, "default", 5)]
    return await service.store.claim(lambda: wants, "test", service.clock.now, 60)
