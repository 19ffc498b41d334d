"""A whole service whose wall clock jumps two years ahead: old codes are held, schedules stand, new mail goes out."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from service.app import Service
from service.clock import rfc3339
from service.steady import SteadyClock
from tests.support.running import ARTICLE, running
from tests.support.sink import Sink
from tests.support.waiting import until_sent
from tests.unit.test_steady import EPOCH, JUMP, PATIENCE, YEAR, Jumping

HOUR = 3_600_000  # ms


@pytest.fixture
def wall() -> Jumping:
    return Jumping()


@pytest.fixture
async def served(tmp_path: Path, wall: Jumping) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """A service that sends nothing yet."""
    clock = SteadyClock(wall, JUMP, PATIENCE)
    async with running(tmp_path, clock=clock, hold=True, poll_interval=0.05) as (client, service):
        yield client, service


async def post(client: httpx.AsyncClient, **given: Any) -> str:
    """The id of an accepted message."""
    answer = await client.post("/send", json={**ARTICLE, **given})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def status(client: httpx.AsyncClient, id: str) -> str:
    return str((await client.get(f"/messages/{id}")).json()["status"])


def release(service: Service) -> None:
    """What waits is sent from now on."""
    assert service.dispatcher is not None
    service.readiness.held = False
    service.dispatcher.wake()


async def test_a_jump_that_is_set_right_has_ended_and_started_nothing(
    served: tuple[httpx.AsyncClient, Service], wall: Jumping
) -> None:
    client, service = served
    code = await post(client, ttl="10m")
    planned = await post(client, scheduled_at=rfc3339(EPOCH + 86_400_000))
    wall.jump(2 * YEAR)
    release(service)
    await until_sent(client, await post(client, ttl="10m"))
    await service._janitor._expire()
    assert [await status(client, each) for each in (code, planned)] == ["queued", "scheduled"]
    wall.jump(-2 * YEAR)
    wall.step(31)
    service.dispatcher.wake()  # type: ignore[union-attr]
    await until_sent(client, code)
    assert await status(client, planned) == "scheduled"


async def test_a_jump_that_stays_is_believed_and_a_code_whose_time_is_over_was_never_sent(
    served: tuple[httpx.AsyncClient, Service], wall: Jumping
) -> None:
    client, service = served
    code, long = await post(client, ttl="1h"), await post(client, ttl="2d")
    wall.jump(2 * HOUR)
    release(service)
    await until_sent(client, long)
    for _ in range(10):
        await service._janitor._expire()
        assert await status(client, code) == "queued"
        wall.step(PATIENCE / 10)
        service.dispatcher.wake()  # type: ignore[union-attr]
        await until_sent(client, await post(client))
    await service._janitor._expire()
    assert await status(client, code) == "expired"
    events = (await client.get(f"/messages/{code}/events")).json()["data"]
    assert [each["type"] for each in events] == ["accepted", "expire"]


async def test_the_doubt_is_told_once_and_so_is_its_end(
    served: tuple[httpx.AsyncClient, Service], wall: Jumping
) -> None:
    _, service = served
    await service._janitor._expire()
    wall.jump(2 * YEAR)
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            await service._janitor._expire()
        wall.step(PATIENCE)
        for _ in range(5):
            await service._janitor._expire()
    told = [line for line in lines if line["event"].startswith("clock.")]
    assert [line["event"] for line in told] == ["clock.jumped", "clock.believed"]
    assert (told[0]["ahead"], told[0]["going_by"]) == (2 * YEAR // 1000, rfc3339(EPOCH))


async def test_new_mail_says_the_time_that_is_told_and_lives_its_whole_ttl_from_then(
    served: tuple[httpx.AsyncClient, Service], wall: Jumping
) -> None:
    client, service = served
    service.clock.now()
    wall.jump(2 * YEAR)
    shown = (await client.get(f"/messages/{await post(client, ttl='10m')}")).json()
    assert shown["created_at"] == rfc3339(EPOCH + 2 * YEAR)
    assert shown["expires_at"] == rfc3339(EPOCH + 2 * YEAR + 600_000)


async def test_a_service_that_starts_years_after_its_last_sign_of_life_holds_what_is_late_by_that(
    tmp_path: Path, wall: Jumping
) -> None:
    """Whether it was down for so long or the clock is wrong it can't know. A code is sent in neither case, at first."""
    async with running(tmp_path, clock=SteadyClock(wall, JUMP, PATIENCE), hold=True) as (client, service):
        code = await post(client, ttl="10m")
        await service.store.ping()
    wall.jump(2 * YEAR)
    async with running(tmp_path, clock=SteadyClock(wall, JUMP, PATIENCE)) as (client, service):
        await until_sent(client, await post(client))
        await service._janitor._expire()
        assert await status(client, code) == "queued"
        wall.step(PATIENCE)
        for _ in itertools.repeat(None, 3):
            await service._janitor._expire()
        assert await status(client, code) == "expired"


QUOTAS = """
[relays.netease]
url = "smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{port}?plaintext=allow"
quotas = ["1/15m", "1/day"]
timezone = "Asia/Shanghai"
"""


async def test_no_window_and_no_day_of_a_quota_ends_early(tmp_path: Path, wall: Jumping) -> None:
    """EPOCH is midnight in Shanghai. What is sent two years later counts against none of what was sent then."""
    file, clock, sink = tmp_path / "relays.toml", SteadyClock(wall, JUMP, PATIENCE), await Sink().start()
    file.write_text(QUOTAS.format(port=sink.port))
    async with running(tmp_path, clock=clock, capture=False, relays_file=file, poll_interval=0.05) as (client, service):
        await until_sent(client, await post(client))
        wall.jump(2 * YEAR)
        waits = await post(client)

        async def held() -> bool:
            (recipient,) = (await client.get(f"/messages/{waits}")).json()["recipients"]
            return recipient["status"] == "queued" and (recipient["held_by"] or {}).get("reason") == "quota"

        async with asyncio.timeout(20):
            for _ in itertools.count():
                if await held():
                    break
                await asyncio.sleep(0.01)
        used = [each["used"] for each in (await client.get("/relays/netease")).json()["quotas"]]
        assert used == [1, 1]
        wall.step(PATIENCE)
        service.dispatcher.wake()  # type: ignore[union-attr]
        await until_sent(client, waits)
    await sink.stop()
