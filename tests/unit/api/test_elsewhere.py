"""Names of fields that users of other mailers bring along: each is told what it is called here, or why there is none."""

import re
from typing import Any

import pytest

from docs.generate import ROOT
from service.api.convert import validate
from service.api.elsewhere import _HERE, _REFUSED, plain
from service.api.models import AlternativeIn, AttachmentIn, BatchIn, CalendarIn, SendIn, SendTestIn, Strict, TemplateUse
from service.errors import ValidationFailed
from service.settings import Settings

HELLO = {"from": "a@example.com", "to": "b@example.org", "subject": "Hello", "text": "Hello"}
INSIDE: dict[type[Strict], tuple[type[Strict], Any, str]] = {
    SendIn: (SendIn, lambda given: {**HELLO, **given}, "#"),
    BatchIn: (BatchIn, lambda given: {"messages": [HELLO], **given}, "#"),
    SendTestIn: (SendTestIn, lambda given: {"from": "a@example.com", "to": "b@example.org", **given}, "#"),
    TemplateUse: (SendIn, lambda given: {**HELLO, "template": {"name": "x", **given}}, "#/template"),
    AttachmentIn: (
        SendIn,
        lambda given: {**HELLO, "attachments": [{"filename": "a", "text": "a", **given}]},
        "#/attachments/0",
    ),
    AlternativeIn: (
        SendIn,
        lambda given: {**HELLO, "alternatives": [{"content_type": "text/markdown", "content": "a", **given}]},
        "#/alternatives/0",
    ),
    CalendarIn: (
        SendIn,
        lambda given: {
            **HELLO,
            "calendar": {"method": "REQUEST", "content": "BEGIN:VCALENDAR\nEND:VCALENDAR", **given},
        },
        "#/calendar",
    ),
}


def told(within: type[Strict], name: str) -> str:
    """What is said of an unknown field."""
    model, make, prefix = INSIDE[within]
    with pytest.raises(ValidationFailed) as caught:
        validate(model, make({name: "x"}), Settings(), 0)
    told = {each.pointer: each for each in caught.value.errors}
    problem = told[f"{prefix}/{name.replace('/', '~1')}"]
    assert problem.code == "unknown_field"
    assert "known are" not in problem.detail
    return problem.detail


@pytest.mark.parametrize(
    ("within", "name", "here"),
    [
        # SendGrid
        (SendIn, "categories", "tags"), (SendIn, "asm", "unsubscribe_url"), (SendIn, "custom_args", "metadata"),
        (SendIn, "customArgs", "metadata"), (SendIn, "dynamic_template_data", "template.variables"),
        (SendIn, "template_id", "template.name"), (SendIn, "content", "html or text"), (SendIn, "send_at", "scheduled_at"),
        (SendIn, "personalizations", "messages"), (SendIn, "reply_to_list", "reply_to"), (SendIn, "mail_settings", "dry_run"),
        (AttachmentIn, "type", "content_type"), (BatchIn, "personalizations", "messages"),
        # Mailgun
        (SendIn, "o:tag", "tags"), (SendIn, "o:deliverytime", "scheduled_at"), (SendIn, "o:testmode", "dry_run"),
        (SendIn, "h:X-Order", "headers"), (SendIn, "v:order", "metadata"), (SendIn, "amp-html", "amp"),
        (SendIn, "recipient-variables", "template.variables"), (SendIn, "t:variables", "template.variables"),
        # SES
        (SendIn, "Source", "from"), (SendIn, "Destination", "to, cc and bcc"), (SendIn, "FromEmailAddress", "from"),
        (SendIn, "ConfigurationSetName", "X-SES-CONFIGURATION-SET"), (SendIn, "TemplateData", "template.variables"),
        (SendIn, "ReplyToAddresses", "reply_to"), (SendIn, "EmailTags", "tags"), (AttachmentIn, "RawContent", "content"),
        # Postmark
        (SendIn, "HtmlBody", "html"), (SendIn, "TextBody", "text"), (SendIn, "Tag", "tags"), (SendIn, "MessageStream", "relay"),
        (SendIn, "TemplateModel", "template.variables"), (SendIn, "TemplateAlias", "template.name"),
        (AttachmentIn, "Name", "filename"), (AttachmentIn, "name", "filename"), (AttachmentIn, "data", "content"),
        # templates
        (TemplateUse, "id", "name"), (TemplateUse, "data", "variables"), (TemplateUse, "context", "variables"),
        (TemplateUse, "model", "variables"), (TemplateUse, "language", "locale"), (SendIn, "variables", "template.variables"),
    ],
)  # fmt: skip
def test_another_word_is_translated_where_it_stands(within: type[Strict], name: str, here: str) -> None:
    assert told(within, name).startswith(f"is not known; here it is {here}") or here in told(within, name)


