"""What is likely to look wrong, be clipped or be distrusted in a mailbox: findings about html, subject and attachments.

Nothing here refuses a message. `postroom template check`, `POST /templates/check` and a dry run show the findings; what
can't be sent at all is refused elsewhere. Lines are those of the text that was looked at: of the rendered html, not of
the template. Never raises, whatever the html is.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote

from service.mail.tags import VOID, Attributes, TagReader

CLIPPED_FROM = 102 * 1024  # octets of html; Gmail shows no more and hides the rest behind a link
SUBJECT_SHOWN = 70  # characters; phones show about half of that
_LOOKED_AT = 256 * 1024  # characters of html; a caller's dry run may hand in megabytes
_MOST_FINDINGS = 200  # of one html


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at."""

    rule: str
    severity: str  # error: will look or work wrong; warning: may
    file: str
    line: int | None
    detail: str


# rule -> (severity, why); the table in docs/templates.md is made from it
RULES: Mapping[str, tuple[str, str]] = {
    "template-fault": ("error", "The template can't be compiled: syntax, `safe`, a filter or an operator that is refused."),
    "sample-invalid": ("error", "The sample does not fit the schema, so that previews and test mails fail."),
    "undefined-variable": ("error", "A variable is used that the schema does not declare: it can never be given."),
    "unused-variable": ("warning", "A required variable is used nowhere: callers must give it for nothing."),
    "missing-text": ("warning", "There is no text.j2: the text part is derived from the html and may read poorly."),
    "empty-subject": ("error", "A mail without a subject looks like junk, to people and to filters."),
    "long-subject": ("warning", "Longer than mail readers show."),
    "size-over-102-kb": ("error", "Gmail clips html over 102 KB and hides the rest, the unsubscribe link with it."),
    "unclosed-tag": ("error", "A tag is not closed: readers guess, each in its own way."),
    "stray-end-tag": ("error", "An end tag closes nothing."),
    "missing-alt": ("error", "An image without alt text is nothing to a screen reader and while images are off (WCAG 1.1.1)."),
    "image-by-http": ("error", "Readers refuse or proxy images that come without TLS."),
    "link-without-https": ("warning", "A link without TLS can be read and changed on the way."),
    "empty-link": ("error", "A link that leads nowhere."),
    "relative-url": ("error", "A mail has no base address: a relative link or image leads nowhere."),
    "data-image": ("warning", "Gmail and Outlook show no `data:` images; attach them inline (`embed_data_urls`)."),
    "active-element": ("error", "Readers remove scripts, forms, frames and plug-ins, and filters count them."),
    "external-stylesheet": ("warning", "Readers load no style sheets; put the rules into a style element."),
    "missing-lang": ("warning", "Without `lang` a screen reader guesses the language (WCAG 3.1.1)."),
    "missing-title": ("warning", "Some readers show the title in a tab or a notification."),
    "duplicate-id": ("warning", "Two elements with one id: links to it are ambiguous."),
    "left-over-syntax": ("error", "`{{` or `{%` in the result: a template rendered a template."),
    "missing-inline-image": ("error", "`cid:` names no attachment with that content_id."),
    "unused-inline-image": ("warning", "An inline attachment that the html does not show appears as a stray file."),
}  # fmt: skip

_OPTIONAL_END = {  # HTML standard 13.1.2.4
    "html", "head", "body", "p", "li", "dt", "dd", "option", "optgroup", "thead", "tbody", "tfoot", "tr", "td", "th",
    "colgroup", "caption", "rb", "rt", "rtc", "rp",
}  # fmt: skip
_CLOSES: Mapping[str, set[str]] = {  # a start tag ends these without a word
    "li": {"li"},
    "dt": {"dt", "dd"},
    "dd": {"dt", "dd"},
    "tr": {"tr", "td", "th"},
    "td": {"td", "th"},
    "th": {"td", "th"},
    "tbody": {"tbody", "thead", "tr", "td", "th"},
    "option": {"option"},
    "p": {"p"},
}
_ACTIVE = {"script", "form", "iframe", "object", "embed", "applet", "frame", "input", "button", "select", "textarea"}
_LEFT_OVER = re.compile(r"\{\{|\{%")
# RFC 2392 2, in an attribute, or in CSS that stands in one
_CID = re.compile(r"""(?:["'(=]|&quot;|&#39;)\s{0,9}cid:((?:(?!&quot;|&#39;)[^\s"'<>()]){1,250})""", re.I)
_MOST_NAMED = 10  # content ids in one list of doubts


