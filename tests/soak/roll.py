"""Two processes on one store are stopped by SIGTERM and started again in turn, while clients post without a pause.

`python -m tests.soak.roll --times 200 --seed N [--store sqlite|postgres] [--roles all,all|api,sender]` prints a summary
and ends with 1 if anything was lost, doubled or refused. Clients do as a load balancer does: they ask /readyz, and a
process that is not ready gets no further request. That is all they do: no request is repeated.
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.postgres import PostgresServer
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess

DRAIN_DELAY = 2.0  # seconds: a balancer that asks every LOOK_EVERY notices well within it
LOOK_EVERY, POST_EVERY = 0.02, 0.005  # seconds
CLIENTS = 3
SENT_WITHIN = 120.0  # seconds after the last stop
STARTED_WITHIN = 60.0
SHOWN_EVERY = 20  # stops


@dataclass
class Summary:
    """What came of a run."""

    seed: int
    stops: int = 0
    seconds: float = 0.0
    accepted: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # answers other than 202, and broken connections
    statuses: list[int] = field(default_factory=list)  # exit statuses other than 0
    lost: int = 0
    doubled: int = 0
    unknown: int = 0  # sent, and never answered with 202

    @property
    def good(self) -> bool:
        """Nothing lost, nothing doubled, nothing refused."""
        return not (self.faults or self.statuses or self.lost or self.doubled or self.unknown)

    def __str__(self) -> str:
        return (
            f"{self.stops} SIGTERMs in {self.seconds:.0f} s, seed {self.seed}: {len(self.accepted)} accepted,"
            f" {self.lost} lost, {self.doubled} doubled, {self.unknown} sent without a 202,"
            f" {len(self.faults)} requests refused or broken {self.faults[:3]}, exit statuses {self.statuses or 'all 0'}"
        )


class Balancer(threading.Thread):
    """Knows which processes are ready, by asking them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._members: set[str] = set()
        self._ready: list[str] = []
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._turn = 0

    def run(self) -> None:
        with httpx.Client(timeout=5) as client:
            while not self._ended.wait(LOOK_EVERY):
                ready = [url for url in sorted(self._members) if _is_ready(client, url)]
                with self._changed:
                    self._ready = [url for url in ready if url in self._members]
                    self._changed.notify_all()

    def add(self, url: str) -> None:
        """It may get requests once it is ready; waits for that."""
        self._members = self._members | {url}
        with self._changed:
            assert self._changed.wait_for(lambda: url in self._ready, STARTED_WITHIN), "it is not ready"

    def remove(self, url: str) -> None:
        """It is gone."""
        self._members = self._members - {url}

    def pick(self, seconds: float) -> str | None:
        """A process that is ready, each in turn; None: there was none for so long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready, seconds):
                return None
            self._turn += 1
            return self._ready[self._turn % len(self._ready)]

    def end(self) -> None:
        """Stop asking."""
        self._ended.set()
        self.join(10)


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


class Poster(threading.Thread):
    """Posts to whom the balancer picks, and notes each answer."""

    def __init__(self, name: str, balancer: Balancer) -> None:
        super().__init__(daemon=True)
        self._name, self._balancer, self._ended = name, balancer, threading.Event()
        self.accepted: list[str] = []
        self.faults: list[str] = []

    def run(self) -> None:
        number = 0
        with httpx.Client(timeout=30) as client:
            while not self._ended.wait(POST_EVERY):
                if (url := self._balancer.pick(1.0)) is None:
                    continue
                number += 1
                try:
                    answer = client.post(f"{url}/send", json={**ARTICLE, "to": f"{self._name}-{number}@example.org"})
                except httpx.HTTPError as error:
                    self.faults.append(f"{type(error).__name__}: {error}")
                    continue
                if answer.status_code == 202:
                    self.accepted.append(json.loads(answer.content)["message_id"].strip("<>"))
                else:
                    self.faults.append(f"{answer.status_code} {answer.text[:200]}")

    def end(self) -> None:
        """Stop after the request that is under way."""
        self._ended.set()
        self.join(60)


def roll(folder: Path, database_url: str, roles: tuple[str, str], times: int, seed: int) -> Summary:
    """`times` SIGTERMs on two processes with these roles, in turn, under load."""
    generator, summary, began = random.Random(seed), Summary(seed), time.monotonic()
    balancer = Balancer()
    with SinkProcess(folder) as sink:
        members = [_start(folder, sink, database_url, role) for role in roles]
        balancer.start()
        posters = [Poster(f"u{number}", balancer) for number in range(CLIENTS)]
        try:
            for member, role in zip(members, roles, strict=True):
                _enter(balancer, member, role)
            for poster in posters:
                poster.start()
            for number in range(times):
                time.sleep(generator.uniform(0.2, 1.0))  # under load; the moment is what is random here
                index = number % len(members)
                summary.stops += 1
                if summary.stops % SHOWN_EVERY == 0:
                    print(f"  {summary.stops} of {times} SIGTERMs", file=sys.stderr, flush=True)
                if (status := members[index].stop()) != 0:
                    summary.statuses.append(status)
                balancer.remove(members[index].url)
                members[index] = _start(folder, sink, database_url, roles[index])
                _enter(balancer, members[index], roles[index])
        finally:
            for poster in posters:
                if poster.is_alive():
                    poster.end()
            balancer.end()
            _judge(summary, posters, sink)
            for member in members:
                member.stop()
            summary.seconds = time.monotonic() - began
    return summary


def _start(folder: Path, sink: SinkProcess, database_url: str, role: str) -> ServiceProcess:
    given = {"drain_delay": DRAIN_DELAY, "drain_grace": 20, "in_doubt_delay": 1}
    return ServiceProcess(folder, sink.url, database_url=database_url, role=role, **given)


def _enter(balancer: Balancer, member: ServiceProcess, role: str) -> None:
    if role != "sender":
        balancer.add(member.url)


def _judge(summary: Summary, posters: list[Poster], sink: SinkProcess) -> None:
    """Wait until all that was accepted has arrived; a second copy of anything is one too many."""
    for poster in posters:
        summary.accepted += poster.accepted
        summary.faults += poster.faults
    accepted, deadline = set(summary.accepted), time.monotonic() + SENT_WITHIN
    while accepted - sink.copies().keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    copies = sink.copies()
    summary.lost = len(accepted - copies.keys())
    summary.doubled = sum(count - 1 for count in copies.values())
    summary.unknown = len(copies.keys() - accepted)


@contextlib.contextmanager
def _database(store: str, folder: Path) -> Iterator[str]:
    if store == "sqlite":
        yield f"sqlite:///{folder}/post.db"
        return
    with PostgresServer() as server:
        yield server.new_database()


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.roll", description="Stop and roll under load.")
    parser.add_argument("--times", type=int, default=200, help="SIGTERMs")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, shown in the summary")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="postgres")
    parser.add_argument("--roles", choices=("all,all", "api,sender"), default="all,all")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(2**32)
    first, second = chosen.roles.split(",")
    with tempfile.TemporaryDirectory(prefix="postroom-roll-") as folder, _database(chosen.store, Path(folder)) as url:
        summary = roll(Path(folder), url, (first, second), chosen.times, seed)
    print(f"{chosen.store}, roles {chosen.roles}: {summary}")
    return 0 if summary.good else 1


if __name__ == "__main__":
    sys.exit(main())
