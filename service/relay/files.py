"""The files that the configuration of relays names: read without ever waiting for a writer, and up to a size.

Only regular files are read: a FIFO waits for whoever writes to it, and a device may never end. It knows no key; whoever
asks says which one named the file. RFC 6749 10.4 wants refresh tokens kept confidential: what is written is its owner's alone.
"""

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

MOST = 16 * 1024 * 1024  # octets of a relays file or a bundle of certificates
MOST_OF_A_SECRET = 64 * 1024  # octets


def read_regular(path: Path, most: int = MOST) -> bytes:
    """All of a regular file of at most `most` octets. Raises OSError, whose strerror goes on after the file's name, and
    ValueError for a path with a NUL.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # POSIX open: else a FIFO waits for its writer
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        with open(handle, "rb", closefd=False) as stream:
            content = stream.read(most + 1)
    finally:
        os.close(handle)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"holds more than {most} octets")
    return content


def replace_secret(path: Path, before: str, after: str) -> bool:
    """Put `after` in the place of `before`, whole or not at all, readable by its owner alone. False: it held something else.

    A symbolic link stays one. Raises OSError; a file that must not be written to is left as it is.
    """
    target = path.resolve()
    if read_regular(target, MOST_OF_A_SECRET).decode("utf-8", "replace").strip() != before:
        return False
    if not os.access(target, os.W_OK):
        raise OSError(errno.EACCES, "is not writable")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # with mode 0600
    try:
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(after + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _keep_entry(target.parent)
    return True


def _keep_entry(folder: Path) -> None:
    """The new name survives a loss of power as well."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
