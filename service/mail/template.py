"""What a template is made of: a folder's files as plain data, read into a source that can be compiled.

The files come as a mapping of path to text, so that a folder on disk, a version kept in the store and a body of
`PUT /templates/{name}` are all the same thing. `template.toml` says subject, description, variables, sample and the
defaults of messages; `html.j2` (or `html.mjml`) and `text.j2` are the parts; `locales/TAG/` holds other languages.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mjml import mjml2html

from service.durations import parse_duration
from service.mail.variables import expand_schema

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
CATEGORY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
LAYOUTS = "_layouts"
PRIORITIES = ("high", "normal", "low")

_HEAD = "template.toml"
_HEAD_KEYS = {
    "locale", "subject", "description", "variables", "sample", "sample_attachments", "ttl", "priority", "unsubscribe",
    "inline_css",
}  # fmt: skip
_LOCALE_KEYS = {"subject", "sample"}
_LAYOUT_USE = re.compile(rf"{LAYOUTS}/[A-Za-z0-9._-]+")
_MJML_TAG = re.compile(r"<\s*(mj-[a-z-]+)")
_MJML_TAGS = {
    "mj-accordion", "mj-accordion-element", "mj-accordion-text", "mj-accordion-title", "mj-all", "mj-attributes",
    "mj-body", "mj-breakpoint", "mj-button", "mj-carousel", "mj-carousel-image", "mj-class", "mj-column", "mj-divider",
    "mj-font", "mj-group", "mj-head", "mj-hero", "mj-image", "mj-navbar", "mj-navbar-link", "mj-preview", "mj-raw",
    "mj-section", "mj-social", "mj-social-element", "mj-spacer", "mj-style", "mj-table", "mj-text", "mj-title",
    "mj-wrapper", "mj-html-attributes", "mj-selector", "mj-html-attribute",
}  # fmt: skip


class TemplateFault(Exception):
    """A template that can't be used: where and why."""

    def __init__(self, file: str, line: int, why: str) -> None:
        self.file, self.line, self.why = file, line, why
        super().__init__(f"{file}:{line}: {why}")


@dataclass(frozen=True, slots=True)
class LocaleSource:
    """One language of a template. `html` is Jinja, also where the author wrote MJML."""

    subject: str
    html: str
    text: str | None
    sample: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """Everything a template is made of, as plain data. `locales` holds at least the default one."""

    name: str
    description: str
    schema: Mapping[str, Any]
    locales: Mapping[str, LocaleSource]
    default_locale: str
    layouts: Mapping[str, str] = field(default_factory=dict)
    sample_attachments: tuple[str, ...] = ()
    ttl: float | None = None  # seconds; of messages that ask for none
    priority: str | None = None
    category: str | None = None  # recipients may have unsubscribed from it
    inline_css: bool = True
    digest: str = ""  # of all files, hexadecimal
    files: Mapping[str, str] = field(default_factory=dict)  # what it was read from


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 of the files, whatever their order: equal digests, equal templates."""
    return hashlib.sha256(json.dumps(sorted(files.items()), ensure_ascii=False).encode()).hexdigest()


def needed_files(files: Mapping[str, str]) -> dict[str, str]:
    """Without the layouts that nothing here extends, so that another's layout makes no new version of this one."""
    own = {path: text for path, text in files.items() if not path.startswith(f"{LAYOUTS}/")}
    wanted, seen = list(own.values()), dict(own)
    while wanted:
        for path in _LAYOUT_USE.findall(wanted.pop()):
            if path in files and path not in seen:
                seen[path] = files[path]
                wanted.append(files[path])
    return seen


def parse_files(name: str, files: Mapping[str, str]) -> TemplateSource:
    """Read one template from its files (path inside the folder -> text). Raises TemplateFault."""
    if NAME.fullmatch(name) is None:
        raise TemplateFault(name, 1, "a template's name is lower-case letters, digits and hyphens, at most 64")
    files = needed_files(files)
    head = _toml(files, name, _HEAD, _HEAD_KEYS)
    default_locale = _text(head, "locale", "en", f"{name}/{_HEAD}")
    if LOCALE.fullmatch(default_locale) is None:
        raise TemplateFault(f"{name}/{_HEAD}", 1, "`locale` must be a language tag such as en or zh-CN")
    locales = {default_locale: _locale(files, name, "", head)}
    for tag in sorted({path.split("/")[1] for path in files if path.startswith("locales/") and path.count("/") == 2}):
        if LOCALE.fullmatch(tag) is None:
            raise TemplateFault(f"{name}/locales/{tag}", 1, "must be a language tag such as zh-CN")
        own = _toml(files, name, f"locales/{tag}/{_HEAD}", _LOCALE_KEYS)
        locales[tag] = _locale(files, name, f"locales/{tag}/", {**head, **own})
    return TemplateSource(
        name=name,
        description=_text(head, "description", "", f"{name}/{_HEAD}"),
        schema=_schema(head, f"{name}/{_HEAD}"),
        locales=locales,
        default_locale=default_locale,
        layouts={path: text for path, text in files.items() if path.startswith(f"{LAYOUTS}/")},
        sample_attachments=tuple(_plain_name(file, name) for file in head.get("sample_attachments", ())),
        ttl=_ttl(head, f"{name}/{_HEAD}"),
        priority=_choice(head, "priority", PRIORITIES, f"{name}/{_HEAD}"),
        category=_category(head, f"{name}/{_HEAD}"),
        inline_css=bool(head.get("inline_css", "html.mjml" not in files)),  # MJML writes its styles inline itself
        digest=digest_of(files),
        files=files,
    )


