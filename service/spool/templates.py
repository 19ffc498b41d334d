"""The template library: what a name means, in every version it ever had.

A template comes from a folder (`POSTROOM_TEMPLATES_DIR`) or is published through the API; a name in the folder belongs to
the folder. Every form that is loaded or published is kept in the store under its digest and gets a number, the same in
all processes: `welcome` is the current one, `welcome@3` stays what it was. A bad template is refused with file and line
while the old one stays.
"""

import asyncio
import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from service.clock import Clock
from service.errors import ConfigurationError, FieldProblem, TemplateManagedByFiles, TemplateNotFound, TemplateRefused
from service.mail.draft import Attachment
from service.mail.render import Template, TemplateFault, load_template
from service.mail.template import LAYOUTS, NAME, TemplateSource, check_files, needed_files, parse_files
from service.spool.check import fault_problem
from service.spool.content import check_octets
from service.spool.folder import Folder, read_layouts
from service.spool.recent import Recent
from service.store.port import Store
from service.store.shown import TemplateVersion
from service.telemetry import Log, get_logger

log = get_logger()

_USUAL_SIZE = 16 * 1024  # characters: a template with more counts for several among those that are kept compiled
_MOST_LISTED = 1000  # versions of the store of which is kept what a list shows
_MOST_BELIEVED = 10_000  # names, of which most may not exist
_MOST_COMPARED = 300  # names among which the nearest one is looked for: about 50 microseconds each
_NUMBER = "0123456789"
_SHORTEST_DIGEST = 8  # characters of a digest that stand for a version


@dataclass(frozen=True, slots=True)
class Loaded:
    """A compiled template and which version it is; no number before the store knows it."""

    template: Template
    number: int | None = None

    @property
    def source(self) -> TemplateSource:
        """What it is made of."""
        return self.template.source

    @property
    def label(self) -> str:
        """`welcome@3`: what the delivery log says."""
        return f"{self.template.name}@{self.number}" if self.number else self.template.name


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list shows of a template. It is not compiled for that, and its source is without html and text."""

    source: TemplateSource
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload found."""

    loaded: Sequence[Loaded]
    faults: Sequence[TemplateFault]


