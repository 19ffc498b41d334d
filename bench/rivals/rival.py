"""What a rival is: a name, a door, what it promises, how it is configured, and how it is started and ended.

A rival is started anew for each of its turns, with an empty queue in a folder of its own. What it leaves out is said as
plainly as what it does: a queue in memory that loses its mail with the process is quick.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.rivals.work import Variant

LOGIN, SECRET = "bench", "bench-secret"
WORKERS = os.cpu_count() or 1  # processes of a rival that gains by more than one
_PATIENCE = 60.0  # seconds until a rival listens


@dataclass(frozen=True, slots=True)
class Promises:
    """What an accepted message may count on, and what is done for each."""

    durable: bool  # on disk, synced, before it is accepted
    retries: bool  # after a temporary refusal, also after a restart
    log: bool  # one can ask later what became of it
    idempotent: bool  # the same request twice is one message
    template: bool  # the message is made from a template by the rival itself


@dataclass(frozen=True, slots=True)
class Relay:
    """Where a rival sends to. `ca_file` is given when STARTTLS and AUTH are to be used."""

    port: int
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class Running:
    """A rival that listens on `port` of loopback. Its processes are these and all their children."""

    port: int
    processes: Sequence[int]
    fields: Mapping[str, str]  # of each request's header


class Rival(ABC):
    """One way to send mail."""

    name: str
    kind = "simple"  # of work.body; `smtp`: messages are handed in by SMTP
    path = "/send"
    batch = 1
    promises: Promises
    configuration: str  # a sentence

    @abstractmethod
    def prepare(self) -> None:
        """Install what it needs. Raises NotInstalled with the reason why it cannot take part."""

    @abstractmethod
    def run(self, variant: Variant, relay: Relay, folder: Path) -> AbstractContextManager[Running]:
        """Started, until the end of the context."""


@contextlib.contextmanager
def process(command: Sequence[object], log: Path, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program with its children in a session of its own; what it says goes to `log`. All end with the context."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    with log.open("wb") as file:
        started = subprocess.Popen(
            list(map(str, command)), env={**environment, **more}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield started
    finally:
        _end(started)


@contextlib.contextmanager
def server(command: Sequence[object], port: int, log: Path, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that listens on `port`. Raises RuntimeError when it does not."""
    with process(command, log, **more) as started:
        _until_it_listens(port, started, log)
        yield started


def _end(started: "subprocess.Popen[bytes]") -> None:
    """Its whole session: whoever does not end by itself within 5 seconds is killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def _until_it_listens(port: int, started: "subprocess.Popen[bytes]", log: Path) -> None:
    """Raises RuntimeError with the end of its log if it ended or took too long."""

    def listens() -> bool:
        if started.poll() is not None:
            raise RuntimeError(f"it ended before it listened: {tail(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    until(listens, lambda: f"it does not listen: {tail(log)}", _PATIENCE)


def tail(log: Path) -> str:
    """The last words of a log."""
    return log.read_text(errors="replace")[-1500:] if log.exists() else "(no log)"


def until(condition: Callable[[], bool], what: Callable[[], str], seconds: float) -> None:
    """Wait for it. Raises RuntimeError with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:g} s: {what()}")
        time.sleep(0.01)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def relay_environment(variant: Variant, relay: Relay, templates: Path, workers: int = 1) -> dict[str, str]:
    """What the programs in bench/rivals/programs read; the connections are shared among `workers`.

    SSL_CERT_FILE is OpenSSL's own: libraries that make a TLS context for each connection read it each time, and the
    system's hundred and more authorities would cost them 25 ms.
    """
    given = {
        "BENCH_RELAY_PORT": str(relay.port),
        "BENCH_CONNECTIONS": str(max(variant.connections // workers, 1)),
        "BENCH_WORKERS": str(workers),
        "BENCH_TEMPLATES": str(templates),
    }
    if relay.ca_file is not None:
        given |= {"BENCH_CA_FILE": str(relay.ca_file), "SSL_CERT_FILE": str(relay.ca_file)}
        given |= {"BENCH_LOGIN": LOGIN, "BENCH_SECRET": SECRET}
    return given


def memory(running: Running) -> float:
    """MiB of all its processes: what is shared counts in parts (PSS), so that forks are not charged twice."""
    octets = 0
    for root in running.processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(root)
            for each in (family, *family.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found = each.memory_full_info()
                    octets += getattr(found, "pss", found.rss)  # Linux alone has PSS
    return octets / 1024**2
