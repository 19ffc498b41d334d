"""Turns and rounds: who is next, what is counted, and what must hold before a number counts.

In each round every rival has one turn: it is started with an empty queue, warmed up, and given a number of messages that
takes about as long for all. A rate is messages by the time from the first request to the last copy at the sink. Every id
that was accepted must be there, once and whole; what is lost, doubled or cut is counted and stands beside the rate.
"""

import resource
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.rivals import generator
from bench.rivals.install import NotInstalled
from bench.rivals.rival import Relay, Rival, Running, memory
from bench.rivals.sink import Sink
from bench.rivals.work import SENDER, Variant, prebuilt
from tests.support.tls import TestAuthority

WARM_UP = 200  # messages, and then about a second of what they took
WARM_SECONDS = 1.0
LEAST, MOST = 200, 40_000  # messages in a turn
OPEN_LOOP = 0.7  # of the rival's own rate, for latencies
_NO_PROGRESS = 30.0  # seconds without a copy, then what has not come counts as lost

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn gave. Rates in messages a second, times in milliseconds, shares in parts of one core."""

    rate: float  # end to end
    accepted_rate: float
    p50: float
    p95: float
    p99: float
    octets: float  # of a copy, on average
    generator_share: float
    sink_share: float
    lost: int = 0
    doubled: int = 0
    stray: int = 0  # copies of nothing that was accepted
    cut: int = 0
    refused: int = 0
    memory: float = 0.0  # MiB, before the first request

    @property
    def faults(self) -> str:
        """What did not hold, in words; empty when all did."""
        names = ("lost", "doubled", "stray", "cut", "refused")
        return ", ".join(f"{getattr(self, name)} {name}" for name in names if getattr(self, name))


@dataclass(slots=True)
class Record:
    """All turns of one rival with one variant, or the reason why there are none."""

    rival: Rival
    turns: list[Turn] = field(default_factory=list)
    latency: Turn | None = None  # open loop
    missing: str = ""
    failed: str = ""

    @property
    def rate(self) -> float:
        """The median; NaN without turns."""
        return self.median("rate")

    def median(self, name: str) -> float:
        """Of a value of its turns."""
        return statistics.median(getattr(turn, name) for turn in self.turns) if self.turns else float("nan")

    @property
    def faults(self) -> list[str]:
        """Of all its turns, and that it failed."""
        turns = [*self.turns, *([self.latency] if self.latency else [])]
        return [turn.faults for turn in turns if turn.faults] + ([self.absence] if self.failed else [])

    @property
    def absence(self) -> str:
        """Why there is no row for it; empty if there is one."""
        if self.missing:
            return f"does not take part: {self.missing}"
        return f"failed: {self.failed}" if self.failed else ""


# --- one turn -------------------------------------------------------------------------------------------------------


def drive(
    rival: Rival, running: Running, variant: Variant, sink: Sink, run: str, count: int, rate: float | None = None
) -> Turn:
    """Hand in so many messages and wait for their copies. `rate`: messages a second, open loop."""
    if rival.kind == "smtp":
        return _until_settled(lambda: _by_smtp(running, variant, count), count, sink)
    fields = dict(running.fields)
    return through(
        generator.Job(running.port, rival.path, rival.kind, run, count, variant.clients, rival.batch, rate, fields),
        sink,
    )


def through(job: generator.Job, sink: Sink) -> Turn:
    """Do the job by HTTP and wait for its copies."""
    return _until_settled(lambda: generator.result(generator.start(job)), job.count, sink)


def _until_settled(ask: Callable[[], generator.Result], count: int, sink: Sink) -> Turn:
    sink.reset()
    result = ask()
    return settle(result, count, *_arrived(sink, len(result.accepted)))


def _by_smtp(running: Running, variant: Variant, count: int) -> generator.Result:
    """smtp-source tells no latencies, and numbers its recipients; the sink counts them from 1."""
    with tempfile.NamedTemporaryFile("w", suffix=".eml") as file:
        file.write(prebuilt(variant.size_kb))
        file.flush()
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        flood(running.port, count, variant.clients, file.name)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    none = float("nan")
    return generator.Result(
        began, seconds, [str(number) for number in range(1, count + 1)], {"250": count}, none, none, none, cpu / seconds
    )


def flood(port: int, count: int, sessions: int, file: str) -> None:
    """smtp-source with so many messages. Raises CalledProcessError when it is refused."""
    options = ["-4", "-d", "-N", "-s", sessions, "-m", count, "-f", SENDER, "-t", "user@example.org", "-F", file]
    command = ["/usr/sbin/smtp-source", *map(str, options), f"127.0.0.1:{port}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def _arrived(sink: Sink, wanted: int) -> tuple[dict[str, float], list[str], int]:
    """The sink's state, the ids and how many are cut, when so many copies are there, or when no more come."""
    state = sink.state()
    copies, moved = state["copies"], time.monotonic()
    while state["copies"] < wanted and time.monotonic() - moved < _NO_PROGRESS:
        time.sleep(0.02)
        state = sink.state()
        if state["copies"] != copies:
            copies, moved = state["copies"], time.monotonic()
    return state, *sink.copies()


