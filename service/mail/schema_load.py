"""What it may cost to check variables against a JSON Schema, known from the schema alone.

`$ref`s that double, or that lead back to themselves, make a few lines of schema into millions of rules, and the library
makes an error of each rule that fails. So a schema is read once, at load: how many rules can meet one value, level by
level of nesting? Too many are refused, and so is what makes the answer depend on more than the schema's text: recursion,
`$dynamicRef`, anchors, ids. With the loads and a set of variables it is known beforehand how many errors there can be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from urllib.parse import unquote

MOST_RULES = 1000  # that meet one value
_DEEPEST = 64  # schemas inside of one another, with those that a $ref leads to
_CHARACTERS = 64  # of text that cost as much as one value

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REFUSED = {"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef", "$vocabulary"}
_SILENT = {"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly", "$schema", "$id"}  # fmt: skip
_DEFINITIONS = {"$defs", "definitions"}
_SAME_VALUE = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"}
_TRIED_FIRST = _SAME_VALUE - {"allOf"}  # looked at once to see whether it fits, and again to tell why not
_ONE_OF_THEM = {"properties", "prefixItems"}  # each value inside meets one of these schemas
_EACH = {"items", "additionalItems", "additionalProperties", "contains", "patternProperties", "propertyNames",
         "unevaluatedItems", "unevaluatedProperties"}  # fmt: skip
_UNEVALUATED = {"unevaluatedItems", "unevaluatedProperties"}  # look at everything beside them again
_NAMES = 20  # of `properties` that cost as much as a rule

Loads = list[int]  # rules that can meet one value, by its level: 0 is the outermost


@dataclass(frozen=True, slots=True)
class Cost:
    """What telling the faults of a set of variables can cost at most."""

    errors: int
    copied: int  # values, as each error holds the value that it is about


def loads_of(schema: Mapping[str, Any]) -> Loads:
    """Raises ValueError for a schema that could cost too much, or whose cost can't be known. `schema` must be valid."""
    declared = schema.get("$schema", _DRAFT)
    if str(declared).removesuffix("#") != _DRAFT:
        raise ValueError("$schema: the draft is 2020-12")
    loads = _Reader(schema).loads(schema, 0).loads
    if max(loads) > MOST_RULES:
        raise ValueError(f"more than {MOST_RULES} rules would meet one value ($ref and anyOf multiply)")
    return loads


def cost_of(loads: Loads, value: Any) -> Cost:
    """`value`: plain data."""
    sizes = _sizes(value)
    errors = sum(load * values for load, (values, _) in zip(loads, sizes, strict=False))
    weights = [values + characters // _CHARACTERS for values, characters in sizes]
    copied = sum(load * sum(weights[level:]) for level, load in enumerate(loads[: len(weights)]))
    return Cost(errors, copied)


def _sizes(value: Any) -> list[tuple[int, int]]:
    """(values, characters) on each level."""
    sizes: list[tuple[int, int]] = []
    level: list[Any] = [value]
    while level:
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        sizes.append((len(level), sum(len(each) for each in level if isinstance(each, str))))
        level = inner
    return sizes


@dataclass(frozen=True, slots=True)
class _Read:
    loads: Loads
    height: int


class _Reader:
    """Reads each schema once, however many refer to it."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._read: dict[int, _Read] = {}  # by identity: a schema is one object, whatever leads to it
        self._open: set[int] = set()

    def loads(self, schema: Any, depth: int) -> _Read:
        if not isinstance(schema, dict):  # true or false
            return _Read([1], 1)
        if (known := self._read.get(id(schema))) is None:
            if id(schema) in self._open:
                raise ValueError("a $ref leads back to itself: variables have a depth that is known")
            if depth > _DEEPEST:
                raise ValueError("is nested too deeply")
            self._open.add(id(schema))
            known = self._read[id(schema)] = self._of(schema, depth + 1)
            self._open.remove(id(schema))
        if known.height > _DEEPEST:
            raise ValueError("is nested too deeply")
        return known

    def _of(self, schema: Mapping[str, Any], depth: int) -> _Read:
        self._check(schema)
        own, heights = 0, [0]
        parts: list[Loads] = []
        twice = 2 if _UNEVALUATED & set(schema) else 1
        for keyword, value in schema.items():
            read = [self.loads(each, depth) for each in self._schemas(keyword, value)]
            heights += [each.height for each in read]
            loads = [each.loads for each in read]
            if keyword in _SAME_VALUE or keyword == "$ref":
                times = twice * (2 if keyword in _TRIED_FIRST else 1)
                parts += [[load * times for load in each] for each in loads]
            elif keyword in _ONE_OF_THEM:
                parts.append([0, *_highest(loads)])
                own += 1 + len(value) // _NAMES
            elif keyword in _EACH:
                parts += [[0, *each] for each in loads]
                own += 1
            elif keyword not in _SILENT | _DEFINITIONS:
                own += _count(value)
        return _Read(_sum([[max(own, 1)], *parts]), 1 + max(heights))

    def _check(self, schema: Mapping[str, Any]) -> None:
        if refused := sorted(_REFUSED & set(schema)):
            raise ValueError(f"{refused[0]} is not allowed: `#/$defs/NAME` is how a schema refers to another")
        if schema is not self._root and {"$id", "$schema"} & set(schema):
            raise ValueError("$id and $schema stand outermost")
        if schema.get("format") == "regex":
            raise ValueError("the format regex is not allowed")

    def _schemas(self, keyword: str, value: Any) -> Iterable[Any]:
        """The schemas that stand in the value of a keyword, or that it refers to."""
        if keyword == "$ref":
            return [self._target(str(value))]
        if keyword not in _SAME_VALUE | _ONE_OF_THEM | _EACH | _DEFINITIONS:
            return []
        if isinstance(value, list):
            return value
        several = keyword in {"properties", "patternProperties", "dependentSchemas", "dependencies", *_DEFINITIONS}
        return list(value.values()) if several and isinstance(value, dict) else [value]

    def _target(self, ref: str) -> Any:
        if ref != "#" and not ref.startswith("#/"):
            raise ValueError(f"$ref to {ref[:100]} is not allowed: a schema refers only to itself, as `#/$defs/NAME`")
        at: Any = self._root
        for step in unquote(ref).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            try:
                at = at[int(step)] if isinstance(at, list) else at[step]
            except (LookupError, TypeError, ValueError):
                raise ValueError(f"$ref to {ref[:100]} leads nowhere") from None
        if not isinstance(at, dict | bool):
            raise ValueError(f"$ref to {ref[:100]} leads to no schema")
        return at


def _sum(parts: Sequence[Loads]) -> Loads:
    return [sum(each) for each in zip_longest(*parts, fillvalue=0)]


def _highest(parts: Sequence[Loads]) -> Loads:
    return [max(each) for each in zip_longest(*parts, fillvalue=0)]


def _count(value: Any) -> int:
    """How many values the value of a keyword is made of: an enum is compared one by one."""
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1
