"""The writer: who shares a commit, what is undone alone, what the loop does meanwhile, and how it gets up again."""

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from service.errors import StorageUnavailable
from service.store.sqlite.files import connect_writer, migrate_file
from service.store.sqlite.transaction import Steps, Transaction
from service.store.sqlite.writer import Writer


class Unknown:
    """What is to be put right after a reopening."""

    def __init__(self) -> None:
        self.left: list[Callable[[Transaction], object]] = []

    def works(self) -> list[Callable[[Transaction], object]]:
        return self.left

    def done(self) -> None:
        self.left = []


class Harness:
    """A writer on a file of its own, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "post.db")
        self.hints = 0
        self.fail_hint = False
        self.opened: list[apsw.Connection] = []
        self.unknown = Unknown()
        self.writer = Writer(self._connect, f"{self.path}.lock", self._hint, self.unknown)

    def _connect(self) -> apsw.Connection:
        self.opened.append(connect_writer(self.path))
        return self.opened[-1]

    def _hint(self) -> None:
        self.hints += 1
        if self.fail_hint:
            raise RuntimeError("a hint that fails")

    def buckets(self) -> set[str]:
        """What another connection sees."""
        connection = apsw.Connection(self.path)
        try:
            return {bucket for (bucket,) in connection.execute("SELECT bucket FROM limits")}
        finally:
            connection.close()


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path)
    migrate_file(made.path)
    await made.writer.start()
    yield made
    await made.writer.stop()


def put(bucket: str, then: Callable[[Transaction], object] = lambda _: None) -> Callable[[Transaction], str]:
    """An operation that writes one row, then does something."""

    def work(transaction: Transaction) -> str:
        transaction.run("accept: limit", {"bucket": bucket, "state": b"", "idle_after": 0})
        then(transaction)
        return bucket

    return work


async def test_who_arrives_during_a_transaction_shares_the_next_one(harness: Harness) -> None:
    rest: list[asyncio.Future[str]] = []

    def others_arrive(_: Transaction) -> None:
        rest.extend(harness.writer.submit(put(str(number))) for number in range(1, 51))

    assert await harness.writer.submit(put("0", others_arrive)) == "0"
    assert harness.writer.groups == 1, "it did not wait for them"
    assert await asyncio.gather(*rest) == [str(number) for number in range(1, 51)]
    assert harness.writer.groups == 2


async def test_a_group_is_bounded_in_operations_and_in_octets(harness: Harness) -> None:
    await asyncio.gather(*(harness.writer.submit(put(str(number))) for number in range(300)))
    assert harness.writer.groups == 3, "128, 128 and 44"
    await asyncio.gather(*(harness.writer.submit(put(str(number)), size=900_000) for number in range(5)))
    assert harness.writer.groups == 6, "two, two and one"


async def test_an_operation_that_can_not_be_prepared_fails_alone(harness: Harness) -> None:
    def broken() -> None:
        raise LookupError("a fault of ours")

    async with asyncio.timeout(10):
        results = await asyncio.gather(
            harness.writer.submit(put("before")),
            harness.writer.submit(put("broken"), prepare=broken),
            harness.writer.submit(put("after")),
            return_exceptions=True,
        )
    assert [results[0], type(results[1]), results[2]] == ["before", LookupError, "after"]
    assert harness.buckets() == {"before", "after"}
    assert await harness.writer.submit(put("later")) == "later", "the writer goes on"


async def test_an_operation_that_refuses_is_undone_alone(harness: Harness) -> None:
    def refuse(_: Transaction) -> None:
        raise LookupError("refused")

    results = await asyncio.gather(
        harness.writer.submit(put("before")),
        harness.writer.submit(put("refused", refuse)),
        harness.writer.submit(put("after")),
        return_exceptions=True,
    )
    assert isinstance(results[1], LookupError)
    assert harness.buckets() == {"before", "after"}
    assert harness.writer.groups == 1
    assert harness.writer.healthy


async def test_a_caller_that_gave_up_before_its_turn_has_nothing_done_and_breaks_no_group(harness: Harness) -> None:
    gone = harness.writer.submit(put("gone"))
    stays = harness.writer.submit(put("stays"))
    gone.cancel()
    assert await stays == "stays"
    assert harness.buckets() == {"stays"}


async def test_a_caller_that_gives_up_within_its_group_breaks_it_for_nobody(harness: Harness) -> None:
    gone = harness.writer.submit(put("gone", lambda _: gone.cancel()))
    assert await harness.writer.submit(put("stays")) == "stays"
    assert harness.buckets() == {"gone", "stays"}, "it was committed with the others"


async def test_a_long_operation_lets_the_loop_go_on_and_commits_at_once(harness: Harness) -> None:
    seen: list[int] = []

    async def others() -> None:
        while True:
            seen.append(len(harness.buckets()))
            await asyncio.sleep(0)

    def long(transaction: Transaction) -> Steps[int]:
        for number in range(640):
            put(str(number))(transaction)
            yield
        return 640

    beside = asyncio.create_task(others())
    assert await harness.writer.submit(long) == 640
    beside.cancel()
    assert seen.count(0) >= 20, "others had their turns meanwhile"
    assert set(seen) <= {0, 640}, "and saw all of it or nothing"
    assert harness.writer.groups == 1


async def test_only_an_operation_with_large_bytes_leaves_the_loops_thread(harness: Harness) -> None:
    """A claim asks the dispatcher, which lives on the loop, whatever shares its group."""
    names: dict[str, str] = {}

    def note(bucket: str) -> Callable[[Transaction], object]:
        return lambda _: names.update({bucket: threading.current_thread().name})

    await asyncio.gather(
        harness.writer.submit(put("claim", note("claim"))),
        harness.writer.submit(put("large", note("large")), 600_000, 600_000),
        harness.writer.submit(put("batch", note("batch")), 600_000, 1000),
    )
    assert harness.writer.groups == 1
    assert names["claim"] == names["batch"] == threading.main_thread().name
    assert names["large"].startswith("store-writer")


@pytest.mark.parametrize("error", [apsw.IOError("disk"), apsw.FullError("full"), apsw.BusyError("busy")])
async def test_a_fault_of_the_disk_refuses_the_whole_group_and_the_handle_is_never_used_again(
    harness: Harness, error: Exception
) -> None:
    def fail(_: Transaction) -> None:
        raise error

    waiting = [harness.writer.submit(put("first")), harness.writer.submit(put("bad", fail))]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [StorageUnavailable, StorageUnavailable]
    assert not harness.writer.healthy
    with pytest.raises(StorageUnavailable):
        await harness.writer.submit(put("meanwhile"))
    await healthy_again(harness)
    assert len(harness.opened) == 2
    assert await harness.writer.submit(put("later")) == "later"
    assert harness.buckets() == {"later"}


async def test_a_fault_that_nobody_thought_of_is_mended_in_the_same_way(harness: Harness) -> None:
    """The writer's task must never end unseen: everybody would wait for ever on a store that says it is healthy."""
    harness.fail_hint = True

    def queue(transaction: Transaction) -> None:
        transaction.queued = True

    assert await harness.writer.submit(put("stands", queue)) == "stands", "it was committed before the fault"
    await healthy_again(harness)
    harness.fail_hint = False
    assert await harness.writer.submit(put("later", queue)) == "later"
    assert harness.buckets() == {"stands", "later"}


