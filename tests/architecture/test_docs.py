"""What the docs show is true: their examples are posted and accepted, their tables are those of the code."""

import json
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from docs.generate import ROOT, documents
from service import cli
from service.api.convert import validate
from service.api.models import SendIn
from service.errors import ValidationFailed
from service.mail.render import compile_template
from service.mail.template import parse_files
from service.settings import Settings
from tests.support.running import running

API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
COMPOSING = (ROOT / "docs" / "composing.md").read_text(encoding="utf-8")
TEMPLATES = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
BASE = {"from": "ada@example.com", "to": "charles@example.org", "subject": "Hello", "text": "Hello"}
DRY_RUN = "POST /send?dry_run=true 200"
NODEMAILER = ROOT / "tests" / "oracles" / "node_modules" / "nodemailer" / "dist" / "cjs"
# what a row `attachments[].x` stands in: the fields around `x`
AROUND = {
    "attachments[]": lambda inner: {"attachments": [{"filename": "a.txt", "content": "YQ==", **inner}]},
    "alternatives[]": lambda inner: {"alternatives": [{"content_type": "text/markdown", "content": "a", **inner}]},
    "icalEvent": lambda inner: {"calendar": {"method": "REQUEST", "content": "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", **inner}},
    "headers.*": lambda inner: {"headers": {"X-Some": {"value": "a", **inner}}},
    "text": lambda inner: {"text": inner},
    "html": lambda inner: {"html": inner},
}  # fmt: skip


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(tmp_path) as (client, _):
        yield client


def examples(page: str) -> Iterator[tuple[str, Any]]:
    """Each ```json block with the request it is for: the comment before it, or a dry run of POST /send."""
    for found in re.finditer(r"(?:<!-- ((?:POST|PUT) \S+ \d+) -->\n)?```json\n(.*?)```", page, re.S):
        yield found[1] or DRY_RUN, json.loads(found[2])


def rows() -> Iterator[tuple[list[str], str, dict[str, Any] | None]]:
    """nodemailer's fields, what stands for them here, and the example."""
    table = COMPOSING.partition("| nodemailer |")[2].splitlines()[2:]
    for line in table:
        if not line.startswith("|"):
            break
        first, here, example = (cell.strip() for cell in line.strip("|").split(" | "))
        yield re.findall(r"`([^`]+)`", first), here, json.loads(example.strip("`")) if example else None


def shell_blocks(page: str) -> Iterator[str]:
    """The text of each fenced block that is meant for a shell, with the fence that ends it."""
    for language, text in re.findall(r"^ *```(\w*)\n(.*?^ *```)", page, re.S | re.M):
        if language in ("", "sh"):
            yield text


CURL = re.compile(r"^ *(api|curl) (.*?)(?:  # (\d{3}))?$(?=\n *(?:```|api |curl |[A-Z]+=))", re.S | re.M)


def requests(page: str, settings: dict[str, str]) -> Iterator[tuple[str, str, dict[str, str], str | None, int]]:
    """Each curl of the shell blocks: method, path with query, header fields, body, and the status that stands behind it.

    `settings`: variables of the shell, looked up when the request is made.
    """
    for block in shell_blocks(page):
        for _, words, status in CURL.findall(block):
            moved = re.sub(r'"scheduled_at": "[^"]+"', f'"scheduled_at": "{_ahead()}"', words.replace("\\\n", " "))
            yield (*_parsed([_expanded(word, settings) for word in shlex.split(moved)]), int(status or 202))


def _ahead() -> str:
    """A moment that can be scheduled for, whenever the test runs."""
    return (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")


def _expanded(word: str, settings: dict[str, str]) -> str:
    word = word.replace("$(cat secrets/first-key)", settings["KEY"])
    return re.sub(r"\$([A-Z]+)", lambda found: settings[found[1]], word)


def _parsed(words: list[str]) -> tuple[str, str, dict[str, str], str | None]:
    method, url, fields, body = None, "", {}, None
    pending = iter(words)
    for word in pending:
        if word == "-X":
            method = next(pending)
        elif word == "-d":
            body = next(pending)
        elif word == "-H":
            name, _, value = next(pending).partition(": ")
            fields[name] = value
        elif word != "-s":
            assert not url, words
            url = word
    return method or ("GET" if body is None else "POST"), url.partition(":8000")[2], fields, body


@pytest.mark.parametrize(("page", "least"), [("README.md", 2), ("docs/api.md", 32)])
async def test_every_curl_of_a_page_gets_the_status_that_stands_behind_it(
    page: str, least: int, tmp_path: Path
) -> None:
    shell = {"URL": "http://127.0.0.1:8000", "KEY": "pr_" + "k" * 43}
    (tmp_path / "key").write_text(shell["KEY"])
    text = (ROOT / page).read_text(encoding="utf-8")
    made = 0
    async with running(tmp_path, auth="keys", bootstrap_key_file=tmp_path / "key") as (client, _):
        for method, path, fields, body, status in requests(text, shell):
            common = {"Authorization": f"Bearer {shell['KEY']}", "Content-Type": "application/json"}
            answer = await client.request(method, path, headers={**common, **fields}, content=body)
            expected = 200 if "wait=" in fields.get("Prefer", "") else status
            assert answer.status_code == expected, f"{method} {path}: {answer.text}"
            told = answer.json() if answer.headers.get("content-type") == "application/json" else {}
            if str(told.get("id", "")).startswith("msg_"):
                shell["ID"] = told["id"]
            if answer.status_code < 300:
                assert not told.get("warnings"), (path, told["warnings"])
            made += 1
    assert made >= least


def test_every_request_of_the_page_of_the_api_has_a_status() -> None:
    lines = re.findall(r"^api (?!\{).*$", API, re.M)
    assert len(lines) == len(re.findall(r"  # \d{3}$", API, re.M))


def test_every_command_of_the_docs_is_one_that_there_is() -> None:
    parser = cli._parser()
    seen = set()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"^ *```(?:sh)?\n(.*?)```", page.read_text(encoding="utf-8"), re.S | re.M):
            for line in re.findall(r"^ *(?:\.venv/bin/)?postroom (.*)$", block, re.M):
                parser.parse_args(shlex.split(line, comments=True))  # ends with status 2 on what is unknown
                seen.add(line.split()[0])
    assert {"serve", "keys", "relay", "template", "dkim"} <= seen


