"""What loops tell while the store keeps them from their work; time is virtual."""

import asyncio
from typing import Any, cast

import structlog

from service.errors import StorageUnavailable
from service.settings import Settings
from service.spool.hindered import Hindered
from service.spool.janitor import Janitor
from tests.support.virtual import VirtualClock, virtually

AWAY = StorageUnavailable("the disk is full")


def told(lines: list[Any]) -> list[tuple[str, int]]:
    """What was told, and of how many failures."""
    return [(line["event"], line["failures"]) for line in lines]


def test_duties_that_the_store_refuses_tell_it_as_one_and_once_a_minute_and_once_that_it_is_over() -> None:
    async def main(clock: VirtualClock) -> None:
        began, nothing, hindered = clock.monotonic(), cast(Any, None), Hindered(clock)
        janitor = Janitor(Settings(), clock, nothing, nothing, nothing, nothing, nothing, nothing, hindered=hindered)

        async def rescue() -> None:
            if 10 <= clock.monotonic() - began < 140:
                raise AWAY

        async def expire() -> None:
            await rescue()

        loops = [asyncio.create_task(janitor._repeat(1.0, work)) for work in (rescue, expire)]
        await asyncio.sleep(300)
        for loop in loops:
            loop.cancel()

    with structlog.testing.capture_logs() as lines:
        virtually(main)
    assert told(lines) == [
        ("loop.failed", 1),
        ("loop.failed", 120),
        ("loop.failed", 120),
        ("loop.recovered", 19),
    ]
    assert [line.get("during") for line in lines] == [["rescue"], ["expire", "rescue"], ["expire", "rescue"], None]
    assert {line["detail"] for line in lines[:3]} == {"the disk is full"}


def test_a_rare_duty_is_tried_again_soon_so_that_the_end_is_told_soon() -> None:
    async def main(clock: VirtualClock) -> list[int]:
        began, tried, nothing = clock.monotonic(), list[int](), cast(Any, None)
        janitor = Janitor(Settings(), clock, nothing, nothing, nothing, nothing, nothing, nothing)

        async def purge() -> None:
            tried.append(round(clock.monotonic() - began))
            if tried[-1] < 12:
                raise AWAY

        loop = asyncio.create_task(janitor._repeat(30.0, purge))
        await asyncio.sleep(50)
        loop.cancel()
        return tried

    with structlog.testing.capture_logs() as lines:
        assert virtually(main) == [0, 5, 10, 15, 45]
    assert told(lines) == [("loop.failed", 1), ("loop.recovered", 2)]


def test_a_store_that_comes_and_goes_is_told_no_more_often() -> None:
    clock = VirtualClock()
    hindered = Hindered(clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(59):
            hindered.failed("dispatch", AWAY)
            hindered.worked("dispatch")
            clock.step(1)
        assert told(lines) == [("loop.failed", 1), ("loop.recovered", 0)]
        clock.step(1)
        hindered.failed("dispatch", AWAY)
    assert told(lines)[2:] == [("loop.failed", 59)]


def test_what_goes_well_tells_nothing() -> None:
    hindered = Hindered(VirtualClock())
    with structlog.testing.capture_logs() as lines:
        hindered.worked("dispatch")
    assert lines == []
