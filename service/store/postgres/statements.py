"""Named statements with their bindings, in the form that PostgreSQL's protocol takes: `$1` and values in order.

No statement is prepared by name, so a pooler may give each transaction another connection. Text can't hold the
character NUL there: it is kept as U+FFFD, which is what every reader would show for it.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from service.store.queries import load_queries

_BINDING = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
_COMMENT = re.compile(r"^--.*$", re.M)
_NUL, _SHOWN = "\0", "\ufffd"


class Statement(NamedTuple):
    """A statement that can be sent."""

    name: str
    text: str
    values: tuple[Any, ...]


class _Template(NamedTuple):
    text: str
    names: tuple[str, ...]


BEGIN = Statement("begin", "BEGIN", ())
BEGIN_READING = Statement("begin", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())  # one snapshot for all
COMMIT = Statement("commit", "COMMIT", ())
ROLLBACK = Statement("rollback", "ROLLBACK", ())


@cache
def _templates() -> dict[str, _Template]:
    return {name: _template(text) for name, text in load_queries("postgres").items()}


def _template(text: str) -> _Template:
    body = _COMMENT.sub("", text).strip().rstrip(";")
    names = tuple(dict.fromkeys(_BINDING.findall(body)))
    return _Template(_BINDING.sub(lambda found: f"${names.index(found[1]) + 1}", body), names)


def statement(name: str, bindings: Mapping[str, Any] | None = None) -> Statement:
    """The statement of that name. A list of dicts becomes one JSON text; every name in it must be bound."""
    template = _templates()[name]
    given = bindings or {}
    return Statement(name, template.text, tuple(_value(given[each]) for each in template.names))


def _value(given: Any) -> Any:
    if isinstance(given, str):
        return _storable(given)
    if isinstance(given, list) and given and isinstance(given[0], dict):
        return _storable(_json(given))
    return given


def _storable(text: str) -> str:
    """Without NUL, and without halves of surrogate pairs, which UTF-8 can't hold either."""
    text = text.replace(_NUL, _SHOWN)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _json(rows: list[dict[str, Any]]) -> str:
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    if r"\u0000" not in text:
        return text
    clean = [
        {name: each.replace(_NUL, _SHOWN) if isinstance(each, str) else each for name, each in row.items()}
        for row in rows
    ]
    return json.dumps(clean, ensure_ascii=False, separators=(",", ":"))
