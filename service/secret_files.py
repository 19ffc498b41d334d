"""Files that hold secrets: new ones only, readable by their owner alone."""

import os
from pathlib import Path

from service.errors import ConfigurationError


def write_secret(file: Path, content: bytes) -> None:
    """Write a file that was not there before. Raises ConfigurationError."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
