"""Whole processes on one store: killed at any moment nothing acknowledged is lost, and two of them share fairly."""

import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from service.mail.lifecycle import State
from service.mail.trouble import Answer
from service.store.port import Store
from service.store.values import IdempotencyKey, Replayed, RescuePolicy, Want
from tests.conformance.store.child import HOURLY, LIMIT
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, ROUTE, accept_of, new_message, states

CHILD = Path(__file__).with_name("child.py")


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(CHILD), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read_until(child: "subprocess.Popen[str]", count: int) -> list[str]:
    """Its next `count` lines."""
    assert child.stdout is not None
    lines = [child.stdout.readline().rstrip("\n") for _ in range(count)]
    assert all(lines), f"the child ended: {lines[-5:]}"
    return lines


def rest_of(child: "subprocess.Popen[str]") -> list[str]:
    """What it still says until it ends, as it was told to."""
    assert child.stdout is not None
    with child.stdout as output:
        lines = output.read().splitlines()
    assert child.wait(30) == 0
    return lines


def numbers_of(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("accepted ")]


async def test_whatever_was_acknowledged_before_a_kill_is_there_whole(
    database_url: str, open_another: Callable[..., object]
) -> None:
    generator = random.Random(20261124)
    acknowledged: list[int] = []
    kills = 8
    for index in range(1, kills + 1):
        child = start("accept", database_url, f"child-{index}")
        lines = read_until(child, generator.randint(2, 400))
        child.kill()
        assert child.stdout is not None
        lines += child.stdout.read().splitlines()  # whole lines: each was one small write to a pipe
        child.wait()
        acknowledged += numbers_of(lines)
    store: Store = await open_another("reader")  # type: ignore[misc]
    assert len(acknowledged) > 100
    for number in acknowledged:
        for each in (number, number + 1):
            assert await states(store, new_message(each).id) == [State.QUEUED], each
            assert await store.get_content("acme", new_message(each).id) == new_message(each).content
        answer = await store.find_answer("acme", IdempotencyKey(f"k{number}", b"f"))
        assert answer == Replayed(f"answer k{number}".encode())
    await halves_are_whole(store, kills)


async def halves_are_whole(store: Store, kills: int) -> None:
    """What was not acknowledged may be there or not, but never half: pair, key, recipients, bytes, log and counts."""
    present = 0
    for index in range(1, kills + 1):
        gap = 0
        for number in range(index * 1_000_000, (index + 1) * 1_000_000, 2):
            pair = [await store.get_message("acme", new_message(each).id) for each in (number, number + 1)]
            key = await store.find_answer("acme", IdempotencyKey(f"k{number}", b"f"))
            assert len({view is None for view in pair} | {key is None}) == 1, number
            for view in pair:
                if view is not None:
                    present += 1
                    assert len(view.recipients) == 1
                    assert len(await store.list_events("acme", view.id)) == 1
                    assert await store.get_content("acme", view.id) is not None
            gap = gap + 1 if pair[0] is None else 0
            if gap > 64:  # clients of a process are at most a group apart
                break
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: present}


def listen(children: "list[subprocess.Popen[str]]", sent: int) -> list[str]:
    """All that the children say until `sent` deliveries were settled; then they are told to stop, and do."""
    lines: queue.Queue[str] = queue.Queue()

    def read(child: "subprocess.Popen[str]") -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line.rstrip("\n"))

    readers = [threading.Thread(target=read, args=(child,), daemon=True) for child in children]
    for reader in readers:
        reader.start()
    said: list[str] = []
    while sum(line.startswith("settled ") for line in said) < sent:
        said.append(lines.get(timeout=30))
    for child, reader in zip(children, readers, strict=True):
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(30) == 0
        reader.join()
    return said + list(lines.queue)


