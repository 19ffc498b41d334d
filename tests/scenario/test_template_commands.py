"""`postroom template ...` as its users run it: in an empty folder, with a clean environment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.commands import run
from tests.support.process import ROOT as CHECKOUT
from tests.support.process import ServiceProcess
from tests.support.sink_process import SinkProcess
from tests.support.template_files import STARTERS, write

FIRST = ["--from", "a@example.com", "--to", "b@example.org"]


class Shell:
    """Runs commands in a folder and remembers what the last one said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.out = self.err = ""

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": str(self.folder)}

    def __call__(self, *arguments: str) -> int:
        done = run(["template", *arguments], self.folder, self.environment())
        self.out, self.err = done.out, done.err
        assert "Traceback" not in self.err, self.err
        return done.status

    def refused(self, *arguments: str) -> str:
        """The one sentence with which a command is refused."""
        assert self(*arguments) == 1, (self.out, self.err)
        assert self.out == ""
        assert self.err.startswith("postroom: ")
        assert self.err.count("\n") == 1, self.err
        return self.err


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


def test_a_new_template_has_nothing_to_find_and_renders_in_both_languages(shell: Shell) -> None:
    assert shell("new", "hello") == 0
    written = sorted(path.relative_to(shell.folder).as_posix() for path in shell.folder.rglob("*.*"))
    assert shell.out.split() == [line for line in shell.out.split() if line in written]
    assert len(written) == 6
    assert shell("check") == 0
    assert (shell.out, shell.err) == ("", "0 errors, 0 warnings\n")
    assert shell("check", "hello") == 0
    assert shell("render", "hello", "--part", "subject") == 0
    assert shell.out == "Hello Ada\n"
    assert shell("render", "hello", "--locale", "zh-CN", "--part", "text") == 0
    assert "林晓，您好" in shell.out
    assert shell("render", "hello", "--locale", "zh-TW") == 0
    assert '<html lang="zh-CN">' in shell.out
    assert shell("list") == 0
    assert shell.out.startswith("hello  ")
    assert "en, zh-CN" in shell.out
    assert "already" in shell.refused("new", "hello")


