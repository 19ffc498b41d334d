"""Notices that the files of which the relays are made hold something else: the relays file and all files that it names.

It looks at what a file is (its inode, size and times) and reads only what is another one, so a look costs little, and a
swap of symbolic links, as Kubernetes does it with mounted secrets, is seen like any other change. It does not judge what it
reads: a file may be bad, or gone, and come back. Whoever asked loads the configuration and decides.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from service.clock import Clock
from service.relay.files import read_regular
from service.settings import Settings

_FRESH = 2000  # ms: a file written just before it was read may be written again without another time


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was read."""

    stamp: tuple[int, ...]
    digest: bytes
    settled: bool  # a later write would have another stamp


class Watch:
    """The files of one process's relays."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._roots = tuple(file for file in (settings.relays_file, settings.relay_url_file) if file is not None)
        url = settings.relay_url
        self._named = tuple(named_in(url.get_secret_value())) if url is not None and not self._roots else ()
        self._seen: dict[Path, _Seen] = {}
        self._known: dict[Path, bytes] | None = None

    def look(self) -> bool:
        """Whether a file holds something else than at the last look; the first look says yes. It reads files."""
        before = self._known
        self._known = {file: self._digest(file) for file in self._roots}
        if self._roots and (before is None or any(before[file] != self._known[file] for file in self._roots)):
            self._named = tuple(named for file in self._roots for named in named_in(_text(file)))
        self._known |= {file: self._digest(file) for file in self._named}
        self._seen = {file: seen for file, seen in self._seen.items() if file in self._known}
        return self._known != before

    def _digest(self, file: Path) -> bytes:
        """Of its content; empty when it can't be read."""
        try:
            found = file.stat()
            stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            seen = self._seen.get(file)
            if seen is not None and seen.settled and seen.stamp == stamp:
                return seen.digest
            digest = hashlib.sha256(read_regular(file)).digest()
        except (OSError, ValueError):  # ValueError: a NUL in the path
            self._seen.pop(file, None)
            return b""
        written = max(found.st_mtime_ns, found.st_ctime_ns) // 1_000_000
        self._seen[file] = _Seen(stamp, digest, self._clock.now() - written > _FRESH)
        return digest


def named_in(text: str) -> Iterable[Path]:
    """The files that a relays file, or a relay's URL, names: the values of all keys that end with `_file`."""
    try:
        yield from _in_table(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        yield from _in_url(text)


def _in_table(table: Mapping[str, object]) -> Iterable[Path]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _in_table(value)
        elif isinstance(value, str) and key.endswith("_file"):
            yield Path(value)
        elif isinstance(value, str) and key == "url":
            yield from _in_url(value)


def _in_url(url: str) -> Iterable[Path]:
    try:
        options = parse_qs(urlsplit(url.strip()).query)
    except ValueError:
        return
    for key, values in options.items():
        if key.endswith("_file"):
            yield from map(Path, values)


def _text(file: Path) -> str:
    try:
        return read_regular(file).decode()
    except (OSError, ValueError):
        return ""
