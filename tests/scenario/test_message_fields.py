"""Fields of POST /send that users of other mailers know: each does what they expect, or says what it is called here."""

import base64
import email
import email.policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import ARTICLE, running

PNG = base64.b64encode(b"\x89PNG").decode()


async def composed(folder: Path, **given: Any) -> EmailMessage:
    """The stored bytes of a message with these fields."""
    async with running(folder, hold=True) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, **given})
        assert answer.status_code == 202, answer.text
        raw = (await client.get(f"{answer.headers['location']}/raw")).content
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


async def refused(folder: Path, **given: Any) -> dict[str, str]:
    """The faults of a request with these fields: pointer -> sentence."""
    async with running(folder, hold=True) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, **given})
        assert answer.status_code == 422, answer.text
        assert (await client.get("/messages")).json()["data"] == []
    return {each["pointer"]: each["detail"] for each in answer.json()["errors"]}


@pytest.mark.parametrize(
    ("name", "content_type"), [("a.txt", None), ("a.csv", "text/csv"), ("a.md", "text/markdown; charset=UTF-8")]
)
async def test_a_file_given_as_text_says_that_it_is_utf8(tmp_path: Path, name: str, content_type: str | None) -> None:
    message = await composed(
        tmp_path, attachments=[{"filename": name, "text": "héllo 你好", "content_type": content_type}]
    )
    (part,) = message.iter_attachments()
    assert part.get_content() == "héllo 你好"
    assert str(part["content-type"]).lower().count("charset") == 1


async def test_one_message_id_is_as_good_as_a_list_of_one(tmp_path: Path) -> None:
    message = await composed(tmp_path, references="<a@x.example>", in_reply_to="a@x.example")
    assert message["references"] == message["in-reply-to"] == "<a@x.example>"


async def test_mail_that_a_person_caused_can_say_so(tmp_path: Path) -> None:
    assert (await composed(tmp_path))["auto-submitted"] == "auto-generated"
    assert (await composed(tmp_path / "b", auto_submitted=False))["auto-submitted"] is None


async def test_two_files_of_one_content_id_are_refused(tmp_path: Path) -> None:
    file = {"filename": "a.png", "content": PNG, "content_id": "logo"}
    assert await refused(tmp_path, attachments=[file, file]) == {"#/attachments/1/content_id": "logo stands twice"}


async def test_importance_is_written_once(tmp_path: Path) -> None:
    faults = await refused(tmp_path, importance="high", headers={"X-Priority": "2"})
    assert list(faults) == ["#/headers/X-Priority"]
    assert (await composed(tmp_path / "b", headers={"X-Priority": "2"}))["x-priority"] == "2"


@pytest.mark.parametrize("value", [5, {"a": "b"}, [], ["a", 5]])
async def test_a_header_of_another_kind_is_one_sentence(tmp_path: Path, value: Any) -> None:
    assert await refused(tmp_path, headers={"X-A": value}) == {
        "#/headers/X-A": "must be text, or a list of 1 to 20 texts"
    }


@pytest.mark.parametrize(
    ("field", "here"),
    [("icalEvent", "calendar"), ("replyTo", "reply_to"), ("attachDataUrls", "embed_data_urls"), ("inReplyTo", "in_reply_to"),
     ("list", "unsubscribe_url"), ("envelope", "envelope_from"), ("date", "scheduled_at"), ("xMailer", "headers")],
)  # fmt: skip
async def test_the_name_that_another_mailer_gives_a_field_is_translated(tmp_path: Path, field: str, here: str) -> None:
    faults = await refused(tmp_path, **{field: "x"})
    assert here in faults[f"#/{field}"]


async def warned(folder: Path, **given: Any) -> dict[str, str]:
    """The warnings of the 202, and the same of a dry run: pointer -> code."""
    async with running(folder, hold=True) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, **given})
        assert answer.status_code == 202, answer.text
        dry = await client.post("/send?dry_run=true", json={**ARTICLE, **given})
        assert dry.json()["warnings"] == answer.json()["warnings"]
        kept = (await client.get(answer.headers["location"])).json()["warnings"]
        assert kept == answer.json()["warnings"]
    return {each["pointer"]: each["code"] for each in kept}


LOGO = {"filename": "logo.png", "content": PNG, "content_id": "logo"}


@pytest.mark.parametrize(
    "html",
    ["<img src='cid:logo'>", '<img src="CID:logo"> cid:', "<img src=cid:logo>", "<p style='background: url(cid:logo)'>",
     '<p style="background: url(&quot;cid:logo&quot;)">', "<img src='cid:%6cogo'>"],
)  # fmt: skip
async def test_an_inline_image_that_is_shown_gets_no_warning(tmp_path: Path, html: str) -> None:
    assert await warned(tmp_path, html=html, attachments=[LOGO]) == {}


