"""CSS inlined at load: what the style elements of a template say is written into the style attributes of its tags.

Many readers of mail drop style elements. css-inline decides which declarations each element gets; only the style
attributes are taken over, so that the rest of the author's html stays as it was written. It runs once, on a skeleton in
which every expression is a token and every statement a comment. Where that can't be known before rendering (a
statement inside of a tag, a selector that counts siblings, an expression in a place where html allows no text), `Inlined`
says so, and the rendered html is inlined message by message instead. What that may cost is bounded by mail/css_cost.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from html import escape
from itertools import accumulate

import css_inline
from jinja2 import nodes

from service.mail.css_cost import AT_RULE, STYLE_ELEMENT, check_selectors, too_much
from service.mail.tags import Attributes, TagReader

_MARK = "data-postroom-inline"
# what is not closed is read to its end, once, instead of being looked for again from the next place
_START_TAG = re.compile(r"<([a-zA-Z][a-zA-Z0-9-]*+)(?:[^<>\"'/]|/(?!>)|\"[^\"]*\"|'[^']*')*+/?(>?)")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_STYLE_ATTRIBUTE = re.compile(r"\sstyle\s*=\s*(?:\"[^\"]*\"|'[^']*')", re.I)
_TOKEN = re.compile(r"pRx[0-9]+x")
_SIBLINGS = re.compile(r"[+~]|:(?:nth|first|last|only|empty|has|not)")
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.S)

_inliner = css_inline.CSSInliner(keep_style_tags=True, keep_at_rules=True, load_remote_stylesheets=False)


def needs_inlining(html: str) -> bool:
    """Whether a style element holds rules beside at-rules, which stay where they are."""
    return any(_plain_rules(found[1]).strip() for found in STYLE_ELEMENT.finditer(html))


def _plain_rules(css: str) -> str:
    return AT_RULE.sub("", _CSS_COMMENT.sub("", css))


def inline_rendered(html: str) -> str:
    """Rendered html with its CSS inlined; the html as it was when css-inline can't read it. Raises CostlySelector."""
    check_selectors(html)
    if too_much(html):
        return html
    try:
        return _inliner.inline(html)
    except (css_inline.InlineError, ValueError):
        return html


@dataclass(slots=True)
class Inlined:
    """How a template's CSS was treated."""

    ahead: bool  # at load; False: message by message
    reason: str = ""


@dataclass(slots=True)
class _Skeleton:
    """The html with tokens for expressions and comments for statements, and the texts it was made of."""

    pieces: list[str]
    texts: dict[int, nodes.TemplateData]  # index of a piece -> the node that holds it


def inline_ahead(tree: nodes.Template) -> Inlined:
    """Inline the CSS into the static text of `tree`, in place, when that can be known before rendering.

    Raises CostlySelector.
    """
    skeleton = _skeleton(tree)
    html = "".join(skeleton.pieces)
    if not needs_inlining(html):
        return Inlined(ahead=True)
    check_selectors(html)
    if _SIBLINGS.search(_selectors(html)):
        return Inlined(ahead=False, reason="a selector counts or looks at siblings")
    if any(_TOKEN.search(found[0]) for found in STYLE_ELEMENT.finditer(html)):
        return Inlined(ahead=False, reason="a variable stands in a style element")
    if too_much(html):
        return Inlined(ahead=False, reason="the html is nested too deeply, or too many tags meet too much CSS")
    tags = _tags(html)
    if any("<!--" in html[tag.start() : tag.end()] for tag in tags):
        return Inlined(ahead=False, reason="a statement stands inside of a tag")
    marked = _with_marks(html, tags)
    try:
        result = _inliner.inline(marked)
    except (css_inline.InlineError, ValueError) as error:
        return Inlined(ahead=False, reason=str(error))
    styles = _styles(marked, result, len(tags))
    if styles is None:
        return Inlined(ahead=False, reason="a variable or a statement stands where html allows no text")
    changes = _changes(html, tags, styles)
    if changes is None:
        return Inlined(ahead=False, reason="a variable stands in a style attribute in an unusual way")
    return _apply(skeleton, changes)


# --- the skeleton ------------------------------------------------------------------------------------------------------


def _skeleton(tree: nodes.Template) -> _Skeleton:
    made = _Skeleton([], {})
    _walk(tree, made)
    return made


def _walk(node: nodes.Node, made: _Skeleton) -> None:
    for each in node.iter_child_nodes():
        if isinstance(each, nodes.Output):
            for part in each.nodes:
                if isinstance(part, nodes.TemplateData):
                    made.texts[len(made.pieces)] = part
                    made.pieces.append(part.data)
                else:
                    made.pieces.append(f"pRx{len(made.pieces)}x")
        elif isinstance(each, nodes.Stmt):
            made.pieces.append(f"<!--pRx{len(made.pieces)}x-->")
            _walk(each, made)
            made.pieces.append(f"<!--pRx{len(made.pieces)}x-->")


