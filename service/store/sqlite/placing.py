"""A new file appears whole or not at all: written under another name, synced, then given its own, which must be free."""

import os
from pathlib import Path

from service.errors import ConfigurationError


def free_name(file: Path, named: str) -> Path:
    """The name to write `file` under. Raises ConfigurationError when `file` is there, or its folder is not.

    named: what the sentence calls the file, such as `--to`. What a run that was ended left there is removed.
    """
    if not file.parent.is_dir():
        raise ConfigurationError(f"{named}: there is no folder {file.parent}")
    for taken in (file, file.with_name(f"{file.name}-wal")):
        if os.path.lexists(taken):
            raise ConfigurationError(f"{named}: {taken} is there already, and nothing is overwritten")
    draft = file.with_name(f"{file.name}.partial")
    for left in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm"), Path(f"{draft}-journal")):
        left.unlink(missing_ok=True)
    return draft


def place(draft: Path, file: Path, named: str) -> None:
    """Sync `draft` and call it `file`. Raises ConfigurationError when somebody made one meanwhile, and OSError."""
    sync(draft)
    try:
        os.link(draft, file)  # unlike a rename it never replaces
    except FileExistsError:
        raise ConfigurationError(f"{named}: {file} is there already, and nothing is overwritten") from None
    draft.unlink()
    sync(file.parent)


def sync(path: Path) -> None:
    """fsync of a file, or of a folder: then its names are durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
