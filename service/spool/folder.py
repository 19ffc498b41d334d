"""The templates folder on disk, read and compiled as a whole.

What is bad is refused with file and line while its old form stays; nobody sees half of a change.

templates/NAME/template.toml   subject, description, [variables], [sample], ttl, priority, unsubscribe, sample_attachments
templates/NAME/html.j2         or html.mjml; text.j2 beside it is optional
templates/NAME/locales/zh-CN/  the same of another language; template.toml has subject and [sample]
templates/_layouts/            layouts that html.j2 extends as "_layouts/NAME.j2"

Other folders that begin with `_` or `.` are passed over; one whose name no template can have is a fault.
"""

import os
from pathlib import Path

from service.mail.render import Template, TemplateFault, load_template
from service.mail.template import LAYOUTS, digest_of, needed_files

_SUFFIXES = (".j2", ".mjml", ".toml")


class Folder:
    """The folder on disk: read and compiled as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.templates: dict[str, Template] = {}
        self._signature: object = None

    def read(self) -> list[TemplateFault]:
        """Compile what changed; what is bad is refused and its old form stays. Returns the faults."""
        self._signature = self._sign()
        try:
            names, layouts = self.names(), read_layouts(self.path)
        except TemplateFault as fault:
            return [fault]
        except OSError as error:
            return [TemplateFault(str(self.path), 1, f"can't be read: {error.strerror}")]
        faults: list[TemplateFault] = []
        fresh: dict[str, Template] = {}
        for name in names:
            old = self.templates.get(name)
            try:
                files = needed_files({**_files(self.path / name), **layouts})
                same = old is not None and old.digest == digest_of(files)
                fresh[name] = old if same and old is not None else load_template(name, files)
            except TemplateFault as fault:
                faults.append(fault)
                if old is not None:
                    fresh[name] = old
        self.templates = fresh  # in one step: a reader sees the old set or the new one
        return list({str(fault): fault for fault in faults}.values())  # a layout's fault is one, whoever extends it

    def changed(self) -> bool:
        """Whether a file was added, removed or written since the last read."""
        return self._signature != self._sign()

    def names(self) -> list[str]:
        """Every template that there is in the folder, good or bad, also of a name that none can have. Raises OSError."""
        return sorted(entry.name for entry in self.path.iterdir() if entry.is_dir() and entry.name[0] not in "._")

    def _sign(self) -> object:
        found: list[tuple[str, int, int]] = []
        for base, _, names in os.walk(self.path):
            for name in names:
                path = f"{base}/{name}"
                try:
                    stat = os.stat(path)
                except FileNotFoundError:  # an editor's temporary file
                    continue
                found.append((path, stat.st_mtime_ns, stat.st_size))
        return sorted(found)


def _files(folder: Path) -> dict[str, str]:
    """The template files below a folder: path inside of it -> text. Raises TemplateFault."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file():
            inside = path.relative_to(folder).as_posix()
            try:
                found[inside] = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise TemplateFault(f"{folder.name}/{inside}", 1, f"can't be read: {error}") from None
    return found


def read_layouts(home: Path) -> dict[str, str]:
    """The layouts of a folder: path as templates extend them -> text. Raises TemplateFault."""
    return {f"{LAYOUTS}/{path}": text for path, text in _files(home / LAYOUTS).items()}
