"""Rules for MIME (RFC 2045, 2046, 2183, 2231, 2387) and for lists (RFC 2369, 8058): what rfc_lint's table names."""

import base64
import binascii
import re

from tests.support.rfc_entity import Faults, Message, parameters, unquoted, without_parameters

_TOKEN = r"[!#$%&'*+.^_`{|}~A-Za-z0-9-]+"
_ENCODINGS = {"7bit", "8bit", "quoted-printable", "base64"}


def mime_version(message: Message) -> Faults:
    yield from (f"MIME-Version {each.value}" for each in message.fields("mime-version") if each.value != "1.0")


def content_type(message: Message) -> Faults:
    for entity in message.root.walk():
        value = entity.get("content-type")
        names = [name for name, _ in parameters(value)]
        if re.fullmatch(rf"{_TOKEN}/{_TOKEN}", without_parameters(value)) is None:
            yield f"no media type: {value[:60]}"
        if len(set(names)) < len(names):
            yield f"a parameter twice: {value[:60]}"


def disposition(message: Message) -> Faults:
    for each in message.every_field():
        if each.name == "content-disposition" and without_parameters(each.value) not in {"attachment", "inline"}:
            yield f"no disposition: {each.value[:60]}"


def parameter_syntax(message: Message) -> Faults:
    for each in message.every_field():
        if each.name in {"content-type", "content-disposition"}:
            yield from _extended(each.name, parameters(each.value))
            for name, raw in parameters(each.value):
                if re.fullmatch(rf'{_TOKEN}|"(?:[^"\\\r\n]|\\.)*"', raw) is None:
                    yield f"{name} of {each.name} is neither token nor quoted string"


def _extended(field: str, given: list[tuple[str, str]]) -> Faults:
    """RFC 2231 3 and 4: sections are numbered from 0 without gaps; charset and percent encoding in those with `*`."""
    for base in {name.partition("*")[0] for name, _ in given if "*" in name}:
        own = [(name.removeprefix(base), raw) for name, raw in given if name.startswith(f"{base}*")]
        marks = [mark for mark, _ in own]
        if marks != ["*"] and [mark.removesuffix("*") for mark in marks] != [f"*{n}" for n in range(len(marks))]:
            yield f"{base} of {field} has the sections {marks}"
        extended = "".join(raw for mark, raw in own if mark.endswith("*"))
        found = re.fullmatch(r"([A-Za-z0-9-]+)'[A-Za-z0-9-]*'((?:[!#$&+.^_`|~A-Za-z0-9-]|%[0-9A-F]{2})*)", extended)
        try:
            octets = re.sub(
                rb"%([0-9A-F]{2})", lambda hit: bytes([int(hit[1], 16)]), found[2].encode() if found else b"\xff"
            )
            octets.decode(found[1] if found else "utf-8")
        except (LookupError, ValueError):
            yield f"{base} of {field} is no extended value: {extended[:60]}"


def encoding(message: Message) -> Faults:
    for entity in message.root.walk():
        if entity.encoding not in _ENCODINGS:
            yield f"the transfer encoding {entity.encoding}"
        if entity.encoding in {"7bit", "base64", "quoted-printable"} and not entity.parts and not entity.body.isascii():
            yield f"octets over 127 in a body that is {entity.encoding}"


def composite(message: Message) -> Faults:
    for entity in message.root.walk():
        if entity.type.startswith(("multipart/", "message/")) and entity.encoding not in {"7bit", "8bit"}:
            yield f"{entity.type} is {entity.encoding}"


def boundary(message: Message) -> Faults:
    for entity in message.root.walk():
        if not entity.type.startswith("multipart/"):
            continue
        boundary = entity.boundary or ""
        if re.fullmatch(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", boundary) is None:
            yield f"no boundary: {boundary!r}"


def boundary_inside(message: Message) -> Faults:
    for entity in message.root.walk():
        if not entity.boundary:
            continue
        inner = [each for each in entity.walk() if each is not entity]
        if any(entity.boundary.encode() in each.body for each in inner if not each.parts):
            yield f"{entity.boundary} occurs in a body"
        if any((each.boundary or "").startswith(entity.boundary) for each in inner):
            yield f"{entity.boundary} begins an inner boundary"
        if any(rest not in (b"", b"--") for rest in entity.delimiters) or not all(part.fields for part in entity.parts):
            yield f"{entity.boundary} stands where no part begins"


def boundary_closing(message: Message) -> Faults:
    for entity in message.root.walk():
        if entity.boundary and (entity.delimiters[-1:] != [b"--"] or entity.delimiters.count(b"--") != 1):
            yield f"{entity.boundary} is not closed at the end"
        if entity.boundary and (entity.preamble.strip() or entity.epilogue.strip()):
            yield "text before the first or after the last part"


def base64_body(message: Message) -> Faults:
    for leaf in message.leaves():
        if leaf.encoding != "base64":
            continue
        lines = leaf.body.removesuffix(b"\r\n").split(b"\r\n")
        if any(len(line) > 76 for line in lines):
            yield "a line over 76"
        try:
            base64.b64decode(b"".join(lines), validate=True)
        except binascii.Error as error:
            yield str(error)


def quoted_printable_body(message: Message) -> Faults:
    for leaf in message.leaves():
        for line in leaf.body.split(b"\r\n") if leaf.encoding == "quoted-printable" else ():
            if len(line) > 76:
                yield f"a line of {len(line)}"
            if line[-1:] in (b" ", b"\t"):
                yield "white space at the end of a line"
            if re.fullmatch(rb"(?:[\t -<>-~]|=[0-9A-F]{2})*=?", line) is None:
                yield f"no escape: {line[:76]!r}"


def related(message: Message) -> Faults:
    for entity in message.root.walk():
        if entity.type == "multipart/related":
            given = unquoted(dict(parameters(entity.get("content-type"))).get("type", ""))
            if given != next((part.type for part in entity.parts), None):
                yield f"type={given!r} is not the type of the root"


def content_id(message: Message) -> Faults:
    seen: set[str] = set()
    for each in message.every_field():
        if each.name == "content-id":
            if re.fullmatch(r"<[!-;=?-~]+>", each.value) is None or each.value in seen:
                yield f"no content id, or not unique: {each.value}"
            seen.add(each.value)


def list_unsubscribe(message: Message) -> Faults:
    for each in message.fields("list-unsubscribe"):
        if re.fullmatch(r"<(?:https|mailto):[!-;=?-~]+>(?:, <(?:https|mailto):[!-;=?-~]+>)*", each.value) is None:
            yield f"no list of URLs: {each.value[:60]}"


def one_click(message: Message) -> Faults:
    for each in message.fields("list-unsubscribe-post"):
        if each.value != "List-Unsubscribe=One-Click" or "<https:" not in message.root.get("list-unsubscribe"):
            yield "one click without an https URL, or with another value"
