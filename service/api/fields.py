"""Field types of the request models: each checks its grammar and describes itself in JSON Schema."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import pybase64
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from service.durations import parse_duration
from service.errors import PostroomError
from service.mail.address import FORBIDDEN, SEVERAL, Mailbox, make_mailbox, parse_mailbox

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LOCALE = r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$"
_KEY = r"^[\x20-\x7e]{1,256}$"
_CATEGORY = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
PATTERNS = {  # what is said of a text that does not fit
    _LOCALE: "must be a language tag such as en or zh-CN (BCP 47)",
    _KEY: "must be 1 to 256 printable ASCII characters",
    _CATEGORY: "must be 1 to 64 lower-case letters, digits, dots, hyphens or underscores",
}


def refuse(code: str, detail: str) -> PydanticCustomError:
    """A fault of one field."""
    return PydanticCustomError("postroom", "{detail}", {"code": code, "detail": detail})


_ADDRESS_DETAIL = 'must be "a@b", "Name <a@b>" or {"email": "a@b", "name": "Name"}'
# what others call the two parts of an address
_ADDRESS_PARTS = {
    "address": "email", "mail": "email", "emailaddress": "email", "displayname": "name", "display_name": "name",
}  # fmt: skip


def _address(value: Any, parse: Callable[[str, str], Mailbox] = parse_mailbox) -> Mailbox:
    if isinstance(value, Mailbox):
        return value
    try:
        if isinstance(value, str):
            return parse(value, "")
        if isinstance(value, dict):
            return _mailbox_of(value)
    except PostroomError as error:
        raise refuse(error.errors[0].code, error.errors[0].detail) from None
    raise refuse("invalid_address", _ADDRESS_DETAIL)


def _mailbox_of(value: dict[str, Any]) -> Mailbox:
    if unknown := sorted(set(value) - {"email", "name"}):
        known = {name: _ADDRESS_PARTS.get(name.lower()) for name in unknown}
        told = [f"{name} is not known; here it is {here}" for name, here in known.items() if here]
        strange = [name[:60] for name, here in known.items() if not here]
        told += [f"{', '.join(strange[:3])} is not known; an address has email and name"] if strange else []
        raise refuse("unknown_field", "; ".join(told))
    email, name = value.get("email"), value.get("name")
    if not isinstance(email, str) or not isinstance(name, str | None):
        raise refuse("invalid_address", _ADDRESS_DETAIL)
    return make_mailbox(email, name or "", "")


_parsed_before = lru_cache(maxsize=1024)(parse_mailbox)  # senders are few, and the same in most requests


def _one_address(value: Any) -> Mailbox:
    """Where a list would not help."""
    if isinstance(value, list):
        raise refuse("invalid_address", "takes one address, not a list")
    try:
        return _address(value, _parsed_before)
    except PydanticCustomError as error:
        if (error.context or {}).get("detail") == SEVERAL:
            raise refuse("invalid_address", "takes one address") from None
        raise


_ADDRESS_SCHEMA = {
    "title": "Address",
    "anyOf": [
        {"type": "string", "maxLength": 600, "examples": ["zoucz <zouchengzhuo@163.com>"]},
        {
            "type": "object",
            "properties": {
                "email": {"type": "string", "maxLength": 254},
                "name": {"type": ["string", "null"], "maxLength": 320},
            },
            "required": ["email"],
            "additionalProperties": False,
        },
    ],
}
Address = Annotated[Mailbox, PlainValidator(_one_address), WithJsonSchema(_ADDRESS_SCHEMA)]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Addresses = Annotated[
    list[Annotated[Mailbox, PlainValidator(_address)]],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_ADDRESS_SCHEMA, {"type": "array", "items": _ADDRESS_SCHEMA}]}),
]


def _line(value: str) -> str:
    if FORBIDDEN.search(value):
        raise refuse("control_character", "holds a control character")
    return value


def _body(value: str) -> str:
    if "\0" in value:
        raise refuse("control_character", "holds a NUL character")
    return value


Line = Annotated[str, AfterValidator(_line)]
Locale = Annotated[str, StringConstraints(pattern=_LOCALE)]
Key = Annotated[str, StringConstraints(pattern=_KEY)]
Category = Annotated[str, StringConstraints(pattern=_CATEGORY)]
Body = Annotated[str, AfterValidator(_body)]


References = Annotated[
    list[Annotated[Line, StringConstraints(max_length=500)]],
    BeforeValidator(_listed),
    Field(max_length=100),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": 500},
                {"type": "array", "items": {"type": "string", "maxLength": 500}, "maxItems": 100},
            ]
        }
    ),
]


def _header(value: Any) -> list[str]:
    values = _listed(value)
    if not 1 <= len(values) <= 20 or not all(isinstance(each, str) for each in values):
        raise refuse("invalid_header_value", "must be text, or a list of 1 to 20 texts")
    return list(values)


HeaderValues = Annotated[
    list[str],
    PlainValidator(_header),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 20}]}
    ),
]

OneOrTwoLines = Annotated[
    list[Annotated[Line, StringConstraints(max_length=908)]],  # a URL of 900 behind `https://`: it must fit a line
    BeforeValidator(_listed),
    Field(max_length=2),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": 908},
                {"type": "array", "items": {"type": "string", "maxLength": 908}, "maxItems": 2},
            ]
        }
    ),
]


def _never_alone(values: list[str]) -> list[str]:
    if "never" in values and len(values) > 1:
        raise refuse("invalid_notify", "`never` excludes the others (RFC 3461 4.1)")
    return list(dict.fromkeys(values))


_NOTIFY = {"type": "string", "enum": ["success", "failure", "delay", "never"]}
Notify = Annotated[
    list[Literal["success", "failure", "delay", "never"]],
    BeforeValidator(_listed),
    AfterValidator(_never_alone),
    WithJsonSchema({"anyOf": [_NOTIFY, {"type": "array", "items": _NOTIFY, "maxItems": 4}]}),
]


def _moment(value: Any) -> int:
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        raise refuse("invalid_time", "must be RFC 3339 with an offset, for example 2026-11-24T18:00:00+08:00")
    try:
        return int(datetime.fromisoformat(value.upper().replace(" ", "T")).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise refuse("invalid_time", "is no date and time of the calendar") from None


Moment = Annotated[
    int,
    PlainValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2099-01-01T09:00:00+08:00"]}),
]


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refuse("invalid_duration", "must be seconds or text such as `10m`")
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        raise refuse("invalid_duration", "must be seconds or text such as `10m`, `1h30m`, `4d`") from None
    if not 1 <= seconds < 10**9:
        detail = "must be at least one second" if seconds < 1 else "is longer than 30 years"
        raise refuse("invalid_duration", detail)
    return seconds


Duration = Annotated[
    float,
    PlainValidator(_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 1},
                {"type": "string", "examples": ["10m"], "pattern": "^[0-9.a-z]+$"},
            ]
        }
    ),
]


def _base64(value: Any, info: ValidationInfo) -> bytes:
    """`info.context`: what was decoded already, by the identity of the text (which stays with it, so that it is the same)."""
    shared: dict[int, tuple[str, bytes]] | None = info.context
    if shared is not None and id(value) in shared:
        return shared[id(value)][1]
    content = _decoded(value)
    if shared is not None:
        shared[id(value)] = (value, content)
    return content


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str) or not value.isascii():
        raise refuse("invalid_base64", "must be standard base64 (RFC 4648 section 4)")
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError:
        raise refuse(
            "invalid_base64", "must be standard base64 (RFC 4648 section 4), padded, without line breaks"
        ) from None


Base64 = Annotated[
    bytes,
    PlainValidator(_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "examples": ["JVBERi0="]}),
]


def _labels(value: Any) -> list[tuple[str, str]]:
    """Tags: a list of names, or an object of name and value."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = dict.fromkeys(value, "")
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise refuse("invalid_tags", "must be a list of names, or an object of names and text values")
    for name, text in value.items():
        if _LABEL.fullmatch(name) is None:
            raise refuse("invalid_tags", "a tag's name is 1 to 64 letters, digits, dots, hyphens or underscores")
        if len(text) > 256 or FORBIDDEN.search(text):
            raise refuse("invalid_tags", "a tag's value is at most 256 characters, without control characters")
    return list(value.items())


Tags = Annotated[
    list[tuple[str, str]],
    PlainValidator(_labels),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "maxLength": 64}},
                {"type": "object", "additionalProperties": {"type": "string", "maxLength": 256}},
            ],
            "examples": [["welcome"], {"campaign": "spring"}],
        }
    ),
]


def _metadata(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if _LABEL.fullmatch(name) is None:
            raise refuse("invalid_metadata", "a name is 1 to 64 letters, digits, dots, hyphens or underscores")
        if len(text) > 512:
            raise refuse("invalid_metadata", "a value is at most 512 characters")
        if "\0" in text:
            raise refuse("control_character", "a value holds a NUL character")
    return value


Metadata = Annotated[dict[str, str], AfterValidator(_metadata)]
