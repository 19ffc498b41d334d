"""The disk of PostgreSQL's tables is full, while the log of its transactions has room and rows can still be updated.

Every connection that is tried works then, and each message that would need a new page is refused. So that must count as an
outage: seen at once, nothing is sent whose result could not be recorded, and over only when there is new room.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.scenario.test_crash import wait_for
from tests.scenario.test_storage_trouble import Story, fill
from tests.scenario.test_trouble_figures import BACK_WITHIN, SEEN_WITHIN, TIMES, answers_to, seconds_until
from tests.support.disk_trouble import small_disk
from tests.support.postgres import PostgresServer, shared_server
from tests.support.process import ServiceProcess, every_message
from tests.support.sink_process import SinkProcess

LOOKS = 300  # at readiness: they take longer than a few looks of the service at its server


@pytest.fixture
def disk() -> Iterator[Path]:
    """Outside of pytest's folders, which the server's user may not enter."""
    with tempfile.TemporaryDirectory(prefix="postroom-disk-", dir="/tmp") as outer:
        folder = Path(outer) / "disk"
        folder.mkdir()
        Path(outer).chmod(0o755)
        small_disk(folder, "64m")
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def server(disk: Path) -> Iterator[PostgresServer]:
    shared_server()  # skips where there can be none
    with PostgresServer() as made:
        yield made


@pytest.mark.timeout(180)
def test_a_full_disk_of_tables_is_seen_until_there_is_room_and_puts_nothing_in_doubt(
    server: PostgresServer, disk: Path, tmp_path: Path
) -> None:
    database_url = server.database_on(disk)
    Story(tmp_path, database_url).run(lambda: fill(disk), (disk / "filler").unlink)
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url, database_url=database_url) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        assert wait_for(lambda: {each["status"] for each in every_message(client)} == {"sent"}, 30)
        doubts = sum(each["attempts_in_doubt"] for message in every_message(client) for each in message["recipients"])
    assert doubts == 0


@pytest.mark.timeout(180)
def test_a_full_disk_of_tables_is_seen_within_a_second_and_its_room_within_ten(
    server: PostgresServer, disk: Path, tmp_path: Path
) -> None:
    """Requests come meanwhile: what nobody asks new room for is full unseen."""
    found: list[tuple[float, float]] = []
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url, database_url=server.database_on(disk)) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        for _ in range(TIMES):
            assert answers_to(client) == (200, 202)
            fill(disk)
            seen = seconds_until(lambda: answers_to(client) == (503, 503))
            assert {client.get("/readyz").status_code for _ in range(LOOKS)} == {503}, "whoever asks for nothing new"
            assert answers_to(client) == (503, 503)
            (disk / "filler").unlink()
            found.append((seen, seconds_until(lambda: answers_to(client) == (200, 202))))
    seen_after, back_after = zip(*found, strict=True)
    assert median(seen_after) < SEEN_WITHIN, seen_after
    assert max(back_after) < BACK_WITHIN, back_after
