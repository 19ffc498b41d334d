"""A batch of 500 rendered messages holds nobody else up: the event loop stays within 20 ms."""

import asyncio
import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running import running
from tests.support.template_files import STARTERS

LIMIT = 0.020  # seconds, p99
TRIES = 3  # a noisy neighbour may take the processor away


async def overshoots(done: Callable[[], bool]) -> list[float]:
    """How much longer than a millisecond each sleep of a millisecond took, in seconds."""
    found: list[float] = []
    while not done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        found.append(time.perf_counter() - began - 0.001)
    return found


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def lag_of(client: httpx.AsyncClient, body: dict[str, Any]) -> list[float]:
    content = json.dumps(body)  # here, so that the client's own work is not counted
    headers = {"Content-Type": "application/json"}
    sending = asyncio.ensure_future(client.post("/send/batch", content=content, headers=headers))
    lags = await overshoots(sending.done)
    answer = await sending
    assert (answer.status_code, answer.json()["accepted"]) == (202, 500), answer.text[:300]
    return lags


@pytest.fixture(autouse=True)
def only_the_services_own_heap() -> Iterator[None]:
    """A full collection looks at every object there is; those of the test runner are not the service's."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("name", ["verify-email", "order-confirmation"])
async def test_the_loop_answers_while_a_batch_is_made(tmp_path: Path, name: str) -> None:
    assert name in STARTERS
    async with running(tmp_path, recipient_limit="off", hold=True) as (client, service):
        template = service.templates.in_folder()[name]
        locales = ("en", "zh-CN")
        body = {
            "base": {"from": "a@example.com"},
            "messages": [
                {
                    "to": f"reader{number}@example.org",
                    "template": {
                        "name": name,
                        "variables": dict(template.sample(locales[number % 2])),
                        "locale": locales[number % 2],
                    },
                }
                for number in range(500)
            ],
        }
        await client.post("/send", json={**body["base"], **body["messages"][0]})  # what only the first request costs
        seen = []
        for _ in range(TRIES):
            lags = await lag_of(client, body)
            seen.append((percentile(lags, 0.99), max(lags), len(lags)))
            if seen[-1][0] <= LIMIT:
                break
        print(name, [f"p99 {p99 * 1000:.1f} ms, max {most * 1000:.1f} ms of {count}" for p99, most, count in seen])
        assert min(seen)[0] <= LIMIT, seen