async def test_an_inline_image_that_is_missing_or_not_shown_is_a_warning(tmp_path: Path) -> None:
    given = {"html": "<img src='cid:lgoo'>", "attachments": [{"filename": "a.txt", "text": "a"}, LOGO]}
    assert await warned(tmp_path, **given) == {
        "#/html": "missing_inline_image",
        "#/attachments/1/content_id": "unused_inline_image",
    }
    assert await warned(tmp_path / "b", html="<p>cid:nothing is a word here</p>") == {}
    assert await warned(tmp_path / "c", html=None, attachments=[LOGO]) == {
        "#/attachments/0/content_id": "unused_inline_image"
    }
    shown = "<img src='data:image/png;base64,iVBORw0KGgo='>"
    assert await warned(tmp_path / "d", html=shown, embed_data_urls=True) == {}


@pytest.mark.parametrize("subject", ["", "  "])
async def test_an_empty_subject_is_a_warning(tmp_path: Path, subject: str) -> None:
    assert await warned(tmp_path, subject=subject) == {"#/subject": "empty_subject"}


async def test_an_invitation_that_is_none_is_refused(tmp_path: Path) -> None:
    faults = await refused(tmp_path, calendar={"method": "REQUEST", "content": "Tea at four"})
    assert list(faults) == ["#/calendar/content"]


async def test_a_name_of_an_address_may_be_null_and_its_parts_have_these_names_only(tmp_path: Path) -> None:
    message = await composed(tmp_path, to={"email": "a@x.example", "name": None})
    assert message["to"] == "a@x.example"
    assert await refused(tmp_path / "b", to=[{"name": "A", "address": "a@x.example"}]) == {
        "#/to/0": "address is not known; here it is email"
    }
    assert await refused(tmp_path / "c", to={"email": "a@x.example", "nick": "A"}) == {
        "#/to": "nick is not known; an address has email and name"
    }


async def test_where_one_address_stands_a_list_is_not_recommended(tmp_path: Path) -> None:
    faults = await refused(tmp_path, **{"from": "a@x.example, b@x.example", "sender": ["a@x.example"]})
    assert faults == {"#/from": "takes one address", "#/sender": "takes one address, not a list"}
    assert 'give a list: ["a@x.org", "b@x.org"]' in (await refused(tmp_path / "b", to="a@x.org, b@x.org"))["#/to"]


@pytest.mark.parametrize(("value", "code"), [("a\0b", "control_character"), ("x" * 2000, "too_long")])
async def test_a_fault_of_rendered_words_points_at_the_variables(tmp_path: Path, value: str, code: str) -> None:
    """The request has no subject, html and text of its own."""
    head = 'subject = "s {{ v }} and more"\n[variables]\nv = "string"\n[sample]\nv = "x"'
    files = {"template.toml": head, "html.j2": "<p>{{ v }}</p>", "text.j2": "{{ v }}"}
    message = {"from": "a@x.example", "to": "b@x.example", "template": {"name": "mine", "variables": {"v": value}}}
    async with running(tmp_path, hold=True) as (client, _):
        assert (await client.put("/templates/mine", json={"files": files})).status_code == 201
        answer = await client.post("/send", json=message)
    assert answer.status_code == 422
    faults = [(each["pointer"], each["code"]) for each in answer.json()["errors"]]
    assert set(faults) == {("#/template/variables", code)}


async def test_metadata_holds_no_nul(tmp_path: Path) -> None:
    assert list(await refused(tmp_path, metadata={"a": "x\0y"})) == ["#/metadata"]


async def test_null_in_a_message_of_a_batch_leaves_what_the_base_has(tmp_path: Path) -> None:
    base = {"from": "a@example.com", "subject": "News", "text": "Good news.", "tags": ["a"], "cc": None}
    items = [{"to": "b@example.org", "subject": None, "from": None, "tags": None, "html": None}]
    items.append({"to": "c@example.org", "tags": []})
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send/batch", json={"base": base, "messages": items})
        assert answer.status_code == 202, answer.text
        shown = [(await client.get(f"/messages/{each['message']['id']}")).json() for each in answer.json()["results"]]
        assert [(each["subject"], each["tags"]) for each in shown] == [("News", {"a": ""}), ("News", {})]
        strange = await client.post("/send/batch", json={"base": base, "messages": [{"to": "b@x.org", "foo": None}]})
        assert (strange.status_code, strange.json()["errors"][0]["pointer"]) == (422, "#/messages/0/foo")
