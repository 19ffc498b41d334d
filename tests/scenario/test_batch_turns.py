"""Where another process sends from the same file, batches are worked on one after the other; elsewhere all at once."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api import body
from service.app import Service
from tests.support.running import running
from tests.support.waiting import until

BATCH = {"base": {"from": "a@example.com", "subject": "s", "text": "t"}, "messages": [{"to": "b@example.org"}]}


class SlowStore:
    """Counts the batches that are being stored; lets none through before `go_on`."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storing = self.most = 0
        self.go_on, self.begun = asyncio.Event(), asyncio.Semaphore(0)
        accept = service.store.accept

        async def slow(*given: Any) -> Any:
            self.storing += 1
            self.most = max(self.most, self.storing)
            self.begun.release()
            await self.go_on.wait()
            self.storing -= 1
            return await accept(*given)

        monkeypatch.setattr(service.store, "accept", slow)


async def batches(client: httpx.AsyncClient, service: Service, store: SlowStore, begun: int) -> list[httpx.Response]:
    """Four at once, of which so many begin and all others wait, or did so for too long."""
    asked = [asyncio.ensure_future(client.post("/send/batch", json=BATCH)) for _ in range(4)]
    async with asyncio.timeout(10):
        for _ in range(begun):
            await store.begun.acquire()
    await until(lambda: service.batches.waiting + begun + sum(each.done() for each in asked) == 4)
    store.go_on.set()
    return list(await asyncio.gather(*asked))


@pytest.mark.parametrize(
    ("given", "most"), [({"role": "api"}, 1), ({"role": "api", "batches_at_once": 2}, 2), ({"role": "all"}, 4)]
)
async def test_so_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], most: int
) -> None:
    async with running(tmp_path, hold=True, **given) as (client, service):
        store = SlowStore(service, monkeypatch)
        answers = await batches(client, service, store, most)
        assert [answer.status_code for answer in answers] == [202] * 4
        assert store.most == most


async def test_who_waits_too_long_may_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, role="api", batch_wait=0.05) as (client, service):
        store = SlowStore(service, monkeypatch)
        asked = [asyncio.ensure_future(client.post("/send/batch", json=BATCH)) for _ in range(4)]
        await until(lambda: sum(each.done() for each in asked) == 3)
        store.go_on.set()
        answers = list(await asyncio.gather(*asked))
        assert sorted(answer.status_code for answer in answers) == [202, 503, 503, 503]
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("queue_full", "5")
        assert (await client.post("/send/batch", json=BATCH)).status_code == 202


async def test_a_stop_tells_those_who_wait_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, role="api") as (client, service):
        store = SlowStore(service, monkeypatch)
        asked = [asyncio.ensure_future(client.post("/send/batch", json=BATCH)) for _ in range(4)]
        await until(lambda: service.batches.waiting == 3)
        service.stop_claiming()
        await until(lambda: sum(each.done() for each in asked) == 3)
        store.go_on.set()
        answers = [(await each).json() for each in asked]
        assert sorted(answer.get("code", "") for answer in answers) == ["", *["shutting_down"] * 3]


async def test_who_waits_holds_no_more_than_the_octets_that_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    real = body.parse

    def parse(octets: bytes, depth: int) -> Any:
        parsed.append(len(octets))
        return real(octets, depth)

    monkeypatch.setattr(body, "parse", parse)
    async with running(tmp_path, role="api") as (client, service):
        store = SlowStore(service, monkeypatch)
        asked = [asyncio.ensure_future(client.post("/send/batch", json=BATCH)) for _ in range(4)]
        await until(lambda: service.batches.waiting == 3)
        assert len(parsed) == 1
        store.go_on.set()
        await asyncio.gather(*asked)
        assert len(parsed) == 4
