"""The disk fails under a working service: no false 202, it is seen at once, sending stops, and it ends without a restart.

Each story runs a real process under load. The checker reads the store and the sink: whatever got a 202 is sent.
"""

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.scenario.test_crash import Load, wait_for
from tests.support.disk_trouble import DiskTrouble, small_disk
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess


def ready(service: ServiceProcess) -> bool:
    return httpx.get(f"{service.url}/readyz", timeout=10).status_code == 200


def metric(service: ServiceProcess, name: str) -> float:
    lines = httpx.get(f"{service.url}/metrics", timeout=10).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


class Story:
    """Load, trouble, what is seen of it, the end of it, and the checker."""

    def __init__(self, folder: Path, database: Path | str, *wrapper: str) -> None:
        """database: its file, or its URL."""
        self.folder, self.wrapper = folder, wrapper
        self.database_url = database if isinstance(database, str) else f"sqlite:///{database}"

    def run(self, trouble: Callable[[], object], mend: Callable[[], object]) -> None:
        given = {"database_url": self.database_url, "in_doubt_delay": 1, "lease": 3}
        with (
            SinkProcess(self.folder, delay_ms=3) as sink,
            ServiceProcess(self.folder, sink.url, *self.wrapper, **given) as service,
        ):
            loads = [Load(service.url) for _ in range(4)]
            for load in loads:
                load.start()
            assert wait_for(lambda: sum(len(load.accepted) for load in loads) > 60, 30)
            trouble()
            assert wait_for(lambda: not ready(service), 10)
            self.refuses(service)
            self.sends_nothing(service, sink)
            assert metric(service, "postroom_storage_healthy") == 0
            mend()
            assert wait_for(lambda: ready(service), 10), "without a restart"
            assert httpx.post(f"{service.url}/send", json=ARTICLE, timeout=10).status_code == 202
            assert metric(service, "postroom_storage_failures_total") >= 1
            for load in loads:
                load.stop()
            accepted = {id for load in loads for id in load.accepted}
            assert wait_for(lambda: accepted <= set(sink.copies()), 60), "whatever had a 202 is sent"
            assert service.process.poll() is None

    def refuses(self, service: ServiceProcess) -> None:
        answer = httpx.post(f"{service.url}/send", json=ARTICLE, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1

    def sends_nothing(self, service: ServiceProcess, sink: SinkProcess) -> None:
        """What was under way ends; then nothing begins whose result could not be recorded."""
        seen: list[int] = []

        def still() -> bool:
            for _ in range(30):
                self.refuses(service)
            seen.append(len(sink.copies()))
            return len(seen) > 1 and seen[-1] == seen[-2]

        assert wait_for(still, 20), seen


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("what", "number"),
    [("fsync", errno.EIO), ("write", errno.EROFS), ("write", errno.EIO)],
    ids=["fsync fails", "remounted read-only", "write fails"],
)
def test_a_disk_that_refuses_makes_no_false_202(tmp_path: Path, what: str, number: int) -> None:
    disk = DiskTrouble(tmp_path)
    Story(tmp_path, tmp_path / "post.db", *disk.wrapper).run(lambda: disk.refuse(what, number), disk.mend)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    small_disk(folder, "16m")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take every octet that is left."""
    with (folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.timeout(180)
def test_a_full_disk_makes_no_false_202_and_is_seen_until_there_is_room(disk: Path, tmp_path: Path) -> None:
    Story(tmp_path, disk / "post.db").run(lambda: fill(disk), (disk / "filler").unlink)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("which", ["post.db", "post.db-wal"])
def test_a_database_that_was_deleted_is_noticed_and_one_that_comes_back_is_used(tmp_path: Path, which: str) -> None:
    file, kept = tmp_path / which, tmp_path / "kept"

    def delete() -> None:
        os.link(file, kept)
        file.unlink()

    Story(tmp_path, tmp_path / "post.db").run(delete, lambda: os.link(kept, file))


def test_a_deleted_database_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    with SinkProcess(tmp_path) as sink, ServiceProcess(tmp_path, sink.url) as service:
        assert httpx.post(f"{service.url}/send", json=ARTICLE, timeout=10).status_code == 202
        (tmp_path / "post.db").unlink()
        asking = [threading.Thread(target=lambda: httpx.get(f"{service.url}/readyz", timeout=10)) for _ in range(3)]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
        assert wait_for(lambda: not ready(service), 10)
        failed = [line for line in service.lines if line.get("event") == "store.failed"]
        assert "deleted or replaced" in failed[0]["detail"] or "No such file" in failed[0]["detail"]
        assert not (tmp_path / "post.db").exists()
