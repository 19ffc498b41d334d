"""A message on an idle service is claimed with the commit that accepts it, and no other claim follows."""

from pathlib import Path

import httpx

from service.app import Service
from service.clock import rfc3339
from tests.support.running import ARTICLE, running
from tests.support.waiting import until_sent

COUNT = 20


def counted(service: Service, name: str) -> float:
    """The value of a sample of the service's metrics."""
    lines = service.metrics.render().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"postroom_{name}"))


async def warm(client: httpx.AsyncClient) -> None:
    """The first claim asks for one, so another follows when the relay is open: a second message waits for that."""
    for _ in range(2):
        await until_sent(client, (await client.post("/send", json=ARTICLE)).json()["id"])


async def test_one_message_alone_takes_two_commits_and_one_claim(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval=30) as (client, service):
        await warm(client)
        commits, claims = counted(service, "commit_seconds_count"), counted(service, "claim_seconds_count")
        for _ in range(COUNT):
            await until_sent(client, (await client.post("/send", json=ARTICLE)).json()["id"])
        assert counted(service, "claim_seconds_count") - claims == COUNT
        spare = COUNT // 2  # the loops beside: what the janitor purges, a heartbeat
        assert counted(service, "commit_seconds_count") - commits <= 2 * COUNT + spare, "accept and claim share one"


async def test_what_is_due_later_is_not_claimed_with_its_commit(tmp_path: Path) -> None:
    async with running(tmp_path, poll_interval=30) as (client, service):
        await warm(client)
        claims = counted(service, "claim_seconds_count")
        later = {**ARTICLE, "scheduled_at": rfc3339(service.clock.now() + 86_400_000)}
        assert (await client.post("/send", json=later)).status_code == 202
        await until_sent(client, (await client.post("/send", json=ARTICLE)).json()["id"])
        assert counted(service, "claim_seconds_count") - claims == 1
