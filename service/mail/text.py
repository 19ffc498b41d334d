"""A readable text part from html, when the caller gave none."""

import re
from collections import Counter

from service.mail.tags import VOID, TagReader

_BLOCKS = {
    "address", "article", "aside", "blockquote", "center", "dd", "div", "dl", "dt", "figure", "footer", "form", "h1",
    "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "tr", "ul",
}  # fmt: skip
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "hr"}
_SILENT = {"head", "style", "script", "title", "noscript", "template"}
_HIDDEN = re.compile(r"display\s*:\s*none", re.I)
_ENDED_BY_THE_NEXT = {"p": _BLOCKS, "li": {"li"}, "td": {"td", "th", "tr"}, "th": {"td", "th", "tr"}, "tr": {"tr"},
                      "dt": {"dt", "dd"}, "dd": {"dt", "dd"}, "head": {"body"}}  # fmt: skip


class _Extractor(TagReader):
    def __init__(self) -> None:
        super().__init__()
        self.out: list[str] = []
        self._silent: list[str] = []  # open tags since the first one that is not shown
        self._silent_tags: Counter[str] = Counter()  # how often each of them is open
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if (
            self._silent
            and tag in _ENDED_BY_THE_NEXT.get(self._silent[0], ())
            and (len(self._silent) == 1 or tag == "body")
        ):
            self._silent.clear()  # an end tag that HTML lets one leave out
            self._silent_tags.clear()
        hidden = tag in _SILENT or _HIDDEN.search(given.get("style") or "") is not None
        if self._silent or hidden:
            if tag not in VOID:
                self._silent.append(tag)
                self._silent_tags[tag] += 1
            return
        if tag == "br":
            self.out.append("\n")
        elif tag == "li":
            self.out.append("\n- ")
        elif tag == "img" and given.get("alt"):
            self.out.append(str(given["alt"]))
        elif tag in {"td", "th"}:
            self.out.append("  ")
        elif tag in _BLOCKS:
            self.out.append("\n\n" if tag in _PARAGRAPHS else "\n")
        if tag == "a":
            if self._links:  # HTML standard 13.2.6.4.7: a link begins, so the one before has ended
                self._close_link(*self._links.pop())
            self._links.append((given.get("href") or "", len(self.out)))

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            while self._silent_tags[tag]:
                last = self._silent.pop()
                self._silent_tags[last] -= 1
                if last == tag:
                    break
            return
        if tag == "a" and self._links:
            self._close_link(*self._links.pop())
        elif tag in _BLOCKS and tag != "li":
            self.out.append("\n\n" if tag in _PARAGRAPHS else "\n")

    def close(self) -> None:
        """A link that is not closed has its address too."""
        while self._links:
            self._close_link(*self._links.pop())

    def _close_link(self, href: str, start: int) -> None:
        words = "".join(self.out[start:]).strip()
        target = href.strip()
        scheme = target.partition(":")[0].lower()
        if scheme == "mailto":
            target = target[len("mailto:") :]
        if scheme in {"http", "https", "mailto"}:
            if not words:
                self.out.append(target)
            elif target not in words:
                self.out.append(f" ({target})")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.out.append(re.sub(r"[ \t\r\n\f]+", " ", data))


def html_to_text(html: str) -> str:
    """The words of `html`: links as `words (address)`, list items as `- item`, table cells apart; never raises."""
    extractor = _Extractor()
    extractor.feed(html)
    extractor.close()
    lines = [re.sub(r"[ \u00a0]{2,}", "  ", line).strip() for line in "".join(extractor.out).split("\n")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    return text.strip() + "\n"