async def test_two_processes_accept_and_send_on_one_store_without_losing_or_doubling(
    database_url: str, open_another: Callable[..., object]
) -> None:
    count = 300
    said = listen([start("work", database_url, f"child-{index}", count) for index in (1, 2)], 2 * count)
    claims = [line.split()[1:] for line in said if line.startswith("claimed ")]
    accepted = {new_message(number).id for number in numbers_of(said)}
    assert len(accepted) == 2 * count
    assert sorted(id for id, _ in claims) == sorted(accepted), "each delivery was claimed once, by one of them"
    assert len({fence for _, fence in claims}) == len(claims)
    assert {line for line in said if line.startswith("settled ")} == {"settled 1"}
    store: Store = await open_another("reader")  # type: ignore[misc]
    counts = {state: count for state, count in (await store.stats(EPOCH)).counts.items() if count}
    assert counts == {State.SENT: 2 * count}


async def test_two_processes_together_never_take_more_of_a_quota_than_there_is(
    database_url: str, open_another: Callable[..., object]
) -> None:
    store: Store = await open_another("reader")  # type: ignore[misc]
    await store.accept(accept_of(*(new_message(n) for n in range(1, 401))))
    began = time.monotonic() + 1.0  # both are up by then
    children = [start("quota", database_url, f"child-{index}", began) for index in (1, 2)]
    count, window = LIMIT.rate.count, int(LIMIT.rate.window * 1000)
    said = [read_until(child, 1 + 2 * count) for child in children]  # both got some, and what there is was used
    for child in children:
        assert child.stdin is not None
        child.stdin.write("stop\n")
        child.stdin.close()
    said += [rest_of(child) for child in children]
    together = sorted(int(line.split()[1]) for lines in said for line in lines if line.startswith("took "))
    assert max(sum(at <= other < at + window for other in together) for at in together) == count


async def test_a_sender_that_is_killed_between_claim_and_settle_gives_nothing_back(
    database_url: str, open_another: Callable[..., object]
) -> None:
    store: Store = await open_another("reader")  # type: ignore[misc]
    await store.accept(accept_of(*(new_message(n) for n in range(1, 11))))
    child, now = start("hold", database_url, "child-1"), EPOCH + HOUR
    assert read_until(child, 2) == ["open", "claimed 3"]
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()
    assert (await store.quota_use([HOURLY], now))[0].in_flight == 3
    if not database_url.startswith("sqlite"):
        # a process on another host may be silent and live: only the end of its lease tells
        assert await store.rescue(now, RescuePolicy(900, 2, 10)) == 0
        now += 60_001
    for rescued in (3, 0):
        assert await store.rescue(now, RescuePolicy(900, 2, 10)) == rescued
        (use,) = await store.quota_use([HOURLY], now)
        assert (use.used, use.in_flight) == (3, 0)
    found = await store.claim(lambda: [Want(ROUTE, "r", 9, quotas=(HOURLY,))], "reader", lambda: now, 60)
    assert len(found.deliveries) == 2


async def test_a_process_that_is_killed_while_it_logs_in_keeps_the_right_for_a_lease_at_most(
    database_url: str, open_another: Callable[..., object]
) -> None:
    store: Store = await open_another("reader")  # type: ignore[misc]
    child = start("login", database_url, "child-1")
    assert read_until(child, 2) == ["open", "granted"]
    assert await store.ask_login("account", "mark", "reader/r", EPOCH, 30) is Answer.WAIT
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()
    if database_url.startswith("sqlite"):
        assert (await store.relay_accounts())["account"].login.prober == "", "the kernel tells who lives"
        assert await store.ask_login("account", "mark", "reader/r", EPOCH, 30) is Answer.GRANTED
    else:  # a process on another host may be silent and live: only the end of its lease tells
        assert await store.ask_login("account", "mark", "reader/r", EPOCH + 29_999, 30) is Answer.WAIT
        assert await store.ask_login("account", "mark", "reader/r", EPOCH + 30_000, 30) is Answer.GRANTED
