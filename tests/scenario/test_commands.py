"""`postroom dev`, `serve` and `keys` as they are first used: nothing leaves by accident, and what is missing is said."""

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.process import ROOT, ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess


def environment(**variables: str) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **variables}


@contextlib.contextmanager
def dev(folder: Path, *arguments: str, **variables: str) -> Iterator[str]:
    """`postroom dev`; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "dev", "--port", "0", *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "/docs" in line)
        yield line.split()[-1].removesuffix("/docs")
    finally:
        process.terminate()
        process.wait(20)


def sent(url: str) -> dict[str, object]:
    answer = httpx.post(f"{url}/send", json=ARTICLE, headers={"Prefer": "wait=10"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_dev_captures_whatever_relay_is_configured_and_keeps_its_own_store(tmp_path: Path) -> None:
    with SinkProcess(tmp_path) as sink:
        with dev(tmp_path, POSTROOM_RELAY_URL=sink.url) as url:
            assert sent(url)["status"] == "sent"
            assert len(httpx.get(f"{url}/inbox/api/messages").json()) >= 1
        assert sink.copies() == {}
        assert (tmp_path / "var" / "dev.db").exists()
        assert not (tmp_path / "var" / "postroom.db").exists()
        with dev(tmp_path, "--relays", POSTROOM_RELAY_URL=sink.url) as url:
            assert sent(url)["status"] == "sent"
        assert len(sink.copies()) == 1


def postroom(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )


def test_a_reader_that_has_read_enough_sees_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody_reads:
        ended = subprocess.run(
            [sys.executable, "-m", "service", "relay", "presets"],
            cwd=tmp_path,
            env=environment(),
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_bootstrap_key_goes_into_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    made = postroom(tmp_path, "keys", "generate", "--output", "secrets/first-key")
    assert made.returncode == 0, made.stderr
    file = tmp_path / "secrets" / "first-key"
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text().strip()
    assert token not in made.stdout
    again = postroom(tmp_path, "keys", "generate", "--output", "secrets/first-key")
    assert (again.returncode, again.stderr) == (1, "postroom: secrets/first-key: File exists\n")
    with (
        SinkProcess(tmp_path) as sink,
        ServiceProcess(tmp_path, sink.url, auth="keys", bootstrap_key_file=file) as service,
    ):
        answer = httpx.get(f"{service.url}/keys", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, "it is an admin key"
        assert not [line for line in service.lines if line.get("event") == "keys.none"]


def test_a_key_may_send_and_read_unless_more_is_asked_for(tmp_path: Path) -> None:
    made = postroom(tmp_path, "keys", "create", "shop")
    assert "scopes send, read." in made.stderr
    assert "admin" in postroom(tmp_path, "keys", "create", "boss", "--scope", "admin").stderr


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--rate", "foo", "rate: must be a rate"),
        ("--rate", "1/0s", "rate: must be a rate"),
        ("--from", "nobody@", "from_allowed/0: "),
        ("--from", "exa mple.com", "from_allowed/0: "),
    ],
)
def test_a_key_that_no_request_could_use_is_not_made(tmp_path: Path, option: str, value: str, told: str) -> None:
    refused = postroom(tmp_path, "keys", "create", "shop", option, value)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"postroom: {told}")
    assert postroom(tmp_path, "keys", "list").stdout == ""


@pytest.mark.parametrize(("name", "meant"), [("max_recipents", "POSTROOM_MAX_RECIPIENTS"), ("colour", None)])
def test_serve_says_what_is_no_setting_and_that_nobody_has_a_key(tmp_path: Path, name: str, meant: str | None) -> None:
    with SinkProcess(tmp_path) as sink, ServiceProcess(tmp_path, sink.url, auth="keys", **{name: "3"}) as service:
        events = {line["event"]: line for line in service.lines}
    unknown = events["settings.unknown"]
    assert (unknown["name"], unknown["did_you_mean"]) == (f"POSTROOM_{name.upper()}", meant)
    assert "postroom keys create" in json.dumps(events["keys.none"])


def test_the_version_is_that_of_the_project() -> None:
    command = [sys.executable, "-m", "service", "--version"]
    ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ran.stdout == f"postroom {project['version']}\n"