def test_the_command_is_there_as_a_module(shell: Shell) -> None:
    command = [sys.executable, "-m", "service", "template", "list"]
    done = subprocess.run(
        command, env=shell.environment(), cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == STARTERS


def test_where_there_is_no_folder_the_starter_set_is_used(shell: Shell) -> None:
    assert shell("list") == 0
    assert [line.split()[0] for line in shell.out.splitlines()] == STARTERS
    assert shell("check") == 0
    assert shell.err == "0 errors, 0 warnings\n"


def test_variables_come_from_a_file_and_all_their_faults_are_told(shell: Shell) -> None:
    shell("new", "hello")
    file = shell.folder / "v.json"
    file.write_text('{"name": "<b>"}')
    assert shell("render", "hello", "--variables", "v.json") == 0
    assert "Hello &lt;b&gt;" in shell.out
    file.write_text('{"nmae": "canary", "link": 5}')
    said = shell.refused("render", "hello", "--variables", "v.json")
    assert "#/name: is missing" in said
    assert "did you mean name?" in said
    assert "#/link" in said
    assert "canary" not in said
    file.write_text("{broken")
    assert "v.json" in shell.refused("render", "hello", "--variables", "v.json")
    file.write_text('["a list"]')
    shell.refused("render", "hello", "--variables", "v.json")
    assert "nowhere.json" in shell.refused("render", "hello", "--variables", "nowhere.json")
    assert "nowhere.json" in shell.refused("send-test", "hello", *FIRST, "--variables", "nowhere.json")


def test_what_is_asked_for_wrongly_is_refused_in_a_sentence(shell: Shell) -> None:
    shell("new", "hello")
    assert "there is no template nope; there are hello" in shell.refused("render", "nope")
    assert "there is no template nope" in shell.refused("check", "nope")
    for name in ("Bad_Name", "../x", "", "a/b", "_layouts", "x" * 65):
        assert "lower-case letters" in shell.refused("new", name)
    assert "no directory" in shell.refused("render", "hello", "--dir", "nowhere")
    assert "no directory" in shell.refused("check", "--dir", "nowhere")
    assert shell("render") == 2
    assert shell("nonsense") == 2
    assert not (shell.folder.parent / "x").exists()


def test_faults_are_told_with_file_and_line_and_spoil_no_other_template(shell: Shell) -> None:
    shell("new", "hello")
    write(shell.folder / "templates", "bad", {"template.toml": "subject = 's'", "html.j2": "\n{{ x|safe }}"})
    assert shell("check") == 1
    assert shell.out.startswith("bad/html.j2:2: error: template-fault: ")
    assert shell.err == "1 errors, 0 warnings\n"
    assert shell("check", "hello") == 0
    assert shell("render", "hello", "--part", "subject") == 0
    assert "bad/html.j2:2" in shell.refused("render", "bad")
    assert shell("list") == 1
    assert shell.out.splitlines()[0] == "bad  BROKEN"
    assert shell.out.splitlines()[1].startswith("hello  ")
    assert "bad/html.j2:2" in shell.err


def test_a_template_that_its_layout_breaks_is_listed_as_broken(shell: Shell) -> None:
    shell("new", "hello")
    home = shell.folder / "templates"
    write(home, "_layouts", {"base.j2": "{{ x|safe }}"})
    write(home, "bad", {"template.toml": "subject = 's'", "html.j2": '{% extends "_layouts/base.j2" %}'})
    assert shell("list") == 1
    assert shell.out.splitlines()[0] == "bad  BROKEN"
    assert "_layouts/base.j2:1" in shell.err


def test_a_name_that_no_template_can_have_is_told_and_files_of_windows_are_read(shell: Shell) -> None:
    home = shell.folder / "templates"
    write(home, "Order_Confirm", {"template.toml": "subject = 's'", "html.j2": "x"})
    write(home, "good", {"template.toml": "\ufeffsubject = '{{ x }}'\n[variables]\nx = 'string'", "html.j2": "\ufeffx"})
    (shell.folder / "v.json").write_text('\ufeff{"x": "y"}', encoding="utf-8")
    for command in ("list", "check"):
        assert shell(command) == 1
        assert "Order_Confirm" in shell.out
        assert "a template's name is lower-case letters" in shell.out + shell.err
    assert shell.out.count("Order_Confirm") == 1
    assert shell("render", "good", "--variables", "v.json", "--part", "subject") == 0, shell.err
    assert shell.out == "y\n"


def test_findings_can_be_read_by_machines_and_errors_end_with_status_1(shell: Shell) -> None:
    html = '<p>{{ nmae }}</p><a href="http://x.example">x</a>'
    write(shell.folder / "templates", "a", {"template.toml": "subject = 's'", "html.j2": html, "text.j2": "x"})
    assert shell("check", "--json") == 1
    found = [json.loads(line) for line in shell.out.splitlines()]
    assert {each["rule"] for each in found} == {"undefined-variable", "sample-invalid"}
    assert all(set(each) == {"rule", "severity", "file", "line", "detail"} for each in found)
    write(shell.folder / "templates", "a", {"html.j2": '<a href="http://x.example">x</a>'})
    assert shell("check", "a") == 0
    assert "a (en) html:1: warning: link-without-https: " in shell.out


def test_a_sample_that_can_not_be_rendered_is_told_with_its_reason(shell: Shell) -> None:
    write(shell.folder / "templates", "a", {"template.toml": "subject = 's'", "html.j2": "{{ 'x'|date }}"})
    assert "must be a date" in shell.refused("render", "a")
    assert shell("check", "a") == 1
    assert "must be a date" in shell.out


# --- a running service ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`postroom dev` on a free port; its address."""
    folder = tmp_path_factory.mktemp("dev")
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "dev", "--port", "0"],
        env=Shell(folder).environment()
        | {"POSTROOM_DATABASE_URL": f"sqlite:///{folder}/post.db", "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield next(line.split()[2].removesuffix("/docs") for line in process.stdout if "API docs" in line)
    process.terminate()
    process.communicate(timeout=30)


def inbox(service: str) -> list[dict[str, Any]]:
    return list(httpx.get(f"{service}/inbox/api/messages").json()["messages"])


def test_a_test_mail_arrives_in_the_inbox_with_its_attachment(shell: Shell, service: str) -> None:
    assert shell("send-test", "invoice", *FIRST, "--locale", "zh-CN", "--url", service) == 0, shell.err
    accepted = json.loads(shell.out)
    path = f"{service}/messages/{accepted['id']}"
    deadline = time.monotonic() + 15
    while (view := httpx.get(path).json())["status"] in {"queued", "sending"} and time.monotonic() < deadline:
        os.sched_yield()
    assert (view["status"], view["template"]) == ("sent", "invoice@1")
    (mail,) = inbox(service)
    whole = httpx.get(f"{service}/inbox/api/messages/{mail['id']}").text
    assert "invoice-sample.pdf" in whole


def test_what_the_service_refuses_is_told_in_a_sentence(shell: Shell, service: str) -> None:
    at = ["--url", service]
    assert "404: " in shell.refused("send-test", "nope", *FIRST, *at)
    assert "404: " in shell.refused("send-test", "../../send", *FIRST, *at)
    assert "#/from" in shell.refused("send-test", "invoice", "--from", "no address", "--to", "b@example.org", *at)
    (shell.folder / "v.json").write_text('{"nmae": "canary"}')
    said = shell.refused("send-test", "invoice", *FIRST, "--variables", "v.json", *at)
    assert "422: " in said
    assert "is missing" in said
    assert "canary" not in said


def test_a_service_that_does_not_answer_is_told_in_a_sentence(shell: Shell) -> None:
    said = shell.refused("send-test", "x", *FIRST, "--url", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer: connection refused." in said
    assert "--url names another" in said
    assert "urlopen" not in said
    assert "--url: nonsense" in shell.refused("send-test", "x", *FIRST, "--url", "nonsense")
    assert "--url" in shell.refused("send-test", "x", *FIRST, "--url", "http://127.0.0.1:bad")
    assert "--key-file" in shell.refused("send-test", "x", *FIRST, "--key-file", "nowhere")


def test_a_test_mail_goes_to_the_port_of_the_settings(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = shell.environment()
    monkeypatch.setattr(shell, "environment", lambda: {**settings, "POSTROOM_PORT": "9"})
    assert "http://127.0.0.1:9 does not answer" in shell.refused("send-test", "x", *FIRST)


def test_a_service_that_wants_a_key_is_told_how_one_is_given(shell: Shell, tmp_path: Path) -> None:
    with SinkProcess(tmp_path) as sink, ServiceProcess(tmp_path, sink.url, auth="keys") as service:
        said = shell.refused("send-test", "welcome", *FIRST, "--url", service.url)
    assert "401: " in said
    assert "--key-file FILE, or the variable POSTROOM_API_KEY" in said
