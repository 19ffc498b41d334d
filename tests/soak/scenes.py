"""What is done to running processes: kills, pauses, a database that crashes, clocks that step, a message that kills.

A scene draws its moments from the generator that it is given, lasts about as long as it is told, and answers what the
checker says at the end. It decides nothing about what must hold: tests/support/checker.py does.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.soak.fleet import LEASE, Fleet, moment
from tests.soak.inside import somebody_is_in_the_way
from tests.support.checker import Verdict
from tests.support.postgres import PostgresServer
from tests.support.process import ServiceProcess
from tests.support.waiting import wait_for

_SHOTS = 100  # stops of a moment, until one hits
_AGAIN = 10.0  # seconds within which a service whose database came back takes mail


def _rounds(seconds: float) -> Iterator[None]:
    """At least one, and more until the time is over."""
    end = time.monotonic() + seconds
    yield
    while time.monotonic() < end:
        yield


def random_kills(fleet: Fleet, chance: random.Random, seconds: float) -> Verdict:
    """One process that does all, killed again and again under load."""
    for _ in _rounds(seconds):
        process = fleet.start()
        with fleet.load(process):
            moment(chance.uniform(0.1, 1.2))
            fleet.kill(process)
    return fleet.finish(fleet.start())


def killed_senders(fleet: Fleet, chance: random.Random, seconds: float) -> Verdict:
    """Roles apart: of two senders one is killed and started anew, while the API goes on."""
    api, *senders = fleet.start_all("api", "sender", "sender")
    with api:
        try:
            with fleet.load(api, 2):
                for _ in _rounds(seconds):
                    which = chance.randrange(len(senders))
                    moment(chance.uniform(0.1, 1.2))
                    fleet.kill(senders[which])
                    senders[which] = fleet.start(role="sender")
            return fleet.finish(api)
        finally:
            for sender in senders:
                sender.stop()


def pauses(fleet: Fleet, chance: random.Random, seconds: float) -> Verdict:
    """Four senders; one at a time stands still for longer than its lease, and then goes on as if nothing had been."""
    with ExitStack() as stack:
        api, *senders = [stack.enter_context(each) for each in fleet.start_all("api", *["sender"] * 4)]
        for _ in _rounds(seconds):
            with fleet.load(api, 2):
                moment(chance.uniform(0.1, 0.6))
                with fleet.paused(chance.choice(senders)):
                    moment(LEASE + chance.uniform(0.5, 1.5))
        return fleet.finish(api)


def pauses_within(fleet: Fleet, chance: random.Random, seconds: float) -> Verdict:
    """The same, each time while it has in hand what the others need: they wait, and nothing of theirs is in doubt."""
    stops = 0
    with ExitStack() as stack:
        api, *senders = [stack.enter_context(each) for each in fleet.start_all("api", *["sender"] * 4)]
        for _ in _rounds(seconds):
            with fleet.load(api, 2):
                moment(chance.uniform(0.1, 0.6))
                if (stopped := _stopped_in_the_way(fleet, senders, chance)) is not None:
                    stops += 1
                    fleet.lost()
                    moment(LEASE + chance.uniform(0.5, 1.5))
                    stopped.process.send_signal(signal.SIGCONT)
                    moment(1.5)  # for whoever would take the others' mail now
        verdict = fleet.finish(api)
    if not stops:
        verdict.broken.append("no sender was ever stopped with something in hand: the scene shows nothing")
    return verdict


def _stopped_in_the_way(fleet: Fleet, senders: list[ServiceProcess], chance: random.Random) -> ServiceProcess | None:
    """One of them, stopped there; None: it was not hit."""
    for _ in range(_SHOTS):
        sender = chance.choice(senders)
        sender.process.send_signal(signal.SIGSTOP)
        if somebody_is_in_the_way(fleet.database_url):
            return sender
        sender.process.send_signal(signal.SIGCONT)
        moment(0.02)
    return None


def database_crashes(fleet: Fleet, chance: random.Random, seconds: float, server: PostgresServer) -> Verdict:
    """PostgreSQL is killed under load and started again; no process of the service is."""
    with fleet.start() as process:
        for _ in _rounds(seconds):
            with fleet.load(process):
                moment(chance.uniform(0.2, 1.0))
                server.kill()
                fleet.lost()
                moment(chance.uniform(0.0, 1.0))
                server.start()
            assert wait_for(lambda: _ready(process), _AGAIN), "it does not come back by itself"
        return fleet.finish(process)


def _ready(process: ServiceProcess) -> bool:
    return httpx.get(f"{process.url}/readyz", timeout=20).status_code == 200


def poison(fleet: Fleet, max_kills: int = 3) -> Verdict:
    """A message that kills whoever sends it: it is failed, and mail that came after it is sent."""
    with fleet.start() as process, httpx.Client(base_url=process.url) as http:
        assert fleet.client.post(http)  # the login to the relay is proven by it
        assert wait_for(lambda: _status(http, fleet.client.promises[0].id) == "sent", 20)
    with fleet.start(role="api") as api, httpx.Client(base_url=api.url) as http:
        assert fleet.client.post(http)
    deadly = fleet.client.promises[1].id
    for number in range(max_kills):
        with fleet.doom("content.before=kill", role="sender", max_kills=max_kills) as sender:
            assert wait_for(sender.died, 30), f"sender {number} was not killed by the message"
        fleet.lost()
    with fleet.start(max_kills=max_kills) as process:
        with httpx.Client(base_url=process.url) as http:
            assert fleet.client.post(http)
            assert wait_for(lambda: _status(http, deadly) == "failed", 20), "the poison is not failed"
        return fleet.finish(process)


def _status(http: httpx.Client, id: str) -> str:
    return str(http.get(f"/messages/{id}", timeout=20).json()["status"])


def clock_steps(fleet: Fleet, chance: random.Random, seconds: float) -> Verdict:
    """The wall clock of a process jumps forth and back by up to a minute, as it does when it is set by hand.

    What is more at once than `clock_jump` is doubted for a second: so some doubts end by belief, and some by a step back.
    """
    with _stepped_clock(fleet.folder) as offset, fleet.start(clock_patience=1) as process:
        for _ in _rounds(seconds):
            with fleet.load(process):
                moment(chance.uniform(0.1, 0.5))
                offset.write_text(str(chance.randrange(-60_000, 60_000)))
                fleet.lost()  # a lease may look over that is not
                moment(chance.uniform(0.1, 0.5))
        offset.write_text("60000")  # ahead of all that was put off meanwhile
        fleet.lost()
        return fleet.finish(process)


_STEPPED = """
import os, service.clock
clock, file = service.clock.Clock, os.environ["TEST_CLOCK_OFFSET"]
true = clock.now
def now(self):
    with open(file) as offset:
        return true(self) + int(offset.read() or 0)
clock.now = now
"""


@contextmanager
def _stepped_clock(folder: Path) -> Iterator[Path]:
    """service/clock.py is the one source of time; a file says by how many milliseconds its wall clock is wrong."""
    place, offset = folder / "stepped", folder / "offset"
    place.mkdir()
    (place / "sitecustomize.py").write_text(_STEPPED)
    offset.write_text("0")
    given = {"TEST_EXTRA_PATH": str(place), "TEST_CLOCK_OFFSET": str(offset)}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield offset
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
