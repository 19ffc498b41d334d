"""Rules for encoded words (RFC 2047): what rfc_lint's table names."""

import base64
import quopri
import re

from tests.support.rfc_entity import QUOTED, Faults, Message

_WORD = re.compile(r"=\?([^?\s]+)\?([BbQq])\?([^?\s]*)\?=")
_ADDRESS_FIELDS = {"from", "sender", "to", "cc", "reply-to"}
_STRUCTURED = {"message-id", "in-reply-to", "references", "feedback-id", "date", "mime-version", "auto-submitted",
               "content-id", "content-transfer-encoding", "dkim-signature", "importance", "x-priority"}  # fmt: skip


def word_75(message: Message) -> Faults:
    for each in message.every_field():
        yield from (
            f"a word of {len(word[0])} in {each.name}" for word in _WORD.finditer(each.value) if len(word[0]) > 75
        )


def word_line_76(message: Message) -> Faults:
    for each in message.every_field():
        for line in (octets.decode("utf-8", "replace") for octets in each.lines):
            if len(line) > 76 and _WORD.search(line):
                yield f"a line of {len(line)} with an encoded word in {each.name}"


def word_whole(message: Message) -> Faults:
    for each in message.every_field():
        for word in _WORD.finditer(each.value):
            try:
                text = _decoded(*word.groups())
            except (LookupError, ValueError):
                yield f"a word in {each.name} that holds no whole characters: {word[0]}"
                continue
            if re.search(r"[\x00-\x1f\x7f]", text):
                yield f"a word in {each.name} that hides a control character"


def _decoded(charset: str, encoding: str, text: str) -> str:
    if encoding in "Bb":
        return base64.b64decode(text, validate=True).decode(charset)
    return quopri.decodestring(text.replace("_", " "), header=True).decode(charset)


def word_apart(message: Message) -> Faults:
    for each in message.every_field():
        value = re.sub(r'(?<=name=)"[^"]*"', "", each.value) if each.name == "content-type" else each.value
        for word in _WORD.finditer(value):
            around = value[: word.start()][-1:] + value[word.end() :][:1]
            if around.strip(" \t"):
                yield f"a word in {each.name} that no white space sets apart"


def word_quoted(message: Message) -> Faults:
    for each in message.every_field():
        if each.name not in _ADDRESS_FIELDS and not each.name.startswith("content-"):
            continue  # in free text a quotation mark is a character like any other
        value = re.sub(r'(?<=;)\s*name="[^"]*"', "", each.value) if each.name == "content-type" else each.value
        if any(_WORD.search(quoted) for quoted in QUOTED.findall(value)):
            yield f"an encoded word inside quotes in {each.name}"


def word_address(message: Message) -> Faults:
    for each in message.fields(*_ADDRESS_FIELDS):
        if re.search(r"<[^<>]*=\?[^<>]*>|=\?[^?\s]*\?[BbQq]\?[^?\s]*\?=\s*@", each.value):
            yield f"an encoded word in an address of {each.name}"


def word_structured(message: Message) -> Faults:
    for each in message.every_field():
        if (each.name in _STRUCTURED or each.name.startswith("list-")) and _WORD.search(each.value):
            yield f"an encoded word in {each.name}"
