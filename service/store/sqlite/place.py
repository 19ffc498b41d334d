"""Whether the file that is written is still the one that its name means.

A process goes on writing to a file that was deleted or replaced, and every commit succeeds; nobody will ever find what it
held. So the device and inode of the database, and of its write-ahead log once there is one, are looked at after each
commit: two calls of stat(2), a few microseconds.
"""

import errno
import os

import apsw


class Place:
    """Where a writer's files are."""

    def __init__(self) -> None:
        self._path = ""  # empty: no file, nothing to check
        self._database: tuple[int, int] | None = None
        self._log: tuple[int, int] | None = None

    def learn(self, connection: apsw.Connection) -> None:
        """This connection was just opened. Raises OSError: its file is not there."""
        self._path = connection.filename
        self._database = identity(self._path) if self._path else None
        self._log = None  # it may not be there before the first commit

    def check(self) -> None:
        """Raises OSError when what was just committed is not in the files of these names."""
        if not self._path:
            return
        log = identity(f"{self._path}-wal")
        self._log = self._log or log
        if identity(self._path) != self._database or log != self._log:
            raise FileNotFoundError(errno.ENOENT, "the database was deleted or replaced while it was open", self._path)

    def wait_for(self, room: int) -> None:
        """Raises OSError unless the files are back and `room` octets are free on their disk.

        Another database in their place is for a process that starts: this one has readers on the old files, and two
        write-ahead logs of one name spoil each other.
        """
        if not self._path:
            return
        if identity(self._path) != self._database or (self._log and identity(f"{self._path}-wal") != self._log):
            raise FileNotFoundError(errno.ENOENT, "another file is in its place: restart", self._path)
        if room:
            disk = os.statvfs(self._path)
            if disk.f_bavail * disk.f_frsize < room:
                raise OSError(errno.ENOSPC, "the disk is still full", self._path)


def identity(path: str) -> tuple[int, int]:
    """Device and inode of a file. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino
