"""One run: a store, a sink and a client that outlive the service's processes, and what the checker says of all three.

It counts how many connections to relays were cut off, which bounds the attempts in doubt. It decides nothing about when
processes are started, killed or paused: tests/soak/scenes.py does.
"""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.soak.client import Client, Load
from tests.soak.sink import CONNECTIONS, JudgingSink
from tests.support.checker import Records, Verdict, check, open_recipients
from tests.support.process import DoomedProcess, ServiceProcess
from tests.support.waiting import wait_for

LEASE = 4  # seconds
_DRAIN = 90.0  # seconds until all work has ended


class Fleet:
    """See the module. `settings` are those of every process."""

    def __init__(self, folder: Path, sink: JudgingSink, database_url: str, name: str = "run", **settings: Any) -> None:
        self.folder, self.sink, self.database_url = folder, sink, database_url
        self.client = Client(name)
        self.faults = 0  # kills, pauses and steps
        self._cut = 0
        self._settings = {
            "database_url": database_url,
            "relays_file": sink.relays_file(),
            "lease": LEASE,
            "poll_interval": 0.2,
            "retry_schedule": "0.2",
            "in_doubt_delay": 0.2,
            **settings,
        }

    def start(self, **settings: Any) -> ServiceProcess:
        """A process that answers."""
        return ServiceProcess(self.folder, "", **{**self._settings, **settings})

    def start_all(self, *roles: str) -> list[ServiceProcess]:
        """One process for each role, at the same time: most of a start is reading code."""
        with ThreadPoolExecutor(len(roles)) as pool:
            return list(pool.map(lambda role: self.start(role=role), roles))

    def doom(self, failpoints: str, **settings: Any) -> DoomedProcess:
        """A process that kills itself at a named place."""
        given = {**self._settings, "failpoints": failpoints, "failpoints_allowed": "true", **settings}
        return DoomedProcess(self.folder, "", **given)

    def load(self, process: ServiceProcess, threads: int = 3) -> Load:
        """Requests, as fast as it answers."""
        return Load(self.client, process.url, threads)

    def lost(self, processes: int = 1) -> None:
        """So many processes were cut off from their relays."""
        self.faults += processes
        self._cut += processes * CONNECTIONS

    def kill(self, process: ServiceProcess) -> None:
        """SIGKILL."""
        process.kill()
        self.lost()

    @contextmanager
    def paused(self, process: ServiceProcess) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        process.process.send_signal(signal.SIGSTOP)
        self.lost()
        try:
            yield
        finally:
            process.process.send_signal(signal.SIGCONT)

    def verdict(self, *, ended: bool = False) -> Verdict:
        """What the checker says now."""
        return check(Records(self.database_url, self.sink.copies(), self.client.promises, self._cut), ended=ended)

    def finish(self, process: ServiceProcess) -> Verdict:
        """Repeat what got no answer, let all work end, stop the process and check. Nothing is armed or paused any more."""
        self.client.repeat_unanswered(process.url)
        ended = wait_for(lambda: open_recipients(self.database_url) == 0, _DRAIN)
        status = process.stop()
        verdict = self.verdict(ended=True)
        verdict.figures["faults"] = self.faults
        if not ended:
            verdict.broken.append(f"work did not end within {_DRAIN:g} s")
        if status:
            verdict.broken.append(f"a clean stop exits with {status}")
        strange = {code: count for code, count in self.client.statuses.items() if code not in (202, 409, 503)}
        verdict.claim("the service answered what no request deserves", sorted(strange.items()))
        return verdict


def moment(seconds: float) -> None:
    """Let the run go on: how long is drawn by the caller, and is what is random in it."""
    threading.Event().wait(seconds)