def lint_message(
    subject: str,
    html: str | None,
    inline: Collection[str] = (),
    *,
    file: str = "html",
) -> list[Finding]:
    """Findings about a message as it will be read. `inline`: content ids of its inline attachments."""
    findings = lint_subject(subject)
    if html is not None:
        findings += lint_html(html, inline, file=file)
    return findings


def inline_doubts(html: str | None, attached: Collection[str], inline: Collection[str]) -> tuple[list[str], list[str]]:
    """Content ids that the html shows and nothing has, and those that are attached inline and not shown.

    Cheap enough for every message: nothing is looked at unless `cid:` occurs or an attachment is inline, and no html is
    parsed. `attached`: all content ids of the message; `inline`: those of its inline attachments.
    """
    if not inline and (html is None or "cid:" not in html):
        return [], []
    shown = {url: _as_content_id(url) for url in _CID.findall(html or "")}
    missing = [id for url, id in shown.items() if url not in attached and id not in attached]
    unused = [id for id in inline if id not in shown and id not in shown.values()]
    return list(dict.fromkeys(missing))[:_MOST_NAMED], unused[:_MOST_NAMED]


def _as_content_id(url: str) -> str:
    """What a `cid:` URL means: html's references are resolved, then URL's escapes (RFC 2392 2)."""
    return unquote(unescape(url))


def lint_subject(subject: str, file: str = "subject") -> list[Finding]:
    """Findings about a subject."""
    if not subject.strip():
        return [_finding("empty-subject", file, None, "the subject is empty")]
    if len(subject) > SUBJECT_SHOWN:
        return [_finding("long-subject", file, None, f"{len(subject)} characters; readers show about {SUBJECT_SHOWN}")]
    if _LEFT_OVER.search(subject):
        return [_finding("left-over-syntax", file, None, "the subject holds `{{` or `{%`")]
    return []


def lint_html(html: str, inline: Collection[str] = (), *, file: str = "html") -> list[Finding]:
    """Findings about html, in the order of their lines."""
    reader = _Reader(file)
    reader.feed(html[:_LOOKED_AT])
    if len(html) <= _LOOKED_AT:
        reader.finish()
    findings = reader.findings + _whole(html, file, reader)
    findings += _inline_images(reader.content_ids, inline, file)
    return sorted(findings, key=lambda finding: finding.line or 0)[:_MOST_FINDINGS]


def _whole(html: str, file: str, reader: "_Reader") -> list[Finding]:
    found: list[Finding] = []
    if (size := len(html.encode("utf-8", "replace"))) > CLIPPED_FROM:
        found.append(_finding("size-over-102-kb", file, None, f"{size} octets of html; {CLIPPED_FROM} are shown"))
    if (left := _LEFT_OVER.search(html)) is not None:
        line = html.count("\n", 0, left.start()) + 1
        found.append(_finding("left-over-syntax", file, line, f"`{left[0]}` stands in the result"))
    if reader.document and not reader.lang:
        found.append(_finding("missing-lang", file, 1, "the html element has no lang"))
    if reader.document and not reader.title.strip():
        found.append(_finding("missing-title", file, 1, "the head has no title, or an empty one"))
    return found


