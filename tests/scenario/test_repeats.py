"""A repeat with the same key is answered as the first time, whatever has become of the request's faults and of its key."""

from pathlib import Path

import pytest

from service.clock import rfc3339
from service.errors import StorageUnavailable
from tests.support.clock import SteppedClock
from tests.support.running import ARTICLE, running

KEYED = {"Idempotency-Key": "once"}


async def test_a_repeat_after_its_scheduled_time_is_no_fault(tmp_path: Path) -> None:
    clock = SteppedClock()
    async with running(tmp_path, clock=clock) as (client, _):
        body = {**ARTICLE, "scheduled_at": rfc3339(clock.now() + 60_000)}
        first = await client.post("/send", json=body, headers=KEYED)
        clock.step(61)
        again = await client.post("/send", json=body, headers=KEYED)
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        other = await client.post("/send", json=body, headers={"Idempotency-Key": "another"})
        assert other.json()["errors"][0]["pointer"] == "#/scheduled_at"
        changed = await client.post("/send", json={**body, "subject": "x"}, headers=KEYED)
        assert changed.json()["code"] == "invalid_idempotent_request", "another request, though it has a fault too"


async def test_a_template_that_is_gone_stops_no_repeat_of_one_message_or_a_batch(tmp_path: Path) -> None:
    folder = tmp_path / "templates" / "hello"
    folder.mkdir(parents=True)
    (folder / "template.toml").write_text('subject = "Hello"\n[variables]\n')
    (folder / "html.j2").write_text("<p>Hello</p>")
    use = {"from": ARTICLE["from"], "to": ARTICLE["to"], "template": {"name": "hello"}}
    async with running(tmp_path, templates_dir=tmp_path / "templates") as (client, service):
        one = await client.post("/send", json=use, headers=KEYED)
        assert one.status_code == 202, one.text
        batch = await client.post(
            "/send/batch?on_error=partial", json={"messages": [use]}, headers={"Idempotency-Key": "b"}
        )
        assert batch.status_code == 202, batch.text
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        await service.templates.reload()
        assert (await client.post("/send", json=use)).status_code == 422
        assert (await client.post("/send", json=use, headers=KEYED)).content == one.content
        again = await client.post(
            "/send/batch?on_error=partial", json={"messages": [use]}, headers={"Idempotency-Key": "b"}
        )
        assert (again.status_code, again.content) == (202, batch.content)


async def test_a_store_that_is_away_is_not_asked_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def away(*_: object) -> None:
        asked.append("accept")
        raise StorageUnavailable(retry_after=1.0)

    async def look(*_: object) -> None:
        asked.append("find_answer")

    async with running(tmp_path) as (client, service):
        monkeypatch.setattr(service.store, "accept", away)
        monkeypatch.setattr(service.store, "find_answer", look)
        assert (await client.post("/send", json=ARTICLE, headers=KEYED)).status_code == 503
    assert asked == ["accept"]