def test_the_names_of_other_services_are_answered_as_the_table_says() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in API.partition("| here | SendGrid")[2].splitlines()[2:]
        if line.startswith("|")
    ]
    assert len(rows) > 15
    for here, *cells in rows:
        inside = "attachments[]" in here
        for name in re.findall(r"`([^`\[]+)(?:\[\])?`", " ".join(cells)):
            if inside and name not in {"inline", "attachment"}:
                given = {"attachments": [{"filename": "a.txt", "text": "a", name: "x"}]}
            else:
                given = {name: "x"}
            try:
                validate(SendIn, {**BASE, **given}, Settings(), 0)
            except ValidationFailed as failed:
                details = [each.detail for each in failed.errors if each.pointer.endswith(f"/{name}")]
                assert all("known are" not in detail for detail in details), (name, details)


@pytest.mark.parametrize("page", ["composing.md", "templates.md"])
async def test_every_example_is_accepted(page: str, client: httpx.AsyncClient) -> None:
    posted = 0
    for request, body in examples((ROOT / "docs" / page).read_text(encoding="utf-8")):
        method, path, status = request.split()
        answer = await client.request(method, path, json=body)
        assert answer.status_code == int(status), f"{request}: {answer.text}\n{json.dumps(body)[:300]}"
        assert not answer.json().get("warnings"), f"{request}: {answer.json()['warnings']}"
        posted += 1
    assert posted >= 3


async def test_every_field_of_nodemailer_is_there_or_refused_by_name(client: httpx.AsyncClient) -> None:
    for fields, here, example in rows():
        if example is not None:
            answer = await client.post("/send?dry_run=true", json={**BASE, **example})
            assert (answer.status_code, here.startswith(("refused:", "setting:"))) == (200, False), (
                fields,
                answer.text,
            )
            continue
        assert here.startswith(("refused:", "setting:")), fields
        for field in fields:
            outer, _, inner = field.rpartition(".")
            body = AROUND[outer]({inner: "x"}) if outer else {inner: "x"}
            answer = await client.post("/send?dry_run=true", json={**BASE, **body})
            assert answer.status_code == 422, field
            assert any(inner in error["pointer"] or outer.partition(".")[0] in error["pointer"]
                       for error in answer.json()["errors"]), (field, answer.text)  # fmt: skip


def declared(file: str, interface: str) -> set[str]:
    """The fields of a TypeScript interface of nodemailer."""
    text = (NODEMAILER / file).read_text(encoding="utf-8")
    body = re.search(rf"export interface {interface} (?:extends \w+ )?\{{\n(.*?)\n\}}", text, re.S)
    assert body is not None, interface
    return set(re.findall(r"^    (\w+)\??:", body[1], re.M))


def test_the_table_holds_every_field_that_nodemailer_declares() -> None:
    if not NODEMAILER.is_dir():
        pytest.skip("npm is not installed: the table of nodemailer's fields was NOT compared with nodemailer")
    composer, mailer = "mail-composer/index.d.ts", "mailer/mail-message.d.ts"
    part = declared(composer, "MailComposerAlternative")
    told = {field for fields, _, _ in rows() for field in fields}
    wanted = declared(composer, "MailComposerOptions") | declared(mailer, "SendMailOptions")
    wanted |= {f"attachments[].{name}" for name in part | declared(composer, "MailComposerAttachment")}
    wanted |= {f"alternatives[].{name}" for name in part}
    wanted |= {f"icalEvent.{name}" for name in part | declared(composer, "MailComposerIcalEvent")}
    assert wanted - told == set()


def test_the_tables_of_the_authors_page_are_those_of_the_code() -> None:
    assert documents()[ROOT / "docs" / "templates.md"] == TEMPLATES, "run `make docs` and commit"


def test_every_template_toml_of_the_authors_page_can_be_loaded() -> None:
    heads = re.findall(r"```toml\n(.*?)```", TEMPLATES, re.S)
    assert len(heads) >= 2
    for head in heads:
        made = compile_template(parse_files("shown", {"template.toml": head, "html.j2": "<p>shown</p>"}))
        assert made.check(made.sample(), "") == []


def test_every_link_of_a_page_leads_to_a_file() -> None:
    missing = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        files = [target.partition("#")[0] for target in targets if "://" not in target]
        missing += [f"{page.name}: {file}" for file in files if file and not (page.parent / file).exists()]
    assert missing == []