def _selectors(html: str) -> str:
    css = "".join(_plain_rules(found[1]) for found in STYLE_ELEMENT.finditer(html))
    return re.sub(r"\{[^{}]*\}", ";", css)


def _tags(html: str) -> list[re.Match[str]]:
    """Start tags in the order of the text, comments and style elements left out."""
    blank = _COMMENT.sub(_spaces, html)
    blank = STYLE_ELEMENT.sub(_spaces, blank)
    return [found for found in _START_TAG.finditer(blank) if found[2]]


def _spaces(found: re.Match[str]) -> str:
    return " " * len(found[0])


def _with_marks(html: str, tags: list[re.Match[str]]) -> str:
    parts: list[str] = []
    end = 0
    for number, tag in enumerate(tags):
        at = tag.end(1)
        parts += [html[end:at], f' {_MARK}="{number}"']
        end = at
    return "".join([*parts, html[end:]])


class _Reader(TagReader):
    """The marked tags and the tokens between tags, in their order, and the style of each tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.order: list[str] = []
        self.styles: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        given = dict(attrs)
        if (mark := given.get(_MARK)) is not None:
            self.order.append(mark)
            self.styles.append(given.get("style"))

    def handle_data(self, data: str) -> None:
        self.order += _TOKEN.findall(data)

    def handle_comment(self, data: str) -> None:
        self.order += _TOKEN.findall(data)


def _styles(marked: str, result: str, count: int) -> list[str | None] | None:
    """The style of each tag; None when the parser of css-inline saw other tags, or in another order, than we did."""
    before, after = _Reader(marked), _Reader(result)
    return after.styles if before.order == after.order and len(after.styles) == count else None


# --- back into the tree ------------------------------------------------------------------------------------------------


def _changes(html: str, tags: list[re.Match[str]], styles: list[str | None]) -> list[tuple[int, int, str]] | None:
    """(start, end, new text) in `html`: each tag's style attribute, replaced or added."""
    changes: list[tuple[int, int, str]] = []
    for tag, style in zip(tags, styles, strict=True):
        if style is None:
            continue
        old = _STYLE_ATTRIBUTE.search(html, tag.end(1), tag.end())
        start, end = (old.start(), old.end()) if old else (tag.end(1), tag.end(1))
        if old and old[0].partition("=")[2].strip()[1:-1] == style:
            continue
        before = _TOKEN.findall(html[start:end])
        if sorted(before) != sorted(_TOKEN.findall(style)):
            return None
        changes.append((start, end, f' style="{escape(_tidy(style), quote=False)}"'))
    return changes


def _tidy(style: str) -> str:
    return re.sub(r"\s*([:;])\s+", r"\1", style).rstrip("; ").replace('"', "'")


def _apply(skeleton: _Skeleton, changes: list[tuple[int, int, str]]) -> Inlined:
    """Write each change into the piece that it lies in; one that reaches over an expression is cut along it."""
    starts = _starts(skeleton.pieces)
    for start, end, text in reversed(changes):
        first, last = _piece_at(starts, start), _piece_at(starts, max(end - 1, start))
        if first == last and first in skeleton.texts:
            _replace(skeleton, first, start - starts[first], end - starts[first], text)
            continue
        if _TOKEN.findall("".join(skeleton.pieces[first : last + 1])) != _TOKEN.findall(text):
            return Inlined(ahead=False, reason="variables of a style attribute changed their order")
        parts = _TOKEN.split(text)
        inner = [index for index in range(first, last + 1) if index in skeleton.texts]
        if len(inner) != len(parts):
            return Inlined(ahead=False, reason="two variables touch in a style attribute")
        for index, part in reversed(list(zip(inner, parts, strict=True))):
            piece = skeleton.pieces[index]
            begin = start - starts[index] if index == first else 0
            stop = end - starts[index] if index == last else len(piece)
            _replace(skeleton, index, begin, stop, part)
    for index, node in skeleton.texts.items():
        node.data = skeleton.pieces[index]
    return Inlined(ahead=True)


def _replace(skeleton: _Skeleton, index: int, start: int, end: int, text: str) -> None:
    piece = skeleton.pieces[index]
    skeleton.pieces[index] = piece[:start] + text + piece[end:]


def _starts(pieces: list[str]) -> list[int]:
    return [0, *accumulate(map(len, pieces))][:-1]


def _piece_at(starts: list[int], position: int) -> int:
    """The piece in which a position lies."""
    return bisect_right(starts, position) - 1
