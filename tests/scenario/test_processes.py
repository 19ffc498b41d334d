"""Whole processes: roles apart on one file, secrets nowhere, slow bodies, a hold."""

import socket
import time
from pathlib import Path
from statistics import median

import httpx

from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess


def test_roles_apart_on_one_file_hand_mail_over_without_waiting_for_a_poll(tmp_path: Path) -> None:
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url, role="sender", poll_interval=5) as sender,
        ServiceProcess(tmp_path, sink.url, role="api") as api,
        httpx.Client(base_url=api.url) as client,
    ):
        waits = []
        for _ in range(12):
            answer = client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
            assert answer.status_code == 200, answer.text
            accepted, sent = (client.get(f"/messages/{answer.json()['id']}/events").json())["data"]
            waits.append(_seconds(sent["at"]) - _seconds(accepted["at"]))
        assert median(waits) < 0.05, waits
        assert httpx.post(f"{sender.url}/send", json=ARTICLE).status_code == 404, "a sender takes no mail"
        assert httpx.get(f"{sender.url}/readyz").json()["role"] == "sender"
    assert len(sink.copies()) == 12


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()


def test_no_secret_is_in_any_log_answer_or_metric(tmp_path: Path) -> None:
    canary, key = "canary-code-5521", "pr_" + "C" * 43
    (tmp_path / "key").write_text(key)
    url = f"smtp://me%40163.com:{canary}@127.0.0.1:9?plaintext=allow"
    settings = {"auth": "keys", "bootstrap_key_file": tmp_path / "key", "log_level": "debug"}
    with ServiceProcess(tmp_path, url, **settings) as service:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=service.url) as client:
            body = {**ARTICLE, "from": "me@163.com", "text": "body-canary-77", "headers": {"X-A": "header-canary-78"}}
            answers = [
                client.post("/send", json=body, headers={**headers, "Prefer": "wait=1"}),
                client.post("/send", json={**body, "to": "body-canary-77"}, headers=headers),
                client.post("/send", json=body, headers={"Authorization": f"Bearer {key}x"}),
                client.get("/relays", headers=headers),
                client.post("/relays/default/check", headers=headers),
                client.get("/keys", headers=headers),
                client.get("/messages", headers=headers),
                client.get("/metrics"),
                client.get("/readyz"),
            ]
            told = "".join(answer.text + str(answer.headers) for answer in answers)
    written = told + str(service.lines)
    for secret in (canary, key, "body-canary-77", "header-canary-78"):
        assert secret not in written, secret


DRIP = b"POST /send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


def test_a_body_that_drips_is_ended_in_time(tmp_path: Path) -> None:
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url, body_timeout=0.5) as service,
        socket.create_connection(("127.0.0.1", service.port), 10) as connection,
    ):
        connection.sendall(DRIP)
        began = time.monotonic()
        assert b"408" in connection.recv(4096)
        assert time.monotonic() - began < 5


def test_a_held_service_accepts_and_sends_nothing_until_it_is_started_again(tmp_path: Path) -> None:
    with SinkProcess(tmp_path) as sink:
        with ServiceProcess(tmp_path, sink.url, hold="true") as service:
            answer = httpx.post(f"{service.url}/send", json=ARTICLE, headers={"Prefer": "wait=1"})
            assert answer.status_code == 202
            assert httpx.get(f"{service.url}/readyz").json()["sending"] == "held"
        assert sink.copies() == {}
        with ServiceProcess(tmp_path, sink.url) as service:
            deadline = time.monotonic() + 10
            while not sink.copies():
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_a_wrong_setting_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    from tests.support.process import ROOT

    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "POSTROOM_PORT": "eighty"}
    ran = subprocess.run(
        [sys.executable, "-m", "service", "serve"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("postroom: POSTROOM_PORT: ")
    assert "Traceback" not in ran.stderr
    del environment["POSTROOM_PORT"]
    ran = subprocess.run(
        [sys.executable, "-m", "service", "serve"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "POSTROOM_RELAY_URL" in ran.stderr
