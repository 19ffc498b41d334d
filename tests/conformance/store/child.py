"""A process of its own that works on a store and says aloud what was acknowledged. Started by the tests beside it.

    python child.py accept URL NAME     submissions of two messages each, as fast as it can, until it is killed
    python child.py once URL NAME       one submission, then the end
    python child.py unsynced URL NAME   the same on SQLite with synchronous=OFF: the control, which promises nothing
    python child.py work URL NAME N     N submissions, while claiming and settling whatever is due, until told `stop`
    python child.py quota URL NAME T    claims and settles what a quota allows, from T (monotonic), until told `stop`
    python child.py hold URL NAME       claims three within a quota, and waits to be killed
    python child.py login URL NAME      takes the right to log in to an account for 30 s, and waits to be killed

Each line is one write of its own to standard output, made after the store has answered.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from service.mail.lifecycle import Event
from service.mail.quota import Quota
from service.store import open_store
from service.store.port import Store
from service.store.values import Claimed, Want
from tests.support.clock import EPOCH, SteppedClock
from tests.support.sending import quota
from tests.support.store_data import HOUR, ROUTE, accept_of, claim_all, new_message, settlement_of

BLOCK = 1_000_000  # numbers of messages that each process has for itself
CLIENTS = 16


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def accept_for_ever(store: Store, first: int) -> None:
    async def client(index: int) -> None:
        for number in range(first + 2 * index, first + BLOCK, 2 * CLIENTS):
            await store.accept(accept_of(new_message(number), new_message(number + 1), key=f"k{number}"))
            say("accepted", number)

    await asyncio.gather(*map(client, range(CLIENTS)))


async def work(store: Store, name: str, first: int, count: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, stopped.set)
    woken = asyncio.Event()
    store.on_hint(woken.set)

    async def client(index: int) -> None:
        for number in range(first + index, first + count, CLIENTS):
            await store.accept(accept_of(new_message(number)))
            say("accepted", number)
            woken.set()

    async def sender() -> None:
        while not stopped.is_set():
            woken.clear()
            deliveries = await claim_all(store, limit=5, holder=name)
            for delivery in deliveries:
                say("claimed", delivery.id, delivery.attempt)
                say("settled", await store.settle(settlement_of(delivery, Event.ACCEPTED)))
            if not deliveries:
                await asyncio.wait(
                    [asyncio.ensure_future(woken.wait()), asyncio.ensure_future(stopped.wait())],
                    timeout=0.1,  # the poll; hints only make it quick
                    return_when=asyncio.FIRST_COMPLETED,
                )

    await asyncio.gather(*map(client, range(CLIENTS)), sender(), sender())


LIMIT = quota("20/500ms", guard=0, headroom=0)
HOURLY = quota("5/h", guard=0, headroom=0)


async def use_quota(store: Store, name: str, began: float) -> None:
    def now() -> int:
        return EPOCH + HOUR + int((time.monotonic() - began) * 1000)

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, stopped.set)
    while not stopped.is_set():
        found = await claim(store, name, LIMIT, now)
        ended = now()
        await asyncio.gather(
            *(store.settle(settlement_of(each, Event.ACCEPTED, at=ended)) for each in found.deliveries)
        )
        for _ in found.deliveries:
            say("took", ended)
        if not found.deliveries:
            await asyncio.sleep(0.002)


async def claim(store: Store, name: str, limit: Quota, now: Callable[[], int]) -> Claimed:
    return await store.claim(lambda: [Want(ROUTE, "r", 3, quotas=(limit,))], name, now, 60)


def without_syncs() -> None:
    from service.store.sqlite import store as module

    connect = module.connect_writer

    def loose(path: str) -> apsw.Connection:
        connection = connect(path)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    module.connect_writer = loose


async def main(mode: str, url: str, name: str, *rest: str) -> None:
    if mode == "unsynced":
        without_syncs()
    store = open_store(url, SteppedClock(), holder=name)
    await store.open()
    say("open")
    first = int(name.removeprefix("child-")) * BLOCK
    if mode == "accept":
        await accept_for_ever(store, first)
    elif mode in ("once", "unsynced"):
        await store.accept(accept_of(new_message(first)))
        say("accepted", first)
        os._exit(0)  # closing would sync as well
    elif mode == "quota":
        await use_quota(store, name, float(rest[0]))
    elif mode == "hold":
        found = await claim(store, name, HOURLY, lambda: EPOCH + HOUR)
        say("claimed", len(found.deliveries))
        await asyncio.Event().wait()
    elif mode == "login":
        say(await store.ask_login("account", "mark", f"{name}/r", EPOCH, 30))
        await asyncio.Event().wait()
    else:
        await work(store, name, first, int(rest[0]))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
