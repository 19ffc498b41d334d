"""The service as a process of its own, which can be killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parents[2]


class ServiceProcess:
    """`postroom serve` on a free port; `port` is known when the constructor returns."""

    def __init__(self, folder: Path, relay_url: str, *wrapper: str, **settings: Any) -> None:
        given = {
            "database_url": f"sqlite:///{folder}/post.db",
            "relay_url": relay_url,
            "auth": "none",
            "allowed_hosts": "*",
            "port": 0,
            "recipient_limit": "off",
            "drain_delay": 0,
            "drain_grace": 5,
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        environment |= {f"POSTROOM_{name.upper()}": str(value) for name, value in given.items()}
        extra = os.environ.get("TEST_EXTRA_PATH")  # a folder with a sitecustomize, for controls
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (extra, str(ROOT))))
        self.lines: list[dict[str, Any]] = []
        self._listening = threading.Event()
        self.port = 0
        self.ports: dict[str, int] = {}  # by role
        self._answers = "api" if given.get("role") == "apart" else given.get("role", "all")
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "service", "serve"],
            env=environment,
            cwd=folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._begun()

    def _begun(self) -> None:
        assert self._listening.wait(30), self.lines
        assert self.port, self.lines

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line.rstrip()}
            self.lines.append(entry)
            if entry.get("event") == "service.listening":
                self.ports[entry["role"]] = entry["port"]
                if entry["role"] == self._answers:
                    self.port = entry["port"]
                    self._listening.set()
        self._listening.set()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def reload(self, event: str) -> None:
        """SIGHUP, and wait for the log line `event`."""
        seen = len(self.lines)
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not any(line.get("event") == event for line in self.lines[seen:]):
            assert time.monotonic() < deadline, self.lines[seen:]
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(5)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def every_message(client: httpx.Client) -> list[dict[str, Any]]:
    """All messages of the account, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = client.get("/messages", params={"limit": 200, **({"after": after} if after else {})}).json()
        found += page["data"]
        after = page["next"]
        if after is None:
            return found


class DoomedProcess(ServiceProcess):
    """One that kills itself, perhaps before it listens: `port` may stay 0."""

    def _begun(self) -> None:
        self._listening.wait(30)

    def died(self) -> bool:
        """Whether it has ended by SIGKILL."""
        return self.process.poll() == -signal.SIGKILL
