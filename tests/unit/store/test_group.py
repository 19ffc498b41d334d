"""A group of the writer whose operations are done together: in one call while all goes well, each alone after a fault."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import apsw
import pytest

from service.mail.lifecycle import State
from service.store.sqlite.files import connect_writer, migrate_file
from service.store.sqlite.transaction import Steps, Transaction
from service.store.sqlite.writer import Writer


class Nothing:
    """Nothing is to be put right after a reopening."""

    def works(self) -> list[object]:
        return []

    def done(self) -> None: ...


class Noting:
    """Writes a row for each item; raises at those that it is told to."""

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.calls: list[list[str]] = []

    def __call__(self, transaction: Transaction, items: Sequence[str]) -> list[str]:
        self.calls.append(list(items))
        for item in items:
            write(transaction, item)
            if item in self.bad:
                raise LookupError(item)
        return [f"{item} is done" for item in items]


def write(transaction: Transaction, bucket: str) -> None:
    """A row that must not be there yet."""
    assert transaction.one("accept: find limit", {"bucket": bucket}) is None, "it was done twice"
    transaction.run("accept: limit", {"bucket": bucket, "state": b"", "idle_after": 0})


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    path = str(tmp_path / "post.db")
    migrate_file(path)
    made = Writer(lambda: connect_writer(path), f"{path}.lock", lambda: None, Nothing())  # type: ignore[arg-type]
    await made.start()
    yield made
    await made.stop()


def buckets(folder: Path) -> set[str]:
    connection = apsw.Connection(str(folder / "post.db"))
    try:
        return {bucket for (bucket,) in connection.execute("SELECT bucket FROM limits")}
    finally:
        connection.close()


async def test_neighbours_that_are_alike_are_one_call_and_each_has_its_own_answer(
    writer: Writer, tmp_path: Path
) -> None:
    one, other = Noting(), Noting()
    waiting = [writer.submit_alike(one, "a"), writer.submit_alike(one, "b"), writer.submit_alike(other, "c")]
    waiting.append(writer.submit_alike(one, "d"))
    assert await asyncio.gather(*waiting) == ["a is done", "b is done", "c is done", "d is done"]
    assert one.calls == [["a", "b"], ["d"]], "nothing overtakes what stands between"
    assert writer.groups == 1
    assert buckets(tmp_path) == {"a", "b", "c", "d"}


async def test_so_many_at_once_that_the_loop_can_spare_the_time(writer: Writer) -> None:
    noting = Noting()
    await asyncio.gather(*(writer.submit_alike(noting, str(number)) for number in range(100)))
    assert [len(items) for items in noting.calls] == [32, 32, 32, 4]
    assert writer.groups == 1


async def test_a_fault_among_those_that_are_alike_stays_with_its_cause(writer: Writer, tmp_path: Path) -> None:
    noting = Noting("b")
    results = await asyncio.gather(*(writer.submit_alike(noting, each) for each in "abc"), return_exceptions=True)
    assert [str(result) for result in results] == ["a is done", "b", "c is done"]
    assert noting.calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert writer.groups == 1
    assert writer.healthy
    assert buckets(tmp_path) == {"a", "c"}


async def test_who_shares_the_group_of_a_fault_is_done_once_and_has_its_own_answer(
    writer: Writer, tmp_path: Path
) -> None:
    refusals: list[str] = []

    def refuse(transaction: Transaction) -> None:
        write(transaction, "refused")
        refusals.append("again")
        raise ValueError("refused")

    results = await asyncio.gather(
        writer.submit(lambda transaction: write(transaction, "before")),
        writer.submit(refuse),
        writer.submit_alike(Noting("bad"), "bad"),
        writer.submit(lambda transaction: write(transaction, "after"), sure=True),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), ValueError, LookupError, type(None)]
    assert refusals == ["again", "again"], "the group was done once more"
    assert buckets(tmp_path) == {"before", "after"}


async def test_an_operation_that_refuses_costs_its_group_no_second_time(writer: Writer, tmp_path: Path) -> None:
    noting = Noting()

    def refuse(transaction: Transaction) -> None:
        write(transaction, "refused")
        raise ValueError("refused")

    results = await asyncio.gather(
        writer.submit_alike(noting, "a"),
        writer.submit(refuse),
        writer.submit_alike(noting, "b"),
        return_exceptions=True,
    )
    assert isinstance(results[1], ValueError)
    assert noting.calls == [["a"], ["b"]]
    assert buckets(tmp_path) == {"a", "b"}


async def test_the_counts_of_what_was_undone_are_not_counted(writer: Writer, tmp_path: Path) -> None:
    def moving(transaction: Transaction, items: Sequence[str]) -> list[None]:
        for item in items:
            transaction.move(None, State.QUEUED)
            if item == "bad":
                raise LookupError(item)
        return [None] * len(items)

    await asyncio.gather(*(writer.submit_alike(moving, each) for each in ("a", "bad", "c")), return_exceptions=True)
    connection = apsw.Connection(str(tmp_path / "post.db"))
    assert connection.execute("SELECT count FROM counters WHERE state = 'queued'").fetchall() == [(2,)]
    connection.close()


async def computed(writer: Writer, steps: list[str], until: "asyncio.Future[object]") -> None:
    """What a batch that is being prepared does: way for others, and some work."""
    while not until.done():
        await writer.make_way()
        steps.append("compute")


async def test_who_computes_stands_back_while_a_group_has_the_file(writer: Writer) -> None:
    steps: list[str] = []

    def work(transaction: Transaction) -> Steps[str]:
        for number in range(4):
            write(transaction, str(number))
            steps.append(f"write {number}")
            yield 32  # each a pause
        return "done"

    async def other_request() -> None:
        await asyncio.sleep(0)
        steps.append("other")

    group = writer.submit(work)
    await asyncio.gather(computed(writer, steps, group), other_request())
    first, last = steps.index("write 0"), steps.index("write 3")
    assert "compute" not in steps[first:last], "no other process would have been served sooner for it"
    assert "compute" in steps[last:], "the commit is waited for in a thread, and the loop is free"


async def test_who_computes_goes_on_while_a_large_operation_has_the_thread(writer: Writer) -> None:
    steps: list[str] = []
    begun, told = threading.Event(), threading.Event()

    def work(_: Transaction) -> bool:
        begun.set()
        return told.wait(5)

    group = writer.submit(work, size=1024 * 1024, largest=1024 * 1024)
    await asyncio.to_thread(begun.wait, 5)
    computing = asyncio.ensure_future(computed(writer, steps, group))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(steps) > 1
    told.set()
    assert await group
    await computing
