"""Turns: who is worked on, who waits, and for how long."""

import asyncio

import pytest

from service.api.turns import Turns
from service.errors import QueueFull


class Worker:
    """What was worked on: `log` has names when they begin, and names with a full stop when they end."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.log = turns, list[str]()
        self.go_on = asyncio.Event()

    async def work(self, name: str) -> None:
        async with self.turns.turn():
            self.log.append(name)
            await self.go_on.wait()
            await asyncio.sleep(0)
            self.log.append(f"{name}.")


async def begun(worker: Worker, *names: str) -> "list[asyncio.Task[None]]":
    tasks = [asyncio.create_task(worker.work(name)) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_one_at_a_time_and_in_the_order_in_which_they_came() -> None:
    worker = Worker(Turns(1, 10))
    tasks = await begun(worker, "a", "b", "c")
    assert worker.log == ["a"]
    worker.go_on.set()
    await asyncio.gather(*tasks)
    assert worker.log == ["a", "a.", "b", "b.", "c", "c."]


@pytest.mark.parametrize(("at_once", "begin"), [(2, 2), (None, 3)])
async def test_as_many_as_were_asked_for(at_once: int | None, begin: int) -> None:
    worker = Worker(Turns(at_once, 10))
    tasks = await begun(worker, "a", "b", "c")
    assert len(worker.log) == begin
    worker.go_on.set()
    await asyncio.gather(*tasks)


async def test_who_waits_too_long_is_told_and_takes_no_turn() -> None:
    worker = Worker(Turns(1, 0.05))
    first, second = await begun(worker, "a", "b")
    with pytest.raises(QueueFull, match="POSTROOM_BATCH_WAIT") as refused:
        await second
    assert refused.value.retry_after == 1
    worker.go_on.set()
    await first
    await worker.work("c")
    assert worker.log == ["a", "a.", "c", "c."]


async def test_a_turn_is_free_again_after_a_fault_and_after_who_waited_has_gone() -> None:
    worker = Worker(Turns(1, 10))
    first, second, third = await begun(worker, "a", "b", "c")
    second.cancel()
    first.cancel()
    worker.go_on.set()
    await third
    with pytest.raises(ZeroDivisionError):
        async with worker.turns.turn():
            raise ZeroDivisionError
    await worker.work("d")
    assert worker.log == ["a", "c", "c.", "d", "d."]
