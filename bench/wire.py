"""How fast prebuilt bytes get to a relay: Postroom's pool beside nodemailer's pool and aiosmtplib, turn by turn in one run.

Each sender is a process of its own with as many connections. Postroom is its pool, its judgement of every reply and a
record of every attempt, without the store; nodemailer sends `raw` with `envelope`; aiosmtplib calls `sendmail`. The
delay is a TCP proxy that makes every byte late by the same time each way.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from service.mail.compose import compose
from tests.support.drafts import draft
from tests.support.tls import TestAuthority

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / "tests" / "oracles" / "node_modules"
CONNECTIONS = 5

Way = Callable[[int, int], float]  # port, count -> messages a second


def message() -> bytes:
    """4 KB of text and html."""
    return b"".join(compose(draft(html="<p>你好，世界</p>\n" * 70, text="你好，世界\n" * 70)).segments)


def _seconds(arguments: list[str], environment: dict[str, str]) -> float:
    given = {**os.environ, **environment}
    ran = subprocess.run(arguments, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    return float(json.loads(ran.stdout)["seconds"])


def senders(file: Path, scheme: str, authority: Path | None) -> dict[str, Way]:
    """The ways to send, by name. `scheme`: smtp or smtps."""
    login = ",login" if scheme == "smtps" else ""
    trust = f",ca_file={authority}" if authority else ""

    def python(who: str, options: str) -> Way:
        def way(port: int, count: int) -> float:
            arguments = [who, str(port), str(count), str(CONNECTIONS), options, str(file)]
            return count / _seconds([sys.executable, "-m", "bench.sending", *arguments], {})

        return way

    def nodemailer(port: int, count: int) -> float:
        account = ["zouchengzhuo@163.com", "AUTHCODE"] if login else ["", ""]
        tls = "implicit" if scheme == "smtps" else "none"
        arguments = [str(port), str(count), str(CONNECTIONS), tls, *account, str(file)]
        return count / _seconds(["node", "bench/nodemailer_pool.cjs", *arguments], {"NODE_PATH": str(PACKAGES)})

    found = {
        "Postroom": python("postroom", f"{scheme}{login}{trust}"),
        "Postroom, pipelining off": python("postroom", f"{scheme}{login}{trust},pipelining=off"),
    }
    if shutil.which("node") and (PACKAGES / "nodemailer").is_dir():
        found["nodemailer pool"] = nodemailer
    found["aiosmtplib sendmail"] = python("aiosmtplib", f"{scheme}{login}")
    return found


@contextlib.contextmanager
def _printing_its_port(*arguments: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def _table(title: str, ways: dict[str, Way], port: int, counts: dict[str, int], rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way(port, counts[name]))
    print(f"\n{title}, {CONNECTIONS} connections, medians of {rounds} rounds, turn by turn")
    ours = statistics.median(rates["Postroom"])
    for name, values in rates.items():
        median = statistics.median(values)
        ratio = "" if name == "Postroom" else f"   Postroom is {ours / median:.2f} x"
        print(f"  {name:<28}{median:9.0f}/s{ratio}")


def _alone(file: Path, port: int, count: int) -> None:
    """What one message takes on a session that is open, the next one only when it is through."""
    print("\nOne message at a time on an open session, 15 ms each way, into a sink of our own that offers CHUNKING")
    for name, options in (
        ("Postroom", ""),
        ("Postroom, chunking off", ",chunking=false"),
        ("aiosmtplib sendmail", None),
    ):
        who, given = ("aiosmtplib", "smtp") if options is None else ("postroom", f"smtp,one{options}")
        arguments = [who, str(port), str(count), "1", given, str(file)]
        seconds = _seconds([sys.executable, "-m", "bench.sending", *arguments], {})
        print(f"  {name:<28}{seconds / count * 1000:9.1f} ms")
    if shutil.which("node") and (PACKAGES / "nodemailer").is_dir():
        arguments = [str(port), str(count), "1", "none", "", "", str(file)]
        environment = {"NODE_PATH": str(PACKAGES)}
        seconds = _seconds(["node", "bench/nodemailer_pool.cjs", *arguments], environment)
        print(f"  {'nodemailer pool':<28}{seconds / count * 1000:9.1f} ms")


def run(sink_port: int, what: str, *, quick: bool) -> None:
    """Without delay, with 15 ms each way, and with TLS and a login."""
    rounds = 3 if quick else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "message.eml"
        file.write_bytes(message())
        ways = senders(file, "smtp", None)
        fast = dict.fromkeys(ways, 3000 if quick else 10_000)
        _table(f"On the wire, no delay, into {what}", ways, sink_port, fast, rounds)
        with _printing_its_port("bench.delay", str(sink_port), "15") as port:
            late = dict.fromkeys(ways, 150 if quick else 600)
            _table("On the wire, 15 ms each way", ways, port, late, rounds)
        own = ("bench.own_sink", "--step-by-step")
        with _printing_its_port(*own) as sink, _printing_its_port("bench.delay", str(sink), "15") as port:
            _table(
                "On the wire, 15 ms each way, into a sink of our own that offers no PIPELINING",
                ways,
                port,
                late,
                rounds,
            )
        with _printing_its_port("bench.own_sink") as sink, _printing_its_port("bench.delay", str(sink), "15") as port:
            _alone(file, port, 40 if quick else 100)
        authority = TestAuthority(folder)
        with _printing_its_port("bench.own_sink", str(authority.chain)) as port:
            ways = senders(file, "smtps", authority.ca_file)
            _table("On the wire, TLS and AUTH, no delay, into a sink of our own", ways, port, fast, rounds)
