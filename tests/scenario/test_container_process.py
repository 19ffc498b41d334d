"""The service as the process of a container: health, signals at any time, an end within the grace, both kinds of addresses."""

import asyncio
import base64
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from service.serving import _listen, serve
from service.settings import Settings
from service.spool.janitor import Janitor
from tests.support.process import ROOT, ServiceProcess
from tests.support.sink_process import SinkProcess

GRACE = 6  # seconds


def silent_relay() -> socket.socket:
    """A peer that takes a connection and never greets."""
    return socket.create_server(("127.0.0.1", 0))


def own_environment(listener: socket.socket) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    port = listener.getsockname()[1]
    return {**kept, "PYTHONPATH": str(ROOT), "POSTROOM_RELAY_URL": f"smtp://127.0.0.1:{port}?plaintext=allow"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_that_waits(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with silent_relay() as listener:
        listener.settimeout(30)
        command = [sys.executable, "-m", "service", "relay", "check"]
        process = subprocess.Popen(command, env=own_environment(listener), cwd=tmp_path, stdout=subprocess.DEVNULL)
        with process, listener.accept()[0]:
            process.send_signal(number)
            assert process.wait(30) == status


_LOSES_ONE = """
import asyncio, os, signal
from service.cli import _run

async def work():
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        await asyncio.sleep(20)

_run(work())
"""


def test_a_cancel_that_was_lost_comes_again() -> None:
    """As wait_for of Python 3.11 loses one that comes together with its result."""
    ended = subprocess.run([sys.executable, "-c", _LOSES_ONE], cwd=ROOT, timeout=15, check=False)
    assert ended.returncode == 128 + signal.SIGTERM


def may_be_process_1() -> bool:
    """Whether this machine lets a test make a process the first of its own namespace."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode == 0


def test_a_signal_ends_process_1_too_which_without_a_handler_would_not_get_it(tmp_path: Path) -> None:
    if not may_be_process_1():
        pytest.skip("no right to make a PID namespace: process 1 was NOT tried")
    with silent_relay() as listener:
        listener.settimeout(30)
        command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "service", "relay", "check"]
        with subprocess.Popen(command, env=own_environment(listener), cwd=tmp_path, stdout=subprocess.DEVNULL) as outer:
            try:
                with listener.accept()[0]:
                    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
                    os.kill(int(children[0]), signal.SIGTERM)
                    assert outer.wait(30) == 128 + signal.SIGTERM
            finally:
                outer.kill()


def test_the_health_check_of_the_image_tells_the_living_from_the_dead(tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (words,) = re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", dockerfile, re.M)
    command = [sys.executable, *json.loads(words)[1:]]
    with ServiceProcess(tmp_path, "smtp://127.0.0.1:9?plaintext=allow") as service:
        environment = {**os.environ, "POSTROOM_PORT": str(service.port), "http_proxy": "http://127.0.0.1:9"}
        assert subprocess.run(command, env=environment, check=False, timeout=30).returncode == 0
        assert service.stop() == 0
    assert subprocess.run(command, env=environment, check=False, timeout=30, capture_output=True).returncode == 1


def test_requests_and_transactions_share_one_grace(tmp_path: Path) -> None:
    """A request whose body never ends and a relay that never answers the dot: each alone may take all of it, and so may both."""
    body = {"from": "ada@example.com", "to": "charles@example.org", "subject": "Hello", "text": "Hello"}
    begun = b"POST /send HTTP/1.1\r\nHost: postroom\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with (
        SinkProcess(tmp_path, delay_ms=600_000) as sink,
        ServiceProcess(tmp_path, sink.url, drain_grace=GRACE) as service,
        socket.create_connection(("127.0.0.1", service.port), 10) as asking,
    ):
        asking.sendall(begun)
        assert httpx.post(f"{service.url}/send", json=body).status_code == 202
        until = time.monotonic() + 30
        while not sink.copies():
            assert time.monotonic() < until
            time.sleep(0.01)
        began = time.monotonic()
        assert service.stop() == 0
        took = time.monotonic() - began
        head, _, answer = asking.recv(65536).partition(b"\r\n\r\n")
    assert GRACE - 1 < took < 2 * GRACE - 1
    assert head.startswith(b"HTTP/1.1 500 ")
    assert "Repeat it with the Idempotency-Key that it had" in json.loads(answer)["detail"], (
        "it is told that it was cut off, and what to do"
    )
    assert [line["requests"] for line in service.lines if line["event"] == "service.cut_off"] == [1]
    assert [line for line in service.lines if "exception" in line or line.get("level") == "error"] == []


def test_a_client_that_reads_nothing_keeps_no_process_from_its_end(tmp_path: Path) -> None:
    """The words to a request that is cut off wait for room behind an answer that nobody reads; not for long."""
    content = base64.b64encode(os.urandom(15 * 1024 * 1024)).decode()
    body = {"from": "ada@example.com", "to": "charles@example.org", "subject": "Hello", "text": "Hello"}
    body |= {"attachments": [{"filename": "a.bin", "content": content}]}  # type: ignore[dict-item]
    begun = b"POST /send HTTP/1.1\r\nHost: postroom\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with (
        ServiceProcess(tmp_path, "smtp://127.0.0.1:9?plaintext=allow", drain_grace=1) as service,
        socket.socket() as asking,
    ):
        id = httpx.post(f"{service.url}/send", json=body, timeout=30).json()["id"]
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.connect(("127.0.0.1", service.port))
        asking.sendall(f"GET /messages/{id}/raw HTTP/1.1\r\nHost: postroom\r\n\r\n".encode() + begun)
        assert select.select([asking], [], [], 20)[0], "the answer is on its way, and nobody will take more of it"
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0


async def test_a_process_whose_loop_failed_drains_and_ends_so_that_another_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def fails_when_asked(_: Janitor) -> None:
        await asked.wait()
        raise RuntimeError("an error that nobody foresaw")

    monkeypatch.setattr(Janitor, "run", fails_when_asked)
    settings = Settings(
        role="api", port=0, auth="none", drain_delay=0, drain_grace=5, database_url=f"sqlite:///{tmp_path}/post.db"
    )
    ready = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(settings, ready=ready))
    port = await asyncio.wait_for(ready, 30)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    asked.set()
    assert await asyncio.wait_for(serving, 60) == 1


@pytest.mark.parametrize("host", ["::1", "::"])
def test_the_service_listens_on_addresses_of_both_kinds(host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6: it was NOT listened on")
    with _listen(Settings(host=host, port=0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("::1", port), 5).close()
        if host == "::":
            socket.create_connection(("127.0.0.1", port), 5).close()


def test_answers_wait_for_no_acknowledgement_whatever_the_loop() -> None:
    with _listen(Settings(host="127.0.0.1", port=0)) as listener, socket.create_connection(listener.getsockname(), 5):
        listener.settimeout(5)
        taken, _ = listener.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