class TemplateLibrary:
    """All templates: of the folder, and those published through the API."""

    def __init__(
        self, folder: Folder, store: Store | None, clock: Clock, *, watch: bool, published_for: float, kept: int
    ) -> None:
        """`watch`: look for changed files before each use. `published_for`: seconds for which what a published name
        means is believed without asking the store. `kept`: versions of the store that are kept compiled."""
        self._folder, self._store, self._clock = folder, store, clock
        self._watch, self._published_for = watch, published_for
        self._numbers: dict[tuple[str, str], int] = {}  # (name, digest) -> number
        self._published: Recent[str, tuple[float, TemplateVersion | None]] = Recent(_MOST_BELIEVED)  # believed until
        self._names: tuple[float, Collection[str]] = (0.0, ())  # believed until; those that are published
        self._versions: Recent[tuple[str, int], Loaded] = Recent(kept)
        self._listed: Recent[tuple[str, int], Listed] = Recent(_MOST_LISTED)
        self._faults: Sequence[TemplateFault] = ()  # of the last reading
        self._reading = asyncio.Lock()

    @classmethod
    def load(
        cls,
        folder: Path,
        store: Store | None,
        clock: Clock,
        *,
        watch: bool = False,
        published_for: float = 2.0,
        kept: int = 1000,
    ) -> Self:
        """Read and compile the folder. Raises ConfigurationError naming file and line of every fault."""
        home = Folder(folder)
        if faults := home.read():
            listed = "; ".join(map(str, faults))
            raise ConfigurationError(f"POSTROOM_TEMPLATES_DIR: {folder}: {listed}")
        return cls(home, store, clock, watch=watch, published_for=published_for, kept=kept)

    async def number(self) -> None:
        """Give every template of the folder its number, keeping its files in the store."""
        if self._store is None:
            return
        for template in self._folder.templates.values():
            if (template.name, template.digest) not in self._numbers:
                await self._keep(template, current=False)

    async def _keep(self, template: Template, *, current: bool) -> int:
        assert self._store is not None
        files = json.dumps(template.source.files, ensure_ascii=False)
        number = await self._store.publish_template(
            template.name, template.digest, files, self._clock.now(), current=current
        )
        self._numbers[template.name, template.digest] = number
        return number

    async def reload(self) -> Reloaded:
        """Read the folder again. What is bad is refused and its old form stays."""
        async with self._reading:
            faults = await asyncio.to_thread(self._folder.read)  # many templates would hold up the loop
            await self.number()
        self._faults = faults
        for fault in faults:
            log.error(Log.TEMPLATES_REFUSED, detail=str(fault))
        log.info(Log.TEMPLATES_RELOADED, templates=len(self._folder.templates), refused=len(faults))
        self._forget()
        return Reloaded([self._of_folder(template) for template in self._folder.templates.values()], faults)

    def _of_folder(self, template: Template) -> Loaded:
        return Loaded(template, self._numbers.get((template.name, template.digest)))

    def in_folder(self) -> Mapping[str, Template]:
        """What the folder holds, by name."""
        return self._folder.templates

    # --- finding -------------------------------------------------------------------------------------------------

    async def all(self) -> list[Listed]:
        """The current version of every name, in order."""
        await self._look()
        loaded = map(self._of_folder, self._folder.templates.values())
        found = {each.source.name: Listed(each.source, each.number) for each in loaded}
        if self._store is not None:
            for version in await self._store.published_templates():
                if version.name not in found:
                    with contextlib.suppress(TemplateFault):  # by rules that became stricter; its own use says so
                        found[version.name] = await self._shown(version)
        return [found[name] for name in sorted(found)]

    async def _shown(self, version: TemplateVersion) -> Listed:
        """Raises TemplateFault."""
        key = version.name, version.number
        if (known := self._listed.get(key)) is not None:
            return known
        assert self._store is not None
        files = json.loads(await self._store.template_files(*key) or "{}")
        source = await asyncio.to_thread(parse_files, version.name, files)
        locales = {tag: replace(each, html="", text=None) for tag, each in source.locales.items()}
        return self._listed.put(key, Listed(replace(source, locales=locales, layouts={}, files={}), version.number))

    async def get(self, use: str) -> Loaded:
        """`name`, or `name@3`, or `name@` and the beginning of a digest. Raises TemplateNotFound, TemplateRefused.

        Where the folder is watched, somebody works on it: a template that has no good form yet is told with its faults.
        """
        if self._watch:
            await self._look()
        name, at, version = use.partition("@")
        template = self._folder.templates.get(name)
        current = self._of_folder(template) if template is not None else await self._current(name)
        if current is not None and not at:
            return current
        if at:
            if current is not None and _means(version, current):
                return current
            if (found := await self._older(name, version)) is not None:
                return found
            if current is not None:
                raise _not_found(f"{name} has no version {version[:64]!r}; the current one is {current.label}")
        if self._watch:
            self._tell_faults(name)
        usual = name.lower().replace("_", "-")  # names hold neither capitals nor underscores
        near = get_close_matches(usual, await self._comparable(usual), 1)
        raise _not_found(f"there is no template {name!r}" + (f"; did you mean {near[0]}?" if near else ""))

    def _tell_faults(self, name: str) -> None:
        """Raises TemplateRefused with the faults of a template or of layouts, if that is why it is not there."""
        is_there = (self._folder.path / name).is_dir() if NAME.fullmatch(name) else False
        concerned = [fault for fault in self._faults if is_there and fault.file.startswith((f"{name}/", LAYOUTS))]
        if concerned:
            problems = [FieldProblem("#/template/name", TemplateRefused.code, str(fault)) for fault in concerned]
            raise TemplateRefused(errors=problems)

    async def _look(self) -> None:
        if self._watch and self._folder.changed():
            await self.reload()

    async def _comparable(self, name: str) -> Sequence[str]:
        """Names that a misspelt one may have meant."""
        if NAME.fullmatch(name) is None:
            return ()
        until, published = self._names
        if self._store is not None and self._clock.monotonic() >= until:
            published = [each.name for each in await self._store.published_templates()]
            self._names = self._clock.monotonic() + self._published_for, published
        known = sorted({*self._folder.templates, *published})
        if len(known) > _MOST_COMPARED:
            known = [each for each in known if each[0] == name[0]]
        return known[:_MOST_COMPARED]

    def _forget(self) -> None:
        """Ask the store anew what published names mean."""
        self._published.clear()
        self._names = (0.0, ())

    async def _current(self, name: str) -> Loaded | None:
        """What a published name means; believed for a while, so that a send asks the store only now and then."""
        if self._store is None or NAME.fullmatch(name) is None:
            return None
        until, version = self._published.get(name) or (0.0, None)
        if self._clock.monotonic() >= until:
            found = await self._store.published_templates(name)
            version = found[0] if found else None
            self._published.put(
                name, (self._clock.monotonic() + self._published_for, version)
            )  # also that there is none
        return None if version is None else await self._version(name, version.number)

    async def _older(self, name: str, version: str) -> Loaded | None:
        if self._store is None or NAME.fullmatch(name) is None or not version:
            return None
        if len(version) < 10 and not version.strip(_NUMBER):
            found = await self._version_or_none(name, int(version))
            if found is not None or len(version) < _SHORTEST_DIGEST:
                return found
        for each in await self._store.template_versions(name, 1000):
            if len(version) >= _SHORTEST_DIGEST and each.digest.startswith(version):
                return await self._version_or_none(name, each.number)
        return None

    async def _version_or_none(self, name: str, number: int) -> Loaded | None:
        with contextlib.suppress(LookupError):
            return await self._version(name, number)
        return None

    async def _version(self, name: str, number: int) -> Loaded:
        """A version of the store, compiled. Raises LookupError."""
        if (found := self._versions.get((name, number))) is not None:
            return found
        assert self._store is not None
        files = await self._store.template_files(name, number)
        if files is None:
            raise LookupError(f"{name}@{number}")
        try:
            template = await asyncio.to_thread(lambda: load_template(name, json.loads(files)))
        except TemplateFault as fault:  # it was good when it was kept: the rules became stricter since
            raise TemplateRefused(errors=[fault_problem(fault)]) from None
        weight = 1 + sum(map(len, template.source.files.values())) // _USUAL_SIZE
        return self._versions.put((name, number), Loaded(template, number), weight)

    # --- publishing ----------------------------------------------------------------------------------------------

    async def compile(self, name: str, files: Mapping[str, str]) -> Template:
        """Compile files that are not kept; layouts of the folder may be extended. Raises TemplateRefused."""

        def work() -> Template:
            check_files(name, files)
            return load_template(name, needed_files({**read_layouts(self._folder.path), **files}))

        try:
            return await asyncio.to_thread(work)
        except TemplateFault as fault:
            raise TemplateRefused(errors=[fault_problem(fault, inside=f"{name}/")]) from None

    async def publish(self, name: str, files: Mapping[str, str]) -> Loaded:
        """Make these files the current version of `name`. Raises TemplateRefused, TemplateManagedByFiles."""
        self._check_free(name)
        template = await self.compile(name, files)
        loaded = Loaded(template, await self._keep(template, current=True))
        self._forget()
        log.info(Log.TEMPLATE_PUBLISHED, template=loaded.label)
        return loaded

    async def retire(self, name: str) -> None:
        """Take a published name away; its versions stay. Raises TemplateNotFound, TemplateManagedByFiles."""
        self._check_free(name)
        if self._store is None or not await self._store.retire_template(name):
            raise _not_found(f"there is no published template {name!r}")
        self._forget()

    def _check_free(self, name: str) -> None:
        if name in self._folder.templates:
            raise TemplateManagedByFiles(f"{name} stands in the templates folder: change it there.")

    async def versions(self, name: str) -> Sequence[TemplateVersion]:
        """All versions of a name, newest first. Raises TemplateNotFound."""
        found = await self._store.template_versions(name, 1000) if self._store is not None else ()
        if not found:
            raise _not_found(f"there is no template {name!r}")
        return found

    def sample_attachments(self, template: Template, most: int) -> tuple[Attachment, ...]:
        """The files of the template's folder that its template.toml names. One that is not there is left out.

        Raises PayloadTooLarge before one is read, when they hold more than `most` octets.
        """
        named = [self._folder.path / template.name / file for file in template.source.sample_attachments]
        paths = [path for path in named if path.is_file()]
        check_octets(sum(path.stat().st_size for path in paths), most)
        return tuple(Attachment(path.name, path.read_bytes()) for path in paths)


def _means(version: str, loaded: Loaded) -> bool:
    by_digest = len(version) >= _SHORTEST_DIGEST and loaded.template.digest.startswith(version)
    return by_digest or (loaded.number is not None and version == str(loaded.number))


def _not_found(detail: str) -> TemplateNotFound:
    return TemplateNotFound(errors=[FieldProblem("#/template/name", TemplateNotFound.code, detail)])
