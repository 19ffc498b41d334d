"""PgBouncer in transaction mode before a test's PostgreSQL: each transaction may get another connection."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.support.postgres import PostgresServer

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """A pooler with few server connections. Named prepared statements are lost behind it, and so is LISTEN."""

    def __init__(self, server: PostgresServer) -> None:
        assert PROGRAM is not None
        self.folder = Path(tempfile.mkdtemp(prefix="postroom-bouncer-", dir="/tmp"))
        self.folder.chmod(0o777)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 4,
            "logfile": self.folder / "log",
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={server.port} user=postgres", "[pgbouncer]"]
        file = self.folder / "pgbouncer.ini"
        file.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items())]))
        user = "nobody" if os.geteuid() == 0 else None
        self.process = subprocess.Popen([PROGRAM, str(file)], user=user, stderr=(self.folder / "errors").open("wb"))
        deadline = time.monotonic() + 20
        while not self._listens():
            assert time.monotonic() < deadline
            assert self.process.poll() is None, (self.folder / "errors").read_text()
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def through(self, url: str) -> str:
        """The same database, by way of the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{url.rpartition('/')[2]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