def _inline_images(shown: Mapping[str, int], attached: Collection[str], file: str) -> list[Finding]:
    missing = [
        _finding("missing-inline-image", file, line, f"cid:{name} is attached nowhere")
        for name, line in shown.items()
        if name not in attached
    ]
    unused = [
        _finding("unused-inline-image", file, None, f"the html shows no cid:{name}")
        for name in attached
        if name not in shown
    ]
    return missing + unused


def _finding(rule: str, file: str, line: int | None, detail: str) -> Finding:
    return Finding(rule, RULES[rule][0], file, line, detail)


class _Reader(TagReader):
    """Reads tags; comments, with them what only Outlook sees, are passed over."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self.content_ids: dict[str, int] = {}
        self.document = False  # a whole document, not a piece of html
        self.lang = False
        self.title = ""
        self._file = file
        self._open: list[tuple[str, int]] = []
        self._ids: set[str] = set()

    def add(self, rule: str, detail: str, line: int | None = None) -> None:
        """A finding at the place of the parser, or at `line`."""
        self.findings.append(_finding(rule, self._file, line or self.getpos()[0], detail))

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        self._look(tag, {name: value or "" for name, value in attrs})

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        self._look(tag, {name: value or "" for name, value in attrs})
        closes = _CLOSES.get(tag, ())
        while self._open and self._open[-1][0] in closes:
            self._open.pop()
        if tag not in VOID:
            self._open.append((tag, self.getpos()[0]))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if all(name != tag for name, _ in self._open[-200:]):
            if tag not in {"p", "html", "body"}:
                self.add("stray-end-tag", f"</{tag}> closes nothing")
            return
        while (top := self._open.pop())[0] != tag:
            if top[0] not in _OPTIONAL_END:
                self.add("unclosed-tag", f"<{top[0]}> is not closed", top[1])

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "title":
            self.title += data

    def handle_unclosed(self, tag: str) -> None:
        self.add("unclosed-tag", f"<{tag} has no >")

    def finish(self) -> None:
        """What is still open at the end."""
        for tag, line in self._open:
            if tag not in _OPTIONAL_END:
                self.add("unclosed-tag", f"<{tag}> is not closed", line)

    def _look(self, tag: str, given: dict[str, str]) -> None:
        if tag == "html":
            self.document, self.lang = True, bool(given.get("lang"))
        elif tag in _ACTIVE:
            self.add("active-element", f"<{tag}> does nothing in a mail")
        elif tag == "link" and "stylesheet" in given.get("rel", "").lower():
            self.add("external-stylesheet", "a style sheet elsewhere is not loaded")
        elif tag == "a" and "name" not in given:
            self._link(given.get("href"))
        elif tag == "img":
            self._image(given)
        if name := given.get("id"):
            if name in self._ids:
                self.add("duplicate-id", f"the id {name[:60]!r} stands twice")
            self._ids.add(name)

    def _link(self, href: str | None) -> None:
        target = (href or "").strip()
        lowered = target.lower()
        if target in {"", "#"} or lowered.startswith("javascript:"):
            self.add("empty-link", f"a link to {target[:60]!r}")
        elif lowered.startswith("http:"):
            self.add("link-without-https", f"a link to {target[:80]}")
        elif not re.match(r"[a-z][a-z0-9+.-]*:|#", lowered):
            self.add("relative-url", f"a link to {target[:80]}")

    def _image(self, given: dict[str, str]) -> None:
        source = given.get("src", "").strip()
        lowered = source.lower()
        if "alt" not in given:
            self.add("missing-alt", f'an image without alt ({source[:60]}); alt="" says that it is decoration')
        if lowered.startswith("http:"):
            self.add("image-by-http", f"an image from {source[:80]}")
        elif lowered.startswith("data:"):
            self.add("data-image", f"an image in the html itself ({source[:30]}...)")
        elif lowered.startswith("cid:"):
            self.content_ids.setdefault(source[4:], self.getpos()[0])
        elif not lowered.startswith("https:"):
            self.add("relative-url", f"an image from {source[:80]!r}")
