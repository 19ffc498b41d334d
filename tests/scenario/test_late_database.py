"""A service that starts before its database waits for it; what waiting does not mend ends the start at once."""

import contextlib
import fcntl
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from service.store.postgres.statements import statement
from tests.support.postgres import PostgresServer, shared_server
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess
from tests.support.waiting import wait_for

NOWHERE = "smtp://127.0.0.1:9?plaintext=allow"
SOON = 20.0  # seconds: the end of a process on a busy machine, and far less than what it would wait for


class Starting(ServiceProcess):
    """One that is looked at while it starts."""

    def _begun(self) -> None:
        pass

    def told(self, event: str) -> bool:
        """Whether the log has a line of it."""
        return any(line.get("event") == event for line in self.lines)

    def ended(self) -> int:
        """Its exit status, once it has ended by itself."""
        status = self.process.wait(60)
        self._reader.join(5)
        return status


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own, that a test may kill."""
    shared_server()  # skips where there can be none
    with PostgresServer() as made:
        yield made


@pytest.fixture
def away(server: PostgresServer) -> str:
    """The URL of a database whose server is not up."""
    url = server.new_database()
    server.kill()
    return url


def test_a_database_that_comes_up_late_is_waited_for(server: PostgresServer, away: str, tmp_path: Path) -> None:
    with SinkProcess(tmp_path) as sink, Starting(tmp_path, sink.url, database_url=away) as service:
        assert wait_for(lambda: service.told("store.awaited"), 30), service.lines
        assert not service.told("service.listening")
        server.start()
        assert wait_for(lambda: service.told("service.listening"), 60), service.lines
        assert httpx.post(f"{service.url}/send", json=ARTICLE, headers={"Prefer": "wait=20"}).status_code == 200
        (level,) = {line["level"] for line in service.lines if line.get("event") == "store.awaited"}
        assert level == "warning"


def test_a_start_gives_up_when_the_time_is_over(away: str, tmp_path: Path) -> None:
    with Starting(tmp_path, NOWHERE, database_url=away, database_wait="1s") as service:
        assert service.ended() == 1
        assert service.told("store.awaited")
        assert service.lines[-1]["event"].startswith("postroom: POSTROOM_DATABASE_URL: OperationalError")


def test_a_signal_ends_a_start_that_waits(away: str, tmp_path: Path) -> None:
    with Starting(tmp_path, NOWHERE, database_url=away) as service:
        assert wait_for(lambda: service.told("store.awaited"), 30), service.lines
        service.process.send_signal(signal.SIGTERM)
        assert service.ended() == 128 + signal.SIGTERM


def ended_by_signal(service: Starting) -> bool:
    """Whether SIGTERM ends it with the status of its own, and soon."""
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    return service.ended() == 128 + signal.SIGTERM and time.monotonic() - began < SOON


def test_a_signal_ends_a_start_whose_database_takes_the_connection_and_says_nothing(tmp_path: Path) -> None:
    shared_server()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postroom"
        with Starting(tmp_path, NOWHERE, database_url=url, database_connect_timeout=50) as service, silent.accept()[0]:
            assert ended_by_signal(service)


def test_a_signal_ends_a_start_while_another_process_keeps_the_schema(tmp_path: Path) -> None:
    url = shared_server().new_database()
    with psycopg.connect(url) as keeper, psycopg.connect(url, autocommit=True) as looking:
        psycopg.RawCursor(keeper).execute(statement("open: schema lock").text.encode())

        def waits() -> bool:
            return bool(
                looking.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'").fetchall()
            )

        with Starting(tmp_path, NOWHERE, database_url=url) as service:
            assert wait_for(waits, 30), service.lines
            assert ended_by_signal(service)


def test_a_signal_ends_a_start_while_another_process_keeps_the_file(tmp_path: Path) -> None:
    lock = tmp_path / "post.db.lock"
    with lock.open("w") as keeper:
        fcntl.flock(keeper, fcntl.LOCK_EX)
        with Starting(tmp_path, NOWHERE) as service:

            def waits() -> bool:
                return str(lock) in opened(service.process.pid)

            assert wait_for(waits, 30), service.lines
            assert ended_by_signal(service)


def opened(pid: int) -> set[str]:
    """The files that a process has open."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(str(each.readlink()))
    return found


def test_a_refused_password_ends_the_start_at_once_and_is_not_told(server: PostgresServer, tmp_path: Path) -> None:
    url = server.new_database()
    rules = server.data / "pg_hba.conf"
    rules.write_text("host all known 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE known LOGIN PASSWORD 'right'")
        connection.execute("SELECT pg_reload_conf()")
    server.kill()  # rules are read at a start, and some time after a signal
    server.start()
    for login in ("known:canary-word", "known"):
        with Starting(tmp_path, NOWHERE, database_url=url.replace("postgres@", f"{login}@")) as service:
            assert service.ended() == 1
            assert not service.told("store.awaited")
            assert "POSTROOM_DATABASE_URL" in service.lines[-1]["event"]
            assert "canary-word" not in str(service.lines)


def test_a_schema_of_a_newer_version_ends_the_start_at_once(server: PostgresServer, tmp_path: Path) -> None:
    url = server.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_steps VALUES (9999, 'of a later version', false)")
    with Starting(tmp_path, NOWHERE, database_url=url) as service:
        assert service.ended() == 1
        assert not service.told("store.awaited")
        assert "step 9999" in service.lines[-1]["event"]