def _schema(head: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return expand_schema(head.get("variables", {}))
    except ValueError as error:
        raise TemplateFault(where, 1, f"[variables]: {error}") from None


def _ttl(head: Mapping[str, Any], where: str) -> float | None:
    value = head.get("ttl")
    if value is None:
        return None
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except (ValueError, TypeError):
        seconds = 0.0
    if seconds < 1:
        raise TemplateFault(where, 1, "`ttl` must be at least a second, for example `10m`")
    return seconds


def _category(head: Mapping[str, Any], where: str) -> str | None:
    value = head.get("unsubscribe")
    if value is not None and (not isinstance(value, str) or CATEGORY.fullmatch(value) is None):
        raise TemplateFault(where, 1, "`unsubscribe` names a category: lower-case letters, digits, dots and hyphens")
    return value


def _choice(head: Mapping[str, Any], key: str, allowed: tuple[str, ...], where: str) -> str | None:
    value = head.get(key)
    if value is not None and value not in allowed:
        raise TemplateFault(where, 1, f"`{key}` must be one of {', '.join(allowed)}")
    return value


def _text(head: Mapping[str, Any], key: str, default: str, where: str) -> str:
    value = head.get(key, default)
    if not isinstance(value, str):
        raise TemplateFault(where, 1, f"`{key}` must be text")
    return value


def _plain_name(file: object, name: str) -> str:
    text = str(file)
    if "/" in text or "\\" in text or text.startswith("."):
        raise TemplateFault(f"{name}/{_HEAD}", 1, "sample_attachments names files of this folder")
    return text


def _locale(files: Mapping[str, str], name: str, folder: str, head: Mapping[str, Any]) -> LocaleSource:
    where = f"{name}/{folder}"
    if "subject" not in head:
        raise TemplateFault(f"{where}{_HEAD}", 1, "`subject` is missing")
    sample = head.get("sample", {})
    if not isinstance(sample, dict):
        raise TemplateFault(f"{where}{_HEAD}", 1, "[sample] must be a table of variables")
    return LocaleSource(
        subject=_text(head, "subject", "", f"{where}{_HEAD}"),
        html=_html(files, name, folder),
        text=files.get(f"{folder}text.j2"),
        sample=sample,
    )


def _html(files: Mapping[str, str], name: str, folder: str) -> str:
    jinja, mjml = f"{folder}html.j2", f"{folder}html.mjml"
    if jinja in files and mjml in files:
        raise TemplateFault(f"{name}/{mjml}", 1, "there is an html.j2 beside it; keep one of them")
    if mjml in files:
        return compile_mjml(f"{name}/{mjml}", files[mjml])
    if jinja not in files:
        raise TemplateFault(f"{name}/{jinja}", 1, "is missing (html.j2 or html.mjml)")
    return files[jinja]


def compile_mjml(file: str, source: str) -> str:
    """MJML to html, once, with the Jinja in it untouched. Nothing is included or loaded. Raises TemplateFault."""
    for found in _MJML_TAG.finditer(source):
        if found[1] not in _MJML_TAGS:  # the compiler drops what it does not know without a word
            raise TemplateFault(file, source.count("\n", 0, found.start()) + 1, f"<{found[1]}> is no MJML element")
    try:
        return str(mjml2html(source, disable_comments=True, fonts={}))
    except ValueError as error:
        raise TemplateFault(file, 1, f"MJML: {error}") from None


def _toml(files: Mapping[str, str], name: str, path: str, known: set[str]) -> dict[str, Any]:
    where = f"{name}/{path}"
    if path not in files:
        raise TemplateFault(where, 1, "is missing")
    try:
        head = tomllib.loads(files[path])
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        last = files[path].count("\n") + 1  # "at end of document"
        raise TemplateFault(where, int(line[1]) if line else last, str(error)) from None
    if unknown := sorted(set(head) - known):
        raise TemplateFault(where, 1, f"`{unknown[0]}` is not known here; known: {', '.join(sorted(known))}")
    return head
