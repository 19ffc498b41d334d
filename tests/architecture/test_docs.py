"""What the docs show is true: their examples are posted and accepted, their tables are those of the code."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from docs.generate import ROOT, documents
from service.mail.render import compile_template
from service.mail.template import parse_files
from tests.support.running import running

COMPOSING = (ROOT / "docs" / "composing.md").read_text(encoding="utf-8")
TEMPLATES = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
BASE = {"from": "ada@example.com", "to": "charles@example.org", "subject": "Hello", "text": "Hello"}
DRY_RUN = "POST /send?dry_run=true 200"
NODEMAILER = ROOT / "tests" / "oracles" / "node_modules" / "nodemailer" / "dist" / "cjs"
# what a row `attachments[].x` stands in: the fields around `x`
AROUND = {
    "attachments[]": lambda inner: {"attachments": [{"filename": "a.txt", "content": "YQ==", **inner}]},
    "alternatives[]": lambda inner: {"alternatives": [{"content_type": "text/markdown", "content": "a", **inner}]},
    "icalEvent": lambda inner: {"calendar": {"method": "REQUEST", "content": "BEGIN:VCALENDAR\r\n", **inner}},
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
    for page in sorted((ROOT / "docs").glob("*.md")):
        targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        files = [target.partition("#")[0] for target in targets if "://" not in target]
        missing += [f"{page.name}: {file}" for file in files if file and not (ROOT / "docs" / file).exists()]
    assert missing == []
