"""What goes on for ever goes on after a fault of ours, or ends the process where everybody sees it."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from service.relay.config import relay_from
from service.relay.pool import Pool
from service.settings import Settings, load
from service.spool.dispatch import Dispatcher
from service.spool.janitor import Janitor
from service.spool.ledger import StoreLedger
from tests.support.running import running
from tests.support.virtual import VirtualClock, virtually


def told(lines: list[Any]) -> list[Any]:
    """Whose faults were told, and how loudly."""
    return [(line["during"], line["log_level"]) for line in lines if line["event"] == "loop.failed"]


def test_a_duty_of_the_janitor_survives_a_fault_of_ours_and_is_tried_less_and_less_often() -> None:
    """So do the others; and once it succeeds it has its rhythm again."""

    async def main(clock: VirtualClock) -> tuple[list[float], int]:
        began, tried, others = clock.monotonic(), list[float](), list[float]()

        async def purge() -> None:
            tried.append(round(clock.monotonic() - began))
            if len(tried) <= 7:
                raise LookupError("a fault of ours")

        async def rescue() -> None:
            others.append(clock.monotonic())

        nothing = cast(Any, None)
        janitor = Janitor(Settings(), clock, nothing, nothing, nothing, nothing, nothing, nothing)
        loops = [asyncio.create_task(janitor._repeat(1.0, work)) for work in (purge, rescue)]
        await asyncio.sleep(184.5)
        assert not any(loop.done() for loop in loops)
        for loop in loops:
            loop.cancel()
        return tried, len(others)

    with structlog.testing.capture_logs() as lines:
        tried, others = virtually(main)
    assert tried == [0, 2, 6, 14, 30, 62, 122, 182, 183, 184]
    assert others == 185
    assert told(lines) == [("purge", "critical")] * 7


def test_a_right_to_log_in_is_renewed_after_a_fault_of_ours() -> None:
    async def main(clock: VirtualClock) -> int:
        asked: list[float] = []

        async def broken(_: float | None) -> None:
            asked.append(clock.monotonic())
            raise LookupError("a fault of ours")

        config = relay_from("r", {"url": "smtp://127.0.0.1:1?plaintext=allow"}, "test")
        condition = Pool(config, load(), clock)._condition
        condition._ask_for_a_lease = broken  # type: ignore[method-assign,assignment]
        renewing = asyncio.create_task(condition._renew(None))
        await asyncio.sleep(condition._lease * 1.1)
        assert not renewing.done()
        renewing.cancel()
        return len(asked)

    with structlog.testing.capture_logs() as lines:
        assert virtually(main) == 3
    assert told(lines) == [("renew", "critical")] * 3


@pytest.mark.parametrize(("owner", "step"), [(Dispatcher, "_round"), (StoreLedger, "refresh")])
async def test_a_loop_that_ends_by_a_fault_of_ours_takes_the_process_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, step: str
) -> None:
    """Which says so, takes no more mail, and is started again by whoever keeps it running."""

    async def broken(_: Any) -> None:
        raise LookupError("a fault of ours")

    ended = asyncio.Event()
    async with running(tmp_path) as (client, service):
        service.on_failure = ended.set
        assert (await client.get("/readyz")).status_code == 200
        with structlog.testing.capture_logs() as lines:
            monkeypatch.setattr(owner, step, broken)
            service.dispatcher.wake()  # type: ignore[union-attr]
            await asyncio.wait_for(ended.wait(), 10)
        assert service.failed
        assert (await client.get("/readyz")).status_code == 503
    assert [line["log_level"] for line in lines if line["event"] == "loop.failed"] == ["critical"]
