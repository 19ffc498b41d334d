"""Turns: who is worked on, who waits, and for how long."""

import asyncio

import pytest

from service.api.turns import Turns
from service.errors import QueueFull, RequestTimeout, ShuttingDown


class Worker:
    """What was worked on: `log` has names when they begin, and names with a full stop when they end."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.log, self.gone = turns, list[str](), set[str]()
        self.go_on = asyncio.Event()

    async def work(self, name: str) -> None:
        """The first letter is the account."""

        async def gone() -> bool:
            return name in self.gone

        async with self.turns.turn(name[0], gone):
            self.log.append(name)
            await self.go_on.wait()
            await asyncio.sleep(0)
            self.log.append(f"{name}.")


async def begun(worker: Worker, *names: str) -> "list[asyncio.Task[None]]":
    tasks = [asyncio.create_task(worker.work(name)) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def ended(worker: Worker) -> list[str]:
    return [name.removesuffix(".") for name in worker.log if name.endswith(".")]


async def test_one_at_a_time_and_in_the_order_in_which_they_came() -> None:
    worker = Worker(Turns(1, 10))
    tasks = await begun(worker, "a1", "a2", "a3")
    assert (worker.log, worker.turns.waiting) == (["a1"], 2)
    worker.go_on.set()
    await asyncio.gather(*tasks)
    assert worker.log == ["a1", "a1.", "a2", "a2.", "a3", "a3."]


async def test_an_account_with_many_holds_no_other_up() -> None:
    worker = Worker(Turns(1, 10))
    tasks = await begun(worker, "a1", "a2", "a3", "a4", "b1", "b2", "c1")
    worker.go_on.set()
    await asyncio.gather(*tasks)
    assert ended(worker) == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


@pytest.mark.parametrize(("at_once", "begin"), [(2, 2), (None, 3)])
async def test_as_many_as_were_asked_for(at_once: int | None, begin: int) -> None:
    worker = Worker(Turns(at_once, 10))
    tasks = await begun(worker, "a1", "a2", "a3")
    assert len(worker.log) == begin
    worker.go_on.set()
    await asyncio.gather(*tasks)


async def test_who_waits_too_long_is_told_and_takes_no_turn() -> None:
    worker = Worker(Turns(1, 0.05))
    first, second = await begun(worker, "a1", "a2")
    with pytest.raises(QueueFull, match=r"Nothing was accepted.*POSTROOM_BATCH_WAIT") as refused:
        await second
    assert refused.value.retry_after == 5
    assert worker.turns.waiting == 0, "nothing is kept of who gave up"
    worker.go_on.set()
    await first
    await worker.work("a3")
    assert ended(worker) == ["a1", "a3"]


async def test_a_turn_is_free_again_after_a_fault_and_after_who_waited_has_gone() -> None:
    worker = Worker(Turns(1, 10))
    first, second, third, fourth = await begun(worker, "a1", "a2", "a3", "b1")
    second.cancel()
    await asyncio.sleep(0)
    first.cancel()
    worker.go_on.set()
    await asyncio.gather(third, fourth)

    async def here() -> bool:
        return False

    with pytest.raises(ZeroDivisionError):
        async with worker.turns.turn("a", here):
            raise ZeroDivisionError
    await worker.work("a4")
    assert ended(worker) == ["a3", "b1", "a4"], "who gave up costs its account no turn"


async def test_a_turn_that_comes_as_its_owner_gives_up_goes_to_the_next() -> None:
    worker = Worker(Turns(1, 10))
    first, second, third = await begun(worker, "a1", "a2", "a3")
    worker.go_on.set()
    await first  # which has given its turn to the second
    assert second.cancel()
    await third
    assert ended(worker) == ["a1", "a3"]


async def test_whose_client_hung_up_meanwhile_is_not_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.turns._LONG", 0.0)
    worker = Worker(Turns(1, 10))
    first, second, third = await begun(worker, "a1", "a2", "a3")
    worker.gone.add("a2")
    worker.go_on.set()
    with pytest.raises(RequestTimeout):
        await second
    await asyncio.gather(first, third)
    assert ended(worker) == ["a1", "a3"]


async def test_a_stop_ends_all_waiting() -> None:
    worker = Worker(Turns(1, 10))
    first, second, third = await begun(worker, "a1", "a2", "b1")
    worker.turns.stop()
    for each in (second, third, asyncio.create_task(worker.work("c1"))):
        with pytest.raises(ShuttingDown):
            await each
    worker.go_on.set()
    await first
    assert ended(worker) == ["a1"]
