"""Variables of a template: their schema in JSON Schema or a short form, and every fault of a set of them at once.

The short form is for people: `name = "string"`, `note = "string?"` (may be absent), `due = "date"`, tables for objects
and a list of one element for lists. It is expanded to JSON Schema (draft 2020-12), which is what is checked and shown.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import jsonschema_rs

from service.errors import FieldProblem, pointer_step
from service.mail.meter import MOST_CHARACTERS, MOST_LEVELS, MOST_VALUES, too_heavy
from service.mail.schema_load import cost_of, loads_of

_DECIMAL = r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$"
_URL = r"^(https://[^/?#\\]|mailto:.|tel:.|http://(localhost|127\.0\.0\.1|\[::1\])([:/?#]|$))"
KINDS: Mapping[str, Mapping[str, Any]] = {
    "string": {"type": "string", "maxLength": 10_000},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "email": {"type": "string", "format": "email", "maxLength": 254},
    "url": {
        "type": "string",
        "format": "uri",
        "maxLength": 2000,
        "pattern": _URL,
        "description": "An https:, mailto: or tel: URL; http: only for this machine.",
    },
    "amount": {  # a number, or a decimal as text, which no float can spoil
        "anyOf": [{"type": "number"}, {"type": "string", "pattern": _DECIMAL}],
        "description": 'A decimal number, for example 12.5 or "12.50".',
    },
    "currency": {"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 code, for example EUR."},
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MOST_TOLD = 1000  # faults in one answer
_MOST_GUESSES = 20  # names for which a nearest one is looked for
_MOST_ERRORS = 40_000  # that the library may make before it hands out the first: about 7 microseconds each
_MOST_COPIED = 500_000  # values in all of them, as each holds the value that it is about
_MOST_COPIED_FOR_ONE = 5_000_000  # it may hold others, one for each schema of an anyOf
_MOST_READ = 100_000_000  # characters, if every rule read every text
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=64 * 1024)  # in time that grows with the text, without look-around


def expand_schema(given: Any) -> dict[str, Any]:
    """JSON Schema of `[variables]`, which is one already (`type = "object"`) or the short form. Raises ValueError."""
    if not isinstance(given, dict):
        raise ValueError("must be a table")
    if given.get("type") == "object":
        return dict(given)
    return _object(given, "")


def _object(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for key, value in given.items():
        name, optional = key.removesuffix("?"), key.endswith("?")
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{place}{key}: a name is letters, digits and underscores, beginning with a letter")
        if isinstance(value, str) and value.endswith("?"):
            value, optional = value[:-1], True
        properties[name] = _value(value, f"{place}{name}.")
        if not optional:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _value(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return _object(value, place)
    if isinstance(value, list) and len(value) == 1:
        return {"type": "array", "items": _value(value[0], place), "maxItems": 1000}
    if isinstance(value, str) and value in KINDS:
        return dict(KINDS[value])
    raise ValueError(f"{place[:-1]}: must be one of {', '.join(KINDS)}, a table, or a list of one of these")


class Variables:
    """A compiled schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises ValueError when `schema` is no JSON Schema of draft 2020-12, or one that could cost too much."""
        try:
            plain = dict(schema)
            jsonschema_rs.meta.validate(plain)
            self._loads = loads_of(plain)
            self._characters = min(MOST_CHARACTERS, _MOST_READ // max(self._loads))
            self._validator = jsonschema_rs.Draft202012Validator(
                plain, validate_formats=True, retriever=_no_retrieving, pattern_options=_PATTERNS
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise ValueError(str(error).partition("\n")[0]) from None
        self._schema = schema

    def problems(self, variables: Mapping[str, Any], pointer: str) -> list[FieldProblem]:
        """All faults at once, each at its own pointer below `pointer`: missing, misspelt, mistyped.

        Of very many variables that fit in very many ways not, only the first fault, or none by its place.
        """
        if too_heavy(variables, self._characters):
            detail = f"hold more than {MOST_VALUES} values, {MOST_LEVELS} levels or {self._characters} characters"
            return [FieldProblem(f"#{pointer}", "variables_too_large", detail)]
        if self._validator.is_valid(variables):
            return []
        found: list[FieldProblem] = []
        for error in self._errors(variables):
            place = "#" + pointer + "".join(f"/{pointer_step(str(step))}" for step in error.instance_path)
            found += self._of(error, place)
            if len(found) > _MOST_TOLD:
                break
        detail = "do not fit the schema, and are too many to say where"
        return sorted(found[:_MOST_TOLD], key=lambda problem: problem.pointer) or [
            FieldProblem(f"#{pointer}", "invalid_variable", detail)
        ]

    def _errors(self, variables: Mapping[str, Any]) -> Iterable[jsonschema_rs.ValidationError]:
        """The library makes all errors before it hands out the first one, so there is a bound before it is asked."""
        cost = cost_of(self._loads, variables)
        if cost.errors <= _MOST_ERRORS and cost.copied <= _MOST_COPIED:
            return self._validator.iter_errors(variables)
        if cost.copied <= _MOST_COPIED_FOR_ONE:
            try:
                self._validator.validate(variables)
            except jsonschema_rs.ValidationError as first:
                return [first]
        return []

    def _of(self, error: jsonschema_rs.ValidationError, place: str) -> list[FieldProblem]:
        kind = error.kind.as_dict()
        if error.kind.name == "required":
            return [FieldProblem(f"{place}/{pointer_step(kind['property'])}", "missing", "is missing")]
        if error.kind.name in {"additionalProperties", "unevaluatedProperties"}:
            known = self._names(error)
            return [
                FieldProblem(
                    f"{place}/{pointer_step(name)}",
                    "unknown_variable",
                    _did_you_mean(name, known if n < _MOST_GUESSES else ()),
                )
                for n, name in enumerate(kind["unexpected"][:_MOST_TOLD])
            ]
        return [FieldProblem(place, "invalid_variable", f"must satisfy {error.kind.name}{self._rule(error)}")]

    def _names(self, error: jsonschema_rs.ValidationError) -> Sequence[str]:
        try:
            return list(self._at(error.schema_path[:-1]).get("properties", {}))
        except (LookupError, TypeError, AttributeError):  # behind a $ref
            return ()

    def _rule(self, error: jsonschema_rs.ValidationError) -> str:
        """What the schema says there. The library's own words show the value, and a variable may be a secret."""
        try:
            described = self._at(error.schema_path[:-1]).get("description")
            if error.kind.name == "pattern" and isinstance(described, str):
                return f": {described}"
            return f": {_short(self._at(error.schema_path))}"
        except (LookupError, TypeError, AttributeError):  # behind a $ref
            return ""

    def _at(self, path: Sequence[str | int]) -> Any:
        at: Any = self._schema
        for step in path:
            at = at[step]
        return at


def _no_retrieving(uri: str) -> Any:
    """A schema that refers elsewhere would make us fetch it."""
    raise ValueError(f"$ref to {uri} is not allowed: a schema refers only to itself")


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"is not known; did you mean {near[0]}?" if near else "is not known to this template"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."
