"""The clients: `python -m bench.rivals.generator` reads a job from standard input and prints a result, both JSON.

The requests are built before the clock starts. Closed: each client asks again when it is answered. Open (`rate` is given):
requests are due at equal steps whatever the answers do, and a latency counts from when a request was due, so that a rival
that stalls is charged for all who waited. A client whose connection is closed on it opens another.

A message counts as accepted when its request was answered 200 to 299. `share` is the processor time of this process in
parts of one core: near 1 it would measure itself.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.load import Client
from bench.rivals import work

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 300.0  # seconds for a job


@dataclass(frozen=True, slots=True)
class Job:
    """What to ask for."""

    port: int
    path: str
    kind: str  # of work.body
    run: str
    count: int  # messages
    clients: int
    batch: int = 1  # messages in a request
    rate: float | None = None  # messages a second, open; closed without
    fields: dict[str, str] = field(default_factory=dict)  # header fields; idempotency keys are added
    first: int = 0  # number of the first message
    recipients: int = 1  # of a message
    relays: Sequence[str] = ()  # requests take these in turn, and of the following as well; empty: what `kind` says
    templates: Sequence[str] = ()
    tokens: Sequence[str] = ()  # API keys


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. Times in milliseconds; `began` on the monotonic clock that all processes share."""

    began: float
    seconds: float
    accepted: list[str]  # ids
    statuses: dict[str, int]
    p50: float
    p95: float
    p99: float
    share: float


@dataclass(slots=True)
class Asked:
    """One request. `due`: when it should go out, by time.perf_counter; None: whenever a client is free."""

    numbers: range
    content: bytes
    due: float | None = None


class Work:
    """All requests of a job: handed out, answered, counted."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.requests = list(requests_of(job))
        self._open = len(self.requests)
        self.accepted: list[str] = []
        self.statuses: dict[str, int] = {}
        self.latencies: list[float] = []
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, asked: Asked, status: str) -> None:
        """`status`: three digits, or `closed`."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status[0] == "2":
            self.accepted += [work.identifier(self.job.run, number) for number in asked.numbers]
        assert asked.due is not None, "it was answered, so it was asked"
        self.latencies.append(time.perf_counter() - asked.due)
        self._open -= 1
        if self._open == 0 and not self.finished.done():
            self.finished.set_result(None)


def requests_of(job: Job) -> Iterator[Asked]:
    """All of them, with what each takes in its turn."""
    end = job.first + job.count
    for first in range(job.first, end, job.batch):
        numbers = range(first, min(first + job.batch, end))
        fields = {**job.fields, "Idempotency-Key": f"{job.run}-{first}"}
        if job.tokens:
            fields["Authorization"] = f"Bearer {_in_turn(job.tokens, first)}"
        yield Asked(numbers, work.http_request(job.path, _body(job, numbers), fields))


def _body(job: Job, numbers: range) -> dict[str, Any]:
    body, first = work.body(job.kind, job.run, numbers), numbers[0]
    if job.recipients > 1:
        body["to"] = work.recipients(first, job.recipients)
    if job.relays:
        body["relay"] = _in_turn(job.relays, first)
    if job.templates:
        body["template"]["name"] = _in_turn(job.templates, first)
    return body


def _in_turn(values: Sequence[str], number: int) -> str:
    return values[number % len(values)]


class Connection(Client):
    """One client: free until it is given a request."""

    def __init__(self, todo: Work, pool: "Pool") -> None:
        super().__init__(iter(()), lambda: None, [], {})
        self._todo, self._pool = todo, pool
        self._asked: Asked | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._pool.freed(self)

    def ask(self, asked: Asked) -> None:
        """Send it."""
        self._asked = asked
        if asked.due is None:
            asked.due = time.perf_counter()
        self._transport.write(asked.content)

    def _answered(self, status: str) -> None:
        asked, self._asked = self._asked, None
        assert asked is not None, "an answer without a question"
        self._todo.answered(asked, status)
        self._pool.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        asked, self._asked = self._asked, None
        self._pool.lost(self)
        if asked is not None:
            self._todo.answered(asked, "closed")

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


class Pool:
    """The clients and the requests that are due. As pools do, it opens a connection when it needs one, up to the clients."""

    def __init__(self, todo: Work) -> None:
        self._todo = todo
        self._free: list[Connection] = []
        self._due: deque[Asked] = deque()
        self._opening: set[asyncio.Task[Any]] = set()
        self._open = 0  # and being opened

    def due(self, requests: Iterable[Asked]) -> None:
        """Their time has come."""
        self._due.extend(requests)
        self._send()

    def freed(self, connection: Connection) -> None:
        """It has nothing to do."""
        self._free.append(connection)
        self._send()

    def lost(self, connection: Connection) -> None:
        """It is gone; another takes its place if there is work for it."""
        self._open -= 1
        if connection in self._free:
            self._free.remove(connection)
        self._send()

    def _send(self) -> None:
        while self._due and self._free:
            self._free.pop().ask(self._due.popleft())
        for _ in range(min(len(self._due) - len(self._opening), self._todo.job.clients - self._open)):
            self._connect()

    def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        opened = loop.create_connection(lambda: Connection(self._todo, self), "127.0.0.1", self._todo.job.port)
        task = loop.create_task(opened)
        self._open += 1
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: "asyncio.Task[Any]") -> None:
        self._opening.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._todo.finished.done():
            self._todo.finished.set_exception(error)

    def close(self) -> None:
        """Hang up all that are free."""
        self._due.clear()
        for connection in list(self._free):
            connection.close()


async def perform(job: Job) -> Result:
    """Do it. Raises OSError when nobody listens, and TimeoutError after five minutes."""
    todo = Work(job)
    pool = Pool(todo)
    cpu, began, monotonic = time.process_time(), time.perf_counter(), time.monotonic()
    async with asyncio.timeout(_PATIENCE):
        if job.rate is None:
            pool.due(todo.requests)
        else:
            await _pace(todo.requests, pool, job.batch / job.rate)
        await todo.finished
    seconds = time.perf_counter() - began
    share = (time.process_time() - cpu) / seconds
    pool.close()
    cuts = statistics.quantiles((each * 1000 for each in todo.latencies), n=100)
    return Result(monotonic, seconds, todo.accepted, todo.statuses, cuts[49], cuts[94], cuts[98], share)


async def _pace(requests: Sequence[Asked], pool: Pool, step: float) -> None:
    """One after the other at equal steps from now on."""
    began = time.perf_counter()
    for index, asked in enumerate(requests):
        asked.due = began + index * step
        if (wait := asked.due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        pool.due([asked])


def start(job: Job) -> "subprocess.Popen[str]":
    """The generator in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.rivals.generator"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(job)))
    process.stdin.close()
    process.stdin = None
    return process


def result(process: "subprocess.Popen[str]") -> Result:
    """Wait for it. Raises RuntimeError with what it said when it failed."""
    printed, said = process.communicate(timeout=_PATIENCE + 30)
    if process.returncode:
        raise RuntimeError(f"the generator failed: {said[-2000:]}")
    return Result(**json.loads(printed))


if __name__ == "__main__":
    told = json.dumps(asdict(uvloop.run(perform(Job(**json.load(sys.stdin))))))
    with open(
        1, "w", closefd=False
    ) as out:  # where PYTHONUNBUFFERED is set, print loses what a pipe does not take at once
        out.write(told)
