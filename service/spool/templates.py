"""The template library: folders on disk become compiled templates; a bad one is refused while the old one stays.

templates/NAME/template.toml   subject, description, [variables] as JSON Schema, [sample], sample_attachments
templates/NAME/html.j2         text.j2 beside it is optional
templates/NAME/locales/zh-CN/  html.j2, text.j2, template.toml (subject, sample) of another language
templates/_layouts/            layouts that html.j2 extends as "_layouts/NAME.j2"
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from service.errors import ConfigurationError, FieldProblem, TemplateNotFound
from service.mail.render import LOCALE, NAME, LocaleSource, Template, TemplateFault, TemplateSource, compile_template
from service.telemetry import Log, get_logger

log = get_logger()

_LAYOUTS = "_layouts"


class TemplateLibrary:
    """All templates of a folder, compiled."""

    def __init__(self, folder: Path, templates: Mapping[str, Template]) -> None:
        self._folder = folder
        self._templates = dict(templates)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and compile all. Raises ConfigurationError naming file and line of the first fault."""
        try:
            return cls(folder, {name: compile_template(read_source(folder, name)) for name in _names(folder)})
        except TemplateFault as fault:
            raise ConfigurationError(f"POSTROOM_TEMPLATES_DIR: {folder}: {fault}") from None

    def reload(self) -> list[str]:
        """Read all again; what is bad is refused and its old form stays. Returns the faults."""
        faults: list[str] = []
        fresh: dict[str, Template] = {}
        for name in _names(self._folder):
            try:
                fresh[name] = compile_template(read_source(self._folder, name))
            except TemplateFault as fault:
                faults.append(str(fault))
                log.error(Log.TEMPLATES_REFUSED, template=name, detail=str(fault))
                if name in self._templates:
                    fresh[name] = self._templates[name]
        self._templates = fresh
        log.info(Log.TEMPLATES_RELOADED, templates=len(fresh))
        return faults

    def names(self) -> list[str]:
        """All names in order."""
        return sorted(self._templates)

    def get(self, name: str) -> Template:
        """By name, or by `name@version` of the version that is loaded. Raises TemplateNotFound."""
        bare, at, version = name.partition("@")
        template = self._templates.get(bare)
        if template is None:
            near = get_close_matches(bare, self._templates, 1)
            detail = f"there is no template {bare!r}" + (f"; did you mean {near[0]}?" if near else "")
        elif at and version != template.version:
            detail = f"{bare} is loaded as version {template.version}, not {version}"
        else:
            return template
        raise TemplateNotFound(errors=[FieldProblem("#/template/name", TemplateNotFound.code, detail)])

    def sample_attachment(self, template: Template, file: str) -> bytes:
        """The bytes of a sample attachment, a file of the template's folder named in its template.toml."""
        if file not in template.sample_attachments:
            raise LookupError(file)
        return (self._folder / template.name / file).read_bytes()


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and NAME.fullmatch(entry.name) is not None)


def read_source(folder: Path, name: str) -> TemplateSource:
    """Read one template's files. Raises TemplateFault."""
    home = folder / name
    head = _toml(home / "template.toml", f"{name}/template.toml")
    default_locale = str(head.get("locale", "en"))
    locales = {default_locale: _locale(home, name, head)}
    for entry in sorted((home / "locales").iterdir()) if (home / "locales").is_dir() else ():
        if entry.is_dir() and LOCALE.fullmatch(entry.name):
            where = f"{name}/locales/{entry.name}"
            locales[entry.name] = _locale(
                entry, where, {**head, **_toml(entry / "template.toml", f"{where}/template.toml")}
            )
    return TemplateSource(
        name=name,
        description=str(head.get("description", "")),
        schema=head.get("variables", {"type": "object"}),
        locales=locales,
        default_locale=default_locale,
        layouts=_layouts(folder),
        sample_attachments=tuple(_plain_name(file, name) for file in head.get("sample_attachments", ())),
    )


def _plain_name(file: object, name: str) -> str:
    text = str(file)
    if "/" in text or "\\" in text or text.startswith("."):
        raise TemplateFault(f"{name}/template.toml", 1, "sample_attachments names files of this folder")
    return text


def _locale(home: Path, where: str, head: Mapping[str, Any]) -> LocaleSource:
    if "subject" not in head:
        raise TemplateFault(f"{where}/template.toml", 1, "`subject` is missing")
    text = home / "text.j2"
    return LocaleSource(
        subject=str(head["subject"]),
        html=_read(home / "html.j2", f"{where}/html.j2"),
        text=_read(text, f"{where}/text.j2") if text.exists() else None,
        sample=head.get("sample", {}),
    )


def _layouts(folder: Path) -> dict[str, str]:
    home = folder / _LAYOUTS
    if not home.is_dir():
        return {}
    return {f"{_LAYOUTS}/{file.name}": _read(file, f"{_LAYOUTS}/{file.name}") for file in sorted(home.glob("*.j2"))}


def _read(file: Path, where: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateFault(where, 1, f"can't be read: {error}") from None


def _toml(file: Path, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(file, where))
    except tomllib.TOMLDecodeError as error:
        raise TemplateFault(where, 1, str(error)) from None