def settle(result: generator.Result, count: int, state: dict[str, float], ids: Collection[str], cut: int) -> Turn:
    """Compare what was accepted with what arrived."""
    accepted, copies = set(result.accepted), Counter(ids)
    seconds = max(state["last"] - result.began, 1e-9)
    return Turn(
        rate=len(accepted & copies.keys()) / seconds,
        accepted_rate=len(accepted) / result.seconds,
        p50=result.p50,
        p95=result.p95,
        p99=result.p99,
        octets=state["octets"] / max(state["copies"], 1),
        generator_share=result.share,
        sink_share=state["cpu"] / (seconds if ids else result.seconds),
        lost=len(accepted - copies.keys()),
        doubled=sum(times - 1 for times in copies.values()),
        stray=len(copies.keys() - accepted) + int(state["nameless"]),
        cut=cut,
        refused=count - len(accepted),
    )


# --- rounds ---------------------------------------------------------------------------------------------------------


class Rounds:
    """All rivals with one variant, turn by turn."""

    def __init__(self, rivals: Sequence[Rival], variant: Variant, rounds: int, seconds: float, say: Say) -> None:
        self.variant = variant
        self.records = [Record(rival) for rival in rivals]
        self._rounds, self._seconds, self._say = rounds, seconds, say
        self._counts: dict[str, int] = {}

    def run(self, *, latencies: bool) -> list[Record]:
        """The rounds, and then, if wanted, a turn of each HTTP rival at 70 % of its own rate."""
        self._say(f"\n{self.variant.title}")
        for number in range(self._rounds):
            for record in self._able():
                self._take(record, number)
        if latencies:
            for record in self._able():
                if record.rival.kind != "smtp" and record.rate:
                    self._take(record, self._rounds, OPEN_LOOP * record.rate)
        return self.records

    def _able(self) -> list[Record]:
        return [record for record in self.records if not record.absence]

    def _take(self, record: Record, number: int, rate: float | None = None) -> None:
        try:
            turn = self._turn(record.rival, number, rate)
        except NotInstalled as error:
            record.missing = str(error)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            record.failed = " ".join(str(error).split())
        if record.absence:
            self._say(f"  {record.rival.name:<32} {record.absence}")
            return
        if rate is None:
            record.turns.append(turn)
        else:
            record.latency = turn
        what = (
            f"{turn.rate:8.0f}/s" if rate is None else f"at {rate:.0f}/s: p50 {turn.p50:.1f} ms, p99 {turn.p99:.1f} ms"
        )
        shares = f"generator {turn.generator_share:.0%}, sink {turn.sink_share:.0%} of a core"
        self._say(f"  {record.rival.name:<32} {what}   {shares}{'   ' + turn.faults.upper() if turn.faults else ''}")

    def _turn(self, rival: Rival, number: int, rate: float | None) -> Turn:
        rival.prepare()
        with tempfile.TemporaryDirectory(prefix="postroom-bench-") as name:
            folder = Path(name)
            authority = TestAuthority(folder) if self.variant.tls else None
            (folder / "rival").mkdir()
            with Sink(self.variant.delay_ms, authority.chain if authority else None) as sink:
                relay = Relay(sink.port, authority.ca_file if authority else None)
                with rival.run(self.variant, relay, folder / "rival") as running:
                    return self._measured(rival, running, sink, number, rate)

    def _measured(self, rival: Rival, running: Running, sink: Sink, number: int, rate: float | None) -> Turn:
        rest = memory(running)
        cold = drive(rival, running, self.variant, sink, f"cold{number}", WARM_UP)
        warm = drive(rival, running, self.variant, sink, f"warm{number}", _count(cold.rate, WARM_SECONDS, rival.batch))
        count = self._counts.setdefault(rival.name, _count(warm.rate, self._seconds, rival.batch))
        if rate is not None:
            count = _count(rate, self._seconds, rival.batch)
        turn = drive(rival, running, self.variant, sink, f"turn{number}", count, rate)
        return replace(turn, memory=rest)


def _count(rate: float, seconds: float, batch: int) -> int:
    """Messages that take about so long, in whole batches."""
    count = min(max(int(rate * seconds), LEAST), MOST)
    return max(count // batch, 4) * batch


def ceiling(variant: Variant, count: int = 20_000) -> float:
    """Messages a second that the sink takes from smtp-source, with nothing between."""
    with tempfile.NamedTemporaryFile("w", suffix=".eml") as file, Sink() as sink:
        file.write(prebuilt(variant.size_kb))
        file.flush()
        began = time.monotonic()
        flood(sink.port, count, variant.connections, file.name)
        state = sink.state()
        assert state["copies"] == count, state
        return count / float(state["last"] - began)
