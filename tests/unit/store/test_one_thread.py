"""The thread beside the loop: calls in order, answers on the loop, and an end that waits."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from service.store.sqlite.one_thread import OneThread


@pytest.fixture
async def thread() -> AsyncIterator[OneThread]:
    made = OneThread("beside")
    yield made
    made.end()


async def test_calls_run_there_in_the_order_in_which_they_were_asked_for(thread: OneThread) -> None:
    seen: list[tuple[int, str]] = []

    def note(number: int) -> int:
        seen.append((number, threading.current_thread().name))
        return number

    assert await asyncio.gather(*(thread.run(note, number) for number in range(50))) == list(range(50))
    assert seen == [(number, "beside") for number in range(50)]


async def test_what_a_call_raises_is_raised_to_its_caller_and_the_next_one_runs(thread: OneThread) -> None:
    def fail() -> None:
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        await thread.run(fail)
    assert await thread.run(lambda: "next") == "next"


async def test_a_caller_that_gives_up_stops_neither_its_call_nor_the_thread(thread: OneThread) -> None:
    going, done = threading.Event(), threading.Event()

    def wait() -> None:
        going.wait(10)
        done.set()

    given_up = thread.run(wait)
    given_up.cancel()
    going.set()
    assert await thread.run(lambda: done.is_set()) is True
    assert given_up.cancelled()


async def test_the_end_waits_for_what_was_asked_for() -> None:
    thread, ran = OneThread("beside"), list[int]()
    waiting = [thread.run(ran.append, number) for number in range(20)]
    thread.end()
    assert ran == list(range(20))
    await asyncio.gather(*waiting)


async def test_a_thread_that_was_never_asked_ends_at_once() -> None:
    OneThread("beside").end()
