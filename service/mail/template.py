"""What a template is made of: a folder's files as plain data, read into a source that can be compiled.

The files come as a mapping of path to text, so that a folder on disk, a version kept in the store and a body of
`PUT /templates/{name}` are all the same thing. `template.toml` says subject, description, variables, sample and the
defaults of messages; `html.j2` (or `html.mjml`) and `text.j2` are the parts; `locales/TAG/` holds other languages.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.durations import parse_duration
from service.mail.fault import TemplateFault
from service.mail.mjml_source import compile_mjml
from service.mail.toml_source import read_toml
from service.mail.variables import expand_schema

__all__ = ["LocaleSource", "TemplateFault", "TemplateSource", "check_files", "digest_of", "needed_files", "parse_files"]

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
CATEGORY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
LAYOUTS = "_layouts"
PRIORITIES = ("high", "normal", "low")

HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a surrogate: no UTF-8 has it

_HEAD = "template.toml"
_HEAD_KEYS = {
    "locale", "subject", "description", "variables", "sample", "sample_attachments", "ttl", "priority", "unsubscribe",
    "inline_css",
}  # fmt: skip
_LOCALE_KEYS = {"subject", "sample"}
_FILE = re.compile(
    rf"(?:locales/[^/\\\x00]{{1,40}}/)?(?:template\.toml|html\.j2|html\.mjml|text\.j2)|{LAYOUTS}/[A-Za-z0-9_-][A-Za-z0-9._-]*\.j2"
)
_FILES = f"template.toml, html.j2, html.mjml, text.j2, the same in locales/TAG/, and {LAYOUTS}/NAME.j2"
_MOST_OF_A_FILE = 256 * 1024  # characters; Gmail clips html over 102 KB
_MOST_IN_ALL = 512 * 1024
_ATTACHMENT = re.compile(r"[^/\\.\x00-\x1f][^/\\\x00-\x1f]*")
_LONGEST_TTL = 10**9  # seconds
_LAYOUT_USE = re.compile(rf"{LAYOUTS}/[A-Za-z0-9._-]+")


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


def check_files(name: str, files: Mapping[str, str]) -> None:
    """Each path is one that a template can have, and all are of a size that can be read in time. Raises TemplateFault."""
    for path, text in files.items():
        if _FILE.fullmatch(path) is None:
            raise TemplateFault(f"{name}/{path}", 1, f"is no file of a template; these are: {_FILES}")
        if len(text) > _MOST_OF_A_FILE:
            raise TemplateFault(f"{name}/{path}", 1, f"has {len(text)} characters; at most {_MOST_OF_A_FILE}")
        if (half := HALF_CHARACTER.search(text)) is not None:
            line = text.count("\n", 0, half.start()) + 1
            raise TemplateFault(f"{name}/{path}", line, "holds half of a character, which no mail can hold")
    if (size := sum(map(len, files.values()))) > _MOST_IN_ALL:
        raise TemplateFault(f"{name}/{_HEAD}", 1, f"all files have {size} characters; at most {_MOST_IN_ALL}")


def parse_files(name: str, files: Mapping[str, str]) -> TemplateSource:
    """Read one template from its files (path inside the folder -> text). Raises TemplateFault."""
    if NAME.fullmatch(name) is None:
        raise TemplateFault(name, 1, "a template's name is lower-case letters, digits and hyphens, at most 64")
    files = {path: text.removeprefix("\ufeff") for path, text in files.items()}  # editors on Windows write it first
    check_files(name, files)
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
        sample_attachments=_attachments(head, f"{name}/{_HEAD}"),
        ttl=_ttl(head, f"{name}/{_HEAD}"),
        priority=_choice(head, "priority", PRIORITIES, f"{name}/{_HEAD}"),
        category=_category(head, f"{name}/{_HEAD}"),
        inline_css=_inline_css(head, "html.mjml" not in files, f"{name}/{_HEAD}"),  # MJML writes styles inline itself
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
    except (ValueError, TypeError, OverflowError):
        seconds = 0.0
    if isinstance(value, bool) or not 1 <= seconds < _LONGEST_TTL:
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


def _attachments(head: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = head.get("sample_attachments", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and _ATTACHMENT.fullmatch(name) for name in names):
        raise TemplateFault(where, 1, "sample_attachments is a list that names files of this folder")
    return tuple(names)


def _inline_css(head: Mapping[str, Any], default: bool, where: str) -> bool:
    value = head.get("inline_css", default)
    if not isinstance(value, bool):
        raise TemplateFault(where, 1, "`inline_css` is true or false")
    return value


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


def _toml(files: Mapping[str, str], name: str, path: str, known: set[str]) -> dict[str, Any]:
    where = f"{name}/{path}"
    if path not in files:
        raise TemplateFault(where, 1, "is missing")
    head = read_toml(files[path], where)
    if unknown := sorted(set(head) - known):
        raise TemplateFault(where, 1, f"`{unknown[0]}` is not known here; known: {', '.join(sorted(known))}")
    return head
