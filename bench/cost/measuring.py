"""Turns of services that differ in one number: who is next, what a message cost it, and whether every copy arrived.

A turn is driven and counted as those of the rivals are. In each round every point has one turn, in one order and then in
the other. What a dimension is, and how a service is made ready for a point of it, is not known here.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import psutil

from bench.rivals.generator import Job
from bench.rivals.sink import Sink
from bench.rivals.turns import through
from bench.rivals.work import Variant

FLAT = 1.25  # the most that a message may cost by what it costs at the first point, to be called flat
COLD = 120  # recipients of the first turn, which counts for nothing
LEAST, MOST = 8, 6000  # messages in a turn
_REST = 0.1  # seconds without a tick of processor time
_TIRED = 5.0  # seconds after which a service that does not come to rest is read all the same


@dataclass(frozen=True, slots=True)
class Ready:
    """A service that runs, and what its requests take in turn. See generator.Job."""

    port: int
    process: int
    recipients: int = 1
    relays: Sequence[str] = ()
    templates: Sequence[str] = ()
    tokens: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One curve of a dimension. `open`: a service at a point of it, until the end of the context."""

    name: str  # empty: it is the only one
    open: Callable[[int, int], AbstractContextManager[Ready]]  # of the point's value and the port of the sink
    delay_ms: int = 0  # by which each reply of the sink is late


@dataclass(frozen=True, slots=True)
class Dimension:
    """Something of which there may be little or much."""

    name: str
    title: str
    axis: str
    why: str  # it should be flat, or grow: a sentence
    points: Sequence[int]
    series: Sequence[Series]
    unit: str = "message"  # that a cost is divided by: message or recipient


@dataclass(frozen=True, slots=True)
class Turn:
    """Messages a second, end to end, and microseconds of the service's processor time for each."""

    rate: float
    cost: float
    faults: str


@dataclass(slots=True)
class Point:
    """All turns at one value of one series."""

    series: str
    value: int
    recipients: int = 1
    turns: list[Turn] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What did not hold, in words."""
        return [turn.faults for turn in self.turns if turn.faults]

    def of(self, name: str, per: int = 1) -> tuple[float, float, float]:
        """Median, least and most of `rate` or `cost`, divided by `per`."""
        values = [getattr(turn, name) / per for turn in self.turns]
        return statistics.median(values), min(values), max(values)


class Service:
    """A point with its service, as long as that runs."""

    def __init__(self, point: Point, ready: Ready, sink: Sink, seconds: float) -> None:
        self.point = point
        self._ready, self._sink, self._seconds = ready, sink, seconds
        self._process = psutil.Process(ready.process)
        self._first = self._count = 0

    def warm_up(self) -> None:
        """Everything is used once, and then for as long as a turn takes."""
        cold = self._drive(max(COLD // self._ready.recipients, LEAST, len(self._ready.templates)))
        self._count = self._enough(cold.rate)
        self._count = self._enough(self._drive(self._count).rate)

    def _enough(self, rate: float) -> int:
        return min(max(int(rate * self._seconds), LEAST), MOST)

    def take_turn(self) -> Turn:
        """Once more."""
        turn = self._drive(self._count)
        self.point.turns.append(turn)
        return turn

    def _drive(self, count: int) -> Turn:
        ready, first = self._ready, self._first
        self._first += count
        job = Job(
            ready.port,
            "/send",
            "postroom",
            f"at{first}",
            count,
            Variant().clients,
            first=first,
            recipients=ready.recipients,
            relays=ready.relays,
            templates=ready.templates,
            tokens=ready.tokens,
        )
        before = self._spent()
        turn = through(job, self._sink)
        cost = (self._at_rest() - before) / count
        paths, wanted = self._sink.state()["forward_paths"], count * ready.recipients
        short = f"{paths} forward-paths instead of {wanted}" if paths != wanted else ""
        return Turn(turn.rate, cost * 1e6, "; ".join(filter(None, (turn.faults, short))))

    def _spent(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def _at_rest(self) -> float:
        """What was spent when the last copy is settled too."""
        deadline, spent = time.monotonic() + _TIRED, -1.0
        while (now := self._spent()) != spent and time.monotonic() < deadline:
            spent = now
            time.sleep(_REST)
        return now


def measure(dimension: Dimension, rounds: int, seconds: float, say: Callable[[str], None]) -> list[Point]:
    """All turns of all points. `seconds`: about how long a turn takes."""
    say(f"\n{dimension.title}")
    with contextlib.ExitStack() as stack:
        services = []
        for series in dimension.series:
            sink = stack.enter_context(Sink(series.delay_ms))
            for value in dimension.points:
                ready = stack.enter_context(series.open(value, sink.port))
                service = Service(Point(series.name, value, ready.recipients), ready, sink, seconds)
                service.warm_up()
                services.append(service)
        for number in range(rounds):
            for service in services if number % 2 == 0 else reversed(services):
                turn, point = service.take_turn(), service.point
                where = f"{point.value:>9,} {point.series}".ljust(32)
                say(f"  {where}{turn.rate:8.0f}/s {turn.cost:9.0f} us a message   {turn.faults.upper()}".rstrip())
    return [service.point for service in services]
