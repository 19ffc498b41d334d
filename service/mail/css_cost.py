"""What CSS may cost to inline, known before it is done: css-inline knows no deadline.

A selector that compares each tag with each of its siblings or descendants takes seconds over the html of one mail; it is
refused. Everything else is bounded by how many comparisons there can be, and by how much can be written. The author of a
template may hide a selector behind strings, comments and escapes, so where it is hard to tell what ends where, all of
the CSS is taken for selectors.
"""

import re

from service.mail.tags import depth_of

AT_RULE = re.compile(r"@[a-z-]+[^{;@]*+(?:;|\{(?:[^{}]|\{[^{}]*\})*\})", re.I)
STYLE_ELEMENT = re.compile(r"<style\b[^<>]*+>(.*?)(?:</style\s*>|\Z)", re.I | re.S)
_STYLE_START = re.compile(r"<style(?=[\s/>])", re.I)

# what compares each tag with each of its siblings or its descendants; an escape may spell a name (CSS Syntax 4.3.7)
_COSTLY = re.compile(r"~(?!=)|:has\b|:[\w-]*\\", re.I)
_CSS_APART = re.compile(  # CSS Syntax 4.3: comments, strings, URLs without quotation marks, escapes
    r"""/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*+(?:["\n]|\\?\Z)|'(?:\\.|[^'\\\n])*+(?:['\n]|\\?\Z)"""
    r"""|url\(\s*+[^"'()\\\s]*+\s*+\)|\\.""",
    re.S | re.I,
)
_HARD = re.compile(
    r"url\(|\\[\w\s\\-]*+\(", re.I
)  # a URL that quotation marks stand in, or a name that may spell `url`
_BLOCK = re.compile(r"\{[^{}]*\}")
_COMBINATOR = re.compile(r"(?<=[^\s,;>+(])(?:\s*[>+]\s*|\s+)(?=[^\s,;{)>+])")

_DEEPEST = 1000  # css-inline goes down a tree by recursion, and 15,000 levels end the process
_MOST_WRITTEN = 32 * 1024 * 1024  # characters, if every rule met every tag
_MOST_COMPARED = 40_000_000  # of tags around each tag with parts of selectors: about 15 nanoseconds each


class CostlySelector(Exception):
    """A selector that can't be looked for in time."""

    def __init__(self, selector: str) -> None:
        self.selector = selector
        super().__init__(
            f"`{selector}` takes too long to inline: put the rule into `@media all {{ }}`, which is left as it is"
        )


def check_selectors(html: str) -> None:
    """Raises CostlySelector for one that would compare each tag with many others."""
    sheets = [found[1] for found in STYLE_ELEMENT.finditer(html)]
    for css in (*sheets, "".join(sheets)):  # what one leaves open, the next one closes
        if (found := _COSTLY.search(_selectors(css))) is not None:
            raise CostlySelector(found[0])


def _selectors(css: str) -> str:
    """Selectors, with `;` between rules; all of the CSS where it is hard to tell what ends where."""
    left = _CSS_APART.sub(_apart, css)
    return css if _HARD.search(left) else _BLOCK.sub(";", AT_RULE.sub("", left))


def _apart(found: re.Match[str]) -> str:
    r"""An escaped mark, as in `.sm\:wide`, is a letter; an escaped letter may spell any name, and stays."""
    if found[0][0] != "\\":
        return ""
    return found[0] if found[0][1:].isalnum() else "_"


def too_much(html: str) -> bool:
    """Whether inlining would take too long, make too much, or go too deep."""
    sheets = [found[1] for found in STYLE_ELEMENT.finditer(html)]
    tags = html.count("<") - html.count("</")
    if sum(map(len, sheets)) * tags > _MOST_WRITTEN or len(sheets) != len(_STYLE_START.findall(html)):
        return True
    selectors = "".join(map(_selectors, sheets))
    depth = depth_of(html)
    return depth > _DEEPEST or tags * depth * len(_COMBINATOR.findall(selectors)) > _MOST_COMPARED
