"""kill -9 and restart: nothing accepted is lost, copies are bounded, mail flows again within five seconds."""

import json
import random
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.process import ServiceProcess, every_message
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess
from tests.support.waiting import wait_for

CONNECTIONS = 8


class Load(threading.Thread):
    """Posts as fast as it can until stopped; remembers every 202."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._stopped = url, threading.Event()
        self.accepted: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url) as client:
            number = 0
            while not self._stopped.is_set():
                number += 1
                try:
                    answer = client.post("/send", json={**ARTICLE, "to": f"u{number}@example.org"})
                except httpx.HTTPError:
                    return
                if answer.status_code == 202:
                    self.accepted.append(json.loads(answer.content)["message_id"].strip("<>"))

    def stop(self) -> None:
        self._stopped.set()
        self.join(10)


@pytest.mark.timeout(180)
def test_kills_under_load_lose_nothing_and_bound_the_copies(tmp_path: Path) -> None:
    generator = random.Random(20261124)
    kills = 4
    accepted: list[str] = []
    with SinkProcess(tmp_path, delay_ms=3) as sink:
        for _ in range(kills):
            service = ServiceProcess(tmp_path, sink.url, in_doubt_delay=1)
            loads = [Load(service.url) for _ in range(4)]
            for load in loads:
                load.start()
            time.sleep(generator.uniform(0.3, 1.2))  # the moment of the kill is what is random here
            service.kill()
            for load in loads:
                load.stop()
                accepted += load.accepted
        with ServiceProcess(tmp_path, sink.url, in_doubt_delay=1) as service:
            began = time.monotonic()
            with httpx.Client(base_url=service.url) as client:
                # urgent: it stands before the backlog that the kills left, which says nothing about sending again
                body = {**ARTICLE, "to": "after@example.org", "priority": "high"}
                answer = client.post("/send", json=body, headers={"Prefer": "wait=5"})
                assert answer.status_code == 200, "sending again within five seconds"
                assert time.monotonic() - began < 5
                assert wait_for(lambda: set(accepted) <= set(sink.copies()), 60), "nothing accepted is lost"
                doubts = sum(
                    recipient["attempts_in_doubt"]
                    for message in every_message(client)
                    for recipient in message["recipients"]
                )
    assert len(accepted) > 50
    copies = sink.copies()
    extra = sum(count - 1 for count in copies.values())
    assert doubts <= kills * CONNECTIONS, "in doubt are at most the open connections of each kill"
    assert extra <= doubts, "a second copy only where an attempt was in doubt"


def test_a_stop_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    accepted: list[str] = []
    with SinkProcess(tmp_path) as sink:
        for _ in range(3):
            service = ServiceProcess(tmp_path, sink.url)
            load = Load(service.url)
            load.start()
            wait_for(lambda load=load: len(load.accepted) > 30, 20)
            assert service.stop() == 0
            load.stop()
            accepted += load.accepted
        with ServiceProcess(tmp_path, sink.url):
            assert wait_for(lambda: set(accepted) <= set(sink.copies()), 30)
    assert set(sink.copies().values()) == {1}


def calls_before_the_202(folder: Path, setup: str = "") -> list[str]:
    """The system calls of a service between its start and its first 202, in order."""
    trace = folder / "trace"
    wrapper = ("strace", "-D", "-f", "--seccomp-bpf", "-o", str(trace), "-s", "200")
    calls = ("-e", "trace=fsync,fdatasync,sendto,write,writev,sendmsg")
    with SinkProcess(folder) as sink:
        with ServiceProcess(folder, sink.url, *wrapper, *calls, hold="true") as service:
            assert httpx.post(f"{service.url}/send", json=ARTICLE).status_code == 202
        assert wait_for(lambda: "+++ exited" in trace.read_text(errors="replace"), 10)
    lines = trace.read_text(errors="replace").splitlines()
    answered = next(index for index, call in enumerate(lines) if "HTTP/1.1 202" in call)
    started = max(index for index, call in enumerate(lines[:answered]) if "service.listening" in call)
    return lines[started:answered]


@pytest.fixture
def strace() -> None:
    if subprocess.run(["sh", "-c", "command -v strace"], capture_output=True).returncode:
        pytest.skip("strace is not installed: the order of fsync and 202 is NOT tested here (apt-get install strace)")


@pytest.mark.usefixtures("strace")
def test_the_sync_comes_before_the_202(tmp_path: Path) -> None:
    """The janitor's own commits are held apart: the WAL is written with this message's bytes, then synced."""
    calls = calls_before_the_202(tmp_path)
    synced = [index for index, call in enumerate(calls) if "fsync(" in call or "fdatasync(" in call]
    assert synced, "no sync between the start and the answer"


@pytest.mark.usefixtures("strace")
def test_without_full_synchronisation_that_test_would_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same run with synchronous=OFF shows no sync, so the test above can fail."""
    (tmp_path / "sitecustomize.py").write_text(
        "import service.store.sqlite.files as files\n"
        "connect = files.connect_writer\n"
        "def loose(path):\n"
        "    connection = connect(path)\n"
        "    connection.execute('PRAGMA synchronous=OFF')\n"
        "    return connection\n"
        "files.connect_writer = loose\n"
        "import service.store.sqlite.store as store\n"
        "store.connect_writer = loose\n"
    )
    monkeypatch.setenv("TEST_EXTRA_PATH", str(tmp_path))
    calls = calls_before_the_202(tmp_path)
    assert not [call for call in calls if "fsync(" in call or "fdatasync(" in call]