async def test_what_is_not_known_is_put_right_before_anybody_else_may_write(harness: Harness) -> None:
    def fault(_: Transaction) -> object:
        raise ValueError("a fault of ours")

    harness.unknown.left = [put("first"), fault, put("third")]
    harness.fail_hint = True
    await harness.writer.submit(lambda transaction: setattr(transaction, "queued", True))
    for _ in range(1000):
        if not harness.writer.healthy:
            break
        await asyncio.sleep(0)
    with pytest.raises(StorageUnavailable):
        await harness.writer.submit(put("too early"))
    harness.fail_hint = False
    await healthy_again(harness)
    assert harness.unknown.left == []
    assert harness.buckets() == {"first", "third"}, "one that fails keeps neither the others nor the store"


async def test_what_is_queued_at_a_stop_is_committed_and_nothing_later_is(harness: Harness) -> None:
    waiting = [harness.writer.submit(put(str(number))) for number in range(200)]
    stopping = asyncio.ensure_future(harness.writer.stop())
    await asyncio.sleep(0)
    with pytest.raises(StorageUnavailable):
        await harness.writer.submit(put("late"))
    assert len(await asyncio.gather(*waiting)) == 200
    await stopping
    assert len(harness.buckets()) == 200


async def test_a_stop_during_trouble_ends(harness: Harness) -> None:
    def fail(_: Transaction) -> None:
        raise apsw.IOError("disk")

    with pytest.raises(StorageUnavailable):
        await harness.writer.submit(put("bad", fail))
    async with asyncio.timeout(5):
        await harness.writer.stop()


async def test_another_process_that_writes_is_waited_for_without_holding_up_the_loop(harness: Harness) -> None:
    other = os.open(f"{harness.path}.lock", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    waiting = harness.writer.submit(put("mine"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    os.close(other)
    assert await waiting == "mine"


async def test_another_process_may_write_when_the_commit_is_through_though_our_loop_is_busy(harness: Harness) -> None:
    other = os.open(f"{harness.path}.lock", os.O_RDWR)
    taken: list[bool] = []

    def keep_the_loop(_: Transaction) -> None:  # from the next turn on, when the commit has been handed to its thread
        asyncio.get_running_loop().call_soon(lambda: taken.append(comes_by(other)))

    assert await harness.writer.submit(put("mine", keep_the_loop)) == "mine"
    assert taken == [True]
    os.close(other)


def comes_by(lock: int) -> bool:
    """Whether this lock is to be had within five seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


async def test_a_program_that_does_not_know_our_lock_is_waited_for_too(harness: Harness) -> None:
    foreign = apsw.Connection(harness.path)
    foreign.execute("BEGIN IMMEDIATE")
    waiting = harness.writer.submit(put("mine"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    foreign.execute("ROLLBACK")
    foreign.close()
    assert await waiting == "mine"
    assert harness.writer.healthy


async def healthy_again(harness: Harness) -> None:
    for _ in range(1000):
        if harness.writer.healthy:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not get up again")
