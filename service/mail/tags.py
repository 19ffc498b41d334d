"""Reads html tag by tag in time that grows with its length, whatever it is.

`html.parser` of the standard library looks through the rest of the text again and again when quotation marks, comments or
tags are not closed: 40 KB of `<a "` take it 10 s, and html comes from callers. The handlers are the same, so a reader
written for the one works with the other. Grammar: HTML standard 13.2.5, as far as tags, attributes, comments and text
go; nothing is repaired, no tree is built.
"""

import re
from html import unescape

Attributes = list[tuple[str, str | None]]

_TOKEN = re.compile(
    r"""<(?:
        !--(?P<comment>.*?)(?:-->|\Z)
      | /(?P<end>[a-zA-Z][^\s/>]*+)[^>]*+(?:>|\Z)
      | (?P<start>[a-zA-Z][^\s/>]*+)(?P<attributes>(?:[^>=]|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?)*+)(?P<closed>>?)
      | [!?/][^>]*+(?:>|\Z)
    )""",
    re.S | re.X,
)
_ATTRIBUTE = re.compile(r"([^\s=/>][^\s=/>]*+)(?:\s*+=\s*+(\"[^\"]*\"|'[^']*'|[^\s>]*+))?")
_RAW = {"script", "style"}  # text up to their end tag, with no references
_TEXT = {"title", "textarea"}  # text up to their end tag
_ENDS = {tag: re.compile(rf"</{tag}(?=[\s/>])", re.I) for tag in _RAW | _TEXT}


class TagReader:
    """To be subclassed: each handler does nothing. `feed` reads a whole text, once."""

    def __init__(self) -> None:
        self._line, self._counted = 1, 0

    def getpos(self) -> tuple[int, int]:
        """(line, 0) of what is being handled."""
        return self._line, 0

    def feed(self, html: str) -> None:
        """Call the handlers, in the order of the text."""
        at = 0
        while (found := _TOKEN.search(html, at)) is not None:
            self._data(html, at, found.start())
            self._to(html, found.start())
            at = found.end()
            if (comment := found["comment"]) is not None:
                self.handle_comment(comment)
            elif (end := found["end"]) is not None:
                self.handle_endtag(end.lower())
            elif found["closed"]:
                at = self._start(html, found)
            elif found["start"]:
                self.handle_unclosed(found["start"].lower())
        self._data(html, at, len(html))

    def close(self) -> None:
        """Nothing is held back."""

    def _start(self, html: str, found: re.Match[str]) -> int:
        tag, attributes = found["start"].lower(), found["attributes"]
        matches = list(_ATTRIBUTE.finditer(attributes))
        given: Attributes = [(each[1].lower(), _value(each[2])) for each in matches]
        if attributes.endswith("/") and not (matches and matches[-1].end() == len(attributes)):  # no value's own slash
            self.handle_startendtag(tag, given)
            return found.end()
        self.handle_starttag(tag, given)
        if tag not in _ENDS:
            return found.end()
        end = _ENDS[tag].search(html, found.end())
        at = len(html) if end is None else end.start()
        if at > found.end():
            text = html[found.end() : at]
            self.handle_data(text if tag in _RAW else unescape(text))
        return at

    def _data(self, html: str, start: int, end: int) -> None:
        if end > start:
            self._to(html, start)
            self.handle_data(unescape(html[start:end]))

    def _to(self, html: str, position: int) -> None:
        self._line += html.count("\n", self._counted, position)
        self._counted = position

    # --- for subclasses ----------------------------------------------------------------------------------------------

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        """`<tag ...>`; names in lower case, values without references, None where there is no `=`."""

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        """`<tag .../>`."""
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """`</tag>`."""

    def handle_data(self, data: str) -> None:
        """Text between tags."""

    def handle_comment(self, data: str) -> None:
        """What stands between `<!--` and `-->`."""

    def handle_unclosed(self, tag: str) -> None:
        """A tag that is cut off by the end of the text."""


def _value(text: str | None) -> str | None:
    if text is None:
        return None
    return unescape(text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text)


def depth_of(html: str) -> int:
    """How deep elements are nested at most, end tags that are left out not thought of."""
    reader = _Depth()
    reader.feed(html)
    return reader.deepest


VOID = {
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
}  # fmt: skip


class _Depth(TagReader):
    def __init__(self) -> None:
        super().__init__()
        self._depth = self.deepest = 0

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        if tag not in VOID:
            self._depth += 1
            self.deepest = max(self.deepest, self._depth)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and self._depth:
            self._depth -= 1
