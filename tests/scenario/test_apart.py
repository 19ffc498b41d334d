"""Role `apart`: an api process and a sender process under one roof, from its start to every way it can end."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.scenario.test_crash import Load
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess
from tests.support.waiting import wait_for


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[SinkProcess]:
    with SinkProcess(tmp_path) as running:
        yield running


def parts(service: ServiceProcess) -> dict[str, psutil.Process]:
    """The two processes by role, both started."""
    assert wait_for(lambda: set(service.ports) == {"api", "sender"}, 30), service.lines
    found = psutil.Process(service.process.pid).children()
    return {each.cmdline()[each.cmdline().index("--role") + 1]: each for each in found}


def test_one_answers_and_the_other_sends(tmp_path: Path, sink: SinkProcess) -> None:
    with ServiceProcess(tmp_path, sink.url, role="apart") as service:
        both = parts(service)
        answer = httpx.post(f"{service.url}/send", json=ARTICLE, headers={"Prefer": "wait=10"})
        assert answer.status_code == 200, answer.text
        sender = f"http://127.0.0.1:{service.ports['sender']}"
        assert httpx.get(f"{sender}/readyz").json()["role"] == "sender"
        assert 'event="sent"' in httpx.get(f"{sender}/metrics").text
        assert httpx.get(f"{service.url}/readyz").json()["role"] == "api"
        service.reload("templates.reloaded")
        assert wait_for(lambda: sum(line.get("event") == "templates.reloaded" for line in service.lines) == 2, 10)
        assert service.stop() == 0
        assert not any(each.is_running() for each in both.values())
    assert len(sink.copies()) == 1


@pytest.mark.parametrize("which", ["api", "sender"])
def test_when_one_dies_the_other_drains_and_the_whole_ends_with_a_fault(
    tmp_path: Path, sink: SinkProcess, which: str
) -> None:
    with ServiceProcess(tmp_path, sink.url, role="apart") as service:
        both = parts(service)
        both[which].kill()
        assert service.process.wait(30) == 1
        assert not any(each.is_running() for each in both.values())
    assert wait_for(lambda: any(line.get("event") == "service.stopped" for line in service.lines), 10), "it drained"


def test_when_who_started_them_dies_both_drain(tmp_path: Path, sink: SinkProcess) -> None:
    with ServiceProcess(tmp_path, sink.url, role="apart") as service:
        both = parts(service)
        os.kill(service.process.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(list(both.values()), 30)
        assert not alive, gone
        assert wait_for(lambda: sum(line.get("event") == "service.stopped" for line in service.lines) == 2, 10)


def test_a_stop_under_load_loses_and_doubles_nothing(tmp_path: Path, sink: SinkProcess) -> None:
    accepted: list[str] = []
    for _ in range(2):
        with ServiceProcess(tmp_path, sink.url, role="apart") as service:
            parts(service)
            load = Load(service.url)
            load.start()
            assert wait_for(lambda load=load: len(load.accepted) > 30, 30)
            assert service.stop() == 0
            load.stop()
            accepted += load.accepted
    with ServiceProcess(tmp_path, sink.url):
        assert wait_for(lambda: set(accepted) <= set(sink.copies()), 30)
    copies = sink.copies()
    assert {copies[id] for id in accepted} == {1}