@pytest.mark.parametrize(
    ("within", "name", "here"),
    [(SendIn, "Metadata", "metadata"), (SendIn, "ReplyTo", "reply_to"), (SendIn, "reply-to", "reply_to"), (SendIn, "Subject", "subject"),
     (AttachmentIn, "ContentType", "content_type"), (AttachmentIn, "ContentID", "content_id"), (TemplateUse, "Variables", "variables")],
)  # fmt: skip
def test_another_spelling_is_recognised(within: type[Strict], name: str, here: str) -> None:
    assert told(within, name) == f"is not known; did you mean {here}?"


@pytest.mark.parametrize(
    ("within", "name", "reason"),
    [
        (SendIn, "messageId", "Idempotency-Key"), (SendIn, "raw", "second message"), (SendIn, "date", "scheduled_at"),
        (SendIn, "encoding", "smallest encoding"), (SendIn, "dkim", "POSTROOM_DKIM_FILE"), (SendIn, "tracking_settings", "not tracked"),
        (AttachmentIn, "path", "hand in the bytes"), (AttachmentIn, "href", "hand in the bytes"), (AttachmentIn, "raw", "nobody checked"),
        (AttachmentIn, "encoding", "base64"), (CalendarIn, "path", "nothing is read"), (AlternativeIn, "raw", "unread"),
    ],
)  # fmt: skip
def test_what_is_refused_on_purpose_says_why(within: type[Strict], name: str, reason: str) -> None:
    assert told(within, name).startswith("is refused: ")
    assert reason in told(within, name)


@pytest.mark.parametrize("table", [_HERE, _REFUSED], ids=["here", "refused"])
def test_every_name_of_the_tables_is_answered_by_its_own_sentence(table: dict[type[Strict], dict[str, str]]) -> None:
    for model, names in table.items():
        assert len({plain(name) for name in names}) == len(names), model
        fields = {plain(field.alias or name) for name, field in model.model_fields.items()}
        for name, words in names.items():
            assert plain(name) not in fields, f"{name} is only another spelling"
            assert told(model, name).endswith(words)


def test_what_stands_here_is_a_field_that_there_is() -> None:
    for model, names in _HERE.items():
        fields = {field.alias or name for name, field in model.model_fields.items()}
        for name, words in names.items():
            if not words.startswith(("the ", "POST ", "messages of POST /send/batch")):
                assert re.match(r"[a-z_]+", words)[0] in fields, (name, words)  # type: ignore[index]


def test_each_field_of_nodemailer_that_the_docs_refuse_is_refused_with_a_reason() -> None:
    page = (ROOT / "docs" / "composing.md").read_text(encoding="utf-8").partition("| nodemailer |")[2]
    places = {"": SendIn, "attachments[]": AttachmentIn, "alternatives[]": AlternativeIn, "icalEvent": CalendarIn}
    checked = 0
    for line in page.splitlines():
        first, _, rest = line.removeprefix("| ").partition(" | ")
        for field in re.findall(r"`([^`]+)`", first) if rest.startswith(("refused:", "setting:")) else ():
            outer, _, name = field.rpartition(".")
            if outer in places:
                assert told(places[outer], name).startswith("is refused: "), field
                checked += 1
    assert checked > 30


def test_a_field_from_nowhere_gets_the_list_and_a_misspelt_one_a_guess() -> None:
    with pytest.raises(ValidationFailed) as caught:
        validate(SendIn, {**HELLO, "quux": 1, "subjekt": 2}, Settings(), 0)
    details = {each.pointer: each.detail for each in caught.value.errors}
    assert details["#/quux"].startswith("is not known; known are from, to, ")
    assert details["#/subjekt"] == "is not known; did you mean subject?"
