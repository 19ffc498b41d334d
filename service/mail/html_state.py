"""Html read piece by piece: in what kind of place does a text end, that began in another?

What Jinja puts between two static texts stands in such a place. As HTML standard 13.2.5 has it, as far as tags, attributes
and comments go; what stands in a comment is read like html, since Outlook shows what stands in conditional ones.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

_RAW = {"iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"}  # hold text up to their end tag
_DECIDED = re.compile(r"[:/?#]")  # the scheme lies before it, or there is none (RFC 3986 4.2)


class In(Enum):
    """What a place is part of."""

    TEXT = auto()
    OPEN = auto()  # after a `<` at the end of a text
    NAME = auto()  # of a tag
    TAG = auto()  # between attributes
    ATTRIBUTE = auto()  # its name
    AFTER = auto()  # the name, before a `=`
    BEFORE = auto()  # the value, after the `=`
    QUOTED = auto()
    BARE = auto()  # a value without quotation marks


@dataclass(frozen=True, slots=True)
class State:
    """A place in html, as far as it has been read."""

    where: In = In.TEXT
    comment: bool = False
    tag: str = ""
    raw: bool = False  # in the text of an element whose text is no html
    attribute: str = ""
    quote: str = ""
    decided: bool = False  # the value has begun with something that no expression can make into another scheme


_MARKUP = re.compile(r"<(?=[a-zA-Z])|<!--|<\Z")
_NAME_END = re.compile(r"[\s/>]")
_ATTRIBUTE_END = re.compile(r"[\s/>=]")
_BARE_END = re.compile(r"[\s>]")
_BETWEEN_END = re.compile(r"[^\s/]")
_VISIBLE = re.compile(r"\S")


def advance(state: State, text: str) -> State:
    """The state after a static text."""
    at = 0
    while at < len(text):
        if state.comment:  # it ends with `-->`, whatever stands in it
            end = text.find("-->", at)
            state = _in_comment(state, text[at:] if end < 0 else text[at:end])
            state, at = (state, len(text)) if end < 0 else (State(), end + 3)
        else:
            state, at = _STEPS[state.where](state, text, at)
    return state


def _in_comment(state: State, text: str) -> State:
    at = 0
    while at < len(text):
        state, at = _STEPS[state.where](state, text, at)
    return state


def _in_text(state: State, text: str, at: int) -> tuple[State, int]:
    if state.raw:
        end = re.compile(rf"</{state.tag}(?=[\s/>]|\Z)", re.I).search(text, at)
        return (replace(state, raw=False), end.end()) if end else (state, len(text))
    found = _MARKUP.search(text, at)
    if found is None:
        return state, len(text)
    if found[0] == "<!--":
        return replace(state, comment=True), found.end()
    where = In.OPEN if found.end() == len(text) else In.NAME
    return State(where, comment=state.comment), found.end()


def _in_open(state: State, text: str, at: int) -> tuple[State, int]:
    return replace(state, where=In.NAME if text[at].isalpha() else In.TEXT), at


def _in_name(state: State, text: str, at: int) -> tuple[State, int]:
    end = _end(_NAME_END, text, at)
    where = In.TAG if end < len(text) else In.NAME
    return replace(state, where=where, tag=state.tag + text[at:end].lower()), end


def _in_tag(state: State, text: str, at: int) -> tuple[State, int]:
    at = _end(_BETWEEN_END, text, at)
    if at == len(text):
        return state, at
    if text[at] == ">":
        raw = state.tag in _RAW
        return State(comment=state.comment, tag=state.tag if raw else "", raw=raw), at + 1
    return replace(state, where=In.ATTRIBUTE, attribute="", decided=False), at


def _in_attribute(state: State, text: str, at: int) -> tuple[State, int]:
    first = at + (text[at] == "=" and not state.attribute)  # HTML standard 13.2.5.32: a name may begin with it
    end = _end(_ATTRIBUTE_END, text, first)
    where = In.AFTER if end < len(text) else In.ATTRIBUTE
    return replace(state, where=where, attribute=state.attribute + text[at:end].lower()), end


def _in_after(state: State, text: str, at: int) -> tuple[State, int]:
    at = _end(_VISIBLE, text, at)
    if at == len(text):
        return state, at
    return (replace(state, where=In.BEFORE), at + 1) if text[at] == "=" else (replace(state, where=In.TAG), at)


def _in_before(state: State, text: str, at: int) -> tuple[State, int]:
    at = _end(_VISIBLE, text, at)
    if at == len(text):
        return state, at
    if text[at] in "\"'":
        return replace(state, where=In.QUOTED, quote=text[at], decided=False), at + 1
    return replace(state, where=In.TAG if text[at] == ">" else In.BARE), at


def _in_quoted(state: State, text: str, at: int) -> tuple[State, int]:
    end = text.find(state.quote, at)
    part = text[at:] if end < 0 else text[at:end]
    if end < 0:
        return replace(state, decided=state.decided or _DECIDED.search(part) is not None), len(text)
    return replace(state, where=In.TAG, attribute="", quote="", decided=False), end + 1


def _in_bare(state: State, text: str, at: int) -> tuple[State, int]:
    end = _end(_BARE_END, text, at)
    return replace(state, where=In.TAG if end < len(text) else In.BARE), end


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.search(text, at)
    return found.start() if found else len(text)


_STEPS: dict[In, Callable[[State, str, int], tuple[State, int]]] = {
    In.TEXT: _in_text,
    In.OPEN: _in_open,
    In.NAME: _in_name,
    In.TAG: _in_tag,
    In.ATTRIBUTE: _in_attribute,
    In.AFTER: _in_after,
    In.BEFORE: _in_before,
    In.QUOTED: _in_quoted,
    In.BARE: _in_bare,
}
