"""MJML, where the author of a template prefers it: compiled to html once, at load."""

import re

from mjml import mjml2html

from service.mail.fault import TemplateFault
from service.mail.tags import depth_of

_DEEPEST = 64  # the compiler goes down by recursion: thousands of levels end the process
_MOST_HTML = 1024 * 1024  # characters
_MOST_WORK = 64 * 1024 * 1024  # characters, if every element took over the whole head
_HEAD = re.compile(r"<mj-head\b.*?(?:</mj-head\s*>|\Z)", re.S)
_MJML_TAG = re.compile(r"<\s*(mj-[a-z-]+)")
_MJML_TAGS = {
    "mj-accordion", "mj-accordion-element", "mj-accordion-text", "mj-accordion-title", "mj-all", "mj-attributes",
    "mj-body", "mj-breakpoint", "mj-button", "mj-carousel", "mj-carousel-image", "mj-class", "mj-column", "mj-divider",
    "mj-font", "mj-group", "mj-head", "mj-hero", "mj-image", "mj-navbar", "mj-navbar-link", "mj-preview", "mj-raw",
    "mj-section", "mj-social", "mj-social-element", "mj-spacer", "mj-style", "mj-table", "mj-text", "mj-title",
    "mj-wrapper", "mj-html-attributes", "mj-selector", "mj-html-attribute",
}  # fmt: skip


def compile_mjml(file: str, source: str) -> str:
    """MJML to html, once, with the Jinja in it untouched. Nothing is included or loaded. Raises TemplateFault."""
    for found in _MJML_TAG.finditer(source):
        if found[1] not in _MJML_TAGS:  # the compiler drops what it does not know without a word
            raise TemplateFault(file, source.count("\n", 0, found.start()) + 1, f"<{found[1]}> is no MJML element")
    if depth_of(source) > _DEEPEST:
        raise TemplateFault(file, 1, f"elements are nested deeper than {_DEEPEST} levels")
    head = sum(len(found[0]) for found in _HEAD.finditer(source))
    if head * source.count("<mj-") > _MOST_WORK:
        raise TemplateFault(file, 1, "the head is too large for so many elements: each of them may take all of it over")
    try:
        html = str(mjml2html(source, disable_comments=True, fonts={}))
    except ValueError as error:
        raise TemplateFault(file, 1, f"MJML: {error}") from None
    if len(html) > _MOST_HTML:
        raise TemplateFault(file, 1, f"becomes {len(html)} characters of html; at most {_MOST_HTML}")
    return html
