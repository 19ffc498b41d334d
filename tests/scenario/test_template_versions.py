"""Versions hold over processes and restarts; a reload changes all or nothing; a bad template stops no service."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.process import ROOT as CHECKOUT
from tests.support.process import ServiceProcess
from tests.support.running import running
from tests.support.template_files import ROOT, write

GOOD = {"template.toml": 'subject = "s"', "html.j2": "one"}


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


@contextlib.contextmanager
def two(folder: Path, templates: Path) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    """Two processes on one store and one templates folder, neither of which sends."""
    settings = {"templates_dir": templates, "role": "api", "templates_refresh": "0"}
    with (
        ServiceProcess(folder, "smtp://127.0.0.1:9?plaintext=allow", **settings) as one,
        ServiceProcess(folder, "smtp://127.0.0.1:9?plaintext=allow", **settings) as other,
    ):
        yield one, other


def version(service: ServiceProcess, name: str) -> Any:
    return httpx.get(f"{service.url}/templates/{name}").json().get("version")


def html(service: ServiceProcess, name: str) -> Any:
    return httpx.post(f"{service.url}/templates/{name}/render", json={}).json().get("html")


def send(service: ServiceProcess, name: str) -> Any:
    body = {"from": "a@example.com", "to": "b@example.org", "template": {"name": name}}
    answer = httpx.post(f"{service.url}/send", json=body)
    assert answer.status_code == 202, answer.text
    return httpx.get(service.url + answer.headers["location"]).json()["template"]


def test_versions_hold_over_two_processes_signals_kills_and_restarts(tmp_path: Path) -> None:
    templates = tmp_path / "t"
    write(templates, "a", GOOD)
    with two(tmp_path, templates) as (one, other):
        assert (send(one, "a"), send(other, "a")) == ("a@1", "a@1")
        write(templates, "a", {"html.j2": "two"})
        os.kill(one.process.pid, signal.SIGHUP)
        until(lambda: version(one, "a") == 2)
        assert (version(other, "a"), html(other, "a")) == (1, "one"), "its own reload decides"
        assert html(other, "a@2") == "two", "yet every version is known to all"
        assert (send(one, "a"), send(other, "a"), send(one, "a@1"), send(other, "a@2")) == ("a@2", "a@1", "a@1", "a@2")
        assert httpx.post(f"{other.url}/templates/reload", json={}).json()["templates"] == [{"name": "a", "version": 2}]
        published = httpx.put(f"{one.url}/templates/news", json={"files": {**GOOD, "html.j2": "news"}})
        assert (published.status_code, html(other, "news")) == (201, "news")
        one.kill()
    write(templates, "a", {"html.j2": "three"})
    with two(tmp_path, templates) as (one, other):
        assert (version(one, "a"), version(other, "a")) == (3, 3)
        assert [html(other, f"a@{number}") for number in (1, 2, 3)] == ["one", "two", "three"]
        assert html(one, "news@1") == "news"


def test_a_bad_template_is_refused_by_signal_and_by_request_while_the_old_one_renders(tmp_path: Path) -> None:
    templates = tmp_path / "t"
    write(templates, "_layouts", {"l.j2": "<{% block b %}{% endblock %}>"})
    write(templates, "a", {**GOOD, "html.j2": '{% extends "_layouts/l.j2" %}{% block b %}x{% endblock %}'})
    settings = {"templates_dir": templates, "role": "api"}
    with ServiceProcess(tmp_path, "smtp://127.0.0.1:9?plaintext=allow", **settings) as service:

        def refused(where: str) -> bool:
            return any(
                where in str(line.get("detail")) for line in service.lines if line["event"] == "templates.refused"
            )

        write(templates, "a", {"html.j2": "\n\n{{ x|safe }}"})
        os.kill(service.process.pid, signal.SIGHUP)
        until(lambda: refused("a/html.j2:3: "))
        assert html(service, "a") == "<x>"
        write(templates, "a", {"html.j2": '{% extends "_layouts/l.j2" %}{% block b %}y{% endblock %}'})
        write(templates, "_layouts", {"l.j2": "\n{% block b %}"})
        answer = httpx.post(f"{service.url}/templates/reload", json={}).json()
        assert [(each["pointer"], each["detail"][:7]) for each in answer["refused"]] == [
            ("#/files/_layouts~1l.j2", "line 2:")
        ]
        assert html(service, "a") == "<x>"
        shutil.move(templates, tmp_path / "elsewhere")
        answer = httpx.post(f"{service.url}/templates/reload", json={})
        assert (answer.status_code, len(answer.json()["refused"])) == (200, 1)
        assert html(service, "a") == "<x>"
        shutil.move(tmp_path / "elsewhere", templates)
        write(templates, "_layouts", {"l.j2": "[{% block b %}{% endblock %}]"})
        os.kill(service.process.pid, signal.SIGHUP)
        until(lambda: bool(html(service, "a") == "[y]"))
        assert httpx.get(f"{service.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("files", "where"),
    [({"html.j2": "\n{% if"}, "bad/html.j2:2: "), ({"template.toml": "\n\nsubject"}, "bad/template.toml:3: "), ({"htm.j2": "x"}, "bad/htm.j2:1: ")],
)  # fmt: skip
def test_a_bad_template_at_the_start_stops_it_with_a_sentence(
    tmp_path: Path, files: dict[str, str], where: str
) -> None:
    write(tmp_path / "t", "bad", {**GOOD, **files})
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "POSTROOM_TEMPLATES_DIR": "t",
                   "POSTROOM_RELAY_URL": "smtp://127.0.0.1:9?plaintext=allow", "POSTROOM_AUTH": "none"}  # fmt: skip
    command = [sys.executable, "-m", "service", "serve"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert where in done.stderr
    assert "Traceback" not in done.stderr


async def test_while_watched_each_use_sees_the_newest_good_form(tmp_path: Path) -> None:
    templates = tmp_path / "t"
    shutil.copytree(ROOT, templates)
    async with running(tmp_path, templates_dir=templates, templates_watch=True, hold=True) as (client, _):
        html_file = templates / "verify-email/text.j2"
        before = (await client.get("/templates/verify-email")).json()["version"]
        html_file.write_text("changed {{ code }}")
        made = (await client.post("/templates/verify-email/render", json={})).json()
        assert (made["text"], made["version"]) == ("changed 481 920", before + 1)
        html_file.write_text("{{ broken")
        assert (await client.post("/templates/verify-email/render", json={})).json()["text"] == "changed 481 920"
        use = {"name": "verify-email", "variables": {"product": "P", "code": "1234", "minutes": 5}}
        sent = await client.post("/send", json={"from": "a@example.com", "to": "b@example.org", "template": use})
        assert (await client.get(sent.headers["location"])).json()["template"] == "verify-email@2"
