"""One mail on an idle system, from the POST to the relay's 250: `python -m bench.rivals.idle`, and a part of `make bench`.

Each service is started, takes 40 mails so that its connections are open and its code is warm, and then one in each quarter of
a second; nothing else is asked of it meanwhile. The relay is the sink of the other benchmarks, which answers at once. No time is
asserted.
"""

import itertools
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.rivals import generator, report
from bench.rivals.django_post_office import DjangoPostOffice
from bench.rivals.fastapi_mail import FastapiMail
from bench.rivals.haraka import Haraka
from bench.rivals.install import NotInstalled
from bench.rivals.node import Nodemailer
from bench.rivals.postroom import Postroom, PostroomApart
from bench.rivals.rival import Relay, Rival, Running
from bench.rivals.sink import Sink
from bench.rivals.work import Variant

RIVALS: tuple[type[Rival], ...] = (Postroom, PostroomApart, Haraka, Nodemailer, FastapiMail, DjangoPostOffice)
_WARM, _PAUSE, _PATIENCE = 40, 0.25, 30.0  # mails; seconds between two; seconds for one


@dataclass(frozen=True, slots=True)
class Way:
    """Of one mail, in milliseconds since its request was sent."""

    answered: float
    delivered: float  # 250 of the relay


def measure(rival: Rival, count: int) -> list[Way]:
    """So many mails, one after the other."""
    rival.prepare()
    variant = Variant(clients=1)
    with tempfile.TemporaryDirectory(prefix="postroom-bench-") as name, Sink() as sink:
        folder = Path(name) / "rival"
        folder.mkdir()
        with rival.run(variant, Relay(sink.port, None), folder) as running:
            requests = _requests(rival, running, _WARM + count)
            for content in itertools.islice(requests, _WARM):
                _way(running.port, content, sink)
            return [_way(running.port, content, sink, _PAUSE) for content in requests]


def _requests(rival: Rival, running: Running, count: int) -> Iterator[bytes]:
    job = generator.Job(running.port, rival.path, rival.kind, "idle", count, 1, fields=dict(running.fields))
    return (asked.content for asked in generator.requests_of(job))


def _way(port: int, content: bytes, sink: Sink, pause: float = 0.0) -> Way:
    """Of one request on a fresh connection. Raises RuntimeError when it is refused, TimeoutError when no mail comes."""
    sink.reset()
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection:
        time.sleep(pause)
        began = time.monotonic()
        connection.sendall(content)
        answer = connection.recv(65536)
        answered = time.monotonic()
    if not answer.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(answer.decode(errors="replace"))
    while (state := sink.state())["copies"] < 1:
        if time.monotonic() - began > _PATIENCE:
            raise TimeoutError("the mail did not come")
        time.sleep(0.002)
    return Way((answered - began) * 1000, (state["last"] - began) * 1000)


def run(count: int = 100) -> None:
    """Measure all, and print a table in Markdown."""
    print(f"\nOne mail on an idle system, {count} of them, milliseconds from the POST\n{report.machine()}\n")
    print("|  | relay's 250, median | p95 | most | answer, median |\n| --- | --- | --- | --- | --- |")
    for each in RIVALS:
        rival = each()
        try:
            ways = measure(rival, count)
        except NotInstalled as error:
            print(f"| {rival.name} | does not take part: {error} |  |  |  |", flush=True)
            continue
        cuts = statistics.quantiles((way.delivered for way in ways), n=100)
        most, answered = max(way.delivered for way in ways), statistics.median(way.answered for way in ways)
        print(f"| {rival.name} | {cuts[49]:.1f} | {cuts[94]:.1f} | {most:.1f} | {answered:.1f} |", flush=True)


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
