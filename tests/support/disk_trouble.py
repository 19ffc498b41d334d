"""A disk that refuses what a test tells it to, under a real process: a shim before the C library, made by gcc here.

`refuse("fsync", errno.EIO)` makes every sync of a file named `*.db` or `*.db-wal` fail until `mend()`; `write` likewise.
"""

import errno
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.postgres import IN_CI

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int concerns(int handle) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, ".db") != NULL && strstr(path, ".db.") == NULL && strstr(path, "-shm") == NULL;
}

static int refused(const char *what, int handle) {
    const char *file = getenv("DISK_TROUBLE");
    char kind[16];
    int number, found = 0;
    FILE *told = file ? fopen(file, "r") : NULL;
    if (!told) return 0;
    if (fscanf(told, "%15s %d", kind, &number) == 2 && !strcmp(kind, what) && concerns(handle)) found = number;
    fclose(told);
    return found;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TRY(what) do { int number = refused(what, handle); if (number) { errno = number; return -1; } } while (0)

int fsync(int handle) { TRY("fsync"); return REAL(fsync)(handle); }
int fdatasync(int handle) { TRY("fsync"); return REAL(fdatasync)(handle); }
ssize_t pwrite(int handle, const void *data, size_t size, off_t at) { TRY("write"); return REAL(pwrite)(handle, data, size, at); }
ssize_t pwrite64(int handle, const void *data, size_t size, off64_t at) { TRY("write"); return REAL(pwrite64)(handle, data, size, at); }
ssize_t write(int handle, const void *data, size_t size) { TRY("write"); return REAL(write)(handle, data, size); }
"""


class DiskTrouble:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            _missing("gcc is not installed: the disk that refuses to sync can't be made")
        source, self._library, self._told = folder / "trouble.c", folder / "trouble.so", folder / "trouble"
        source.write_text(_SOURCE)
        command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"]
        subprocess.run(command, check=True)

    @property
    def wrapper(self) -> tuple[str, ...]:
        """Put before the command of a process."""
        return "env", f"LD_PRELOAD={self._library}", f"DISK_TROUBLE={self._told}"

    def refuse(self, what: str, number: int = errno.EIO) -> None:
        """From now on `fsync` or `write` fails with this errno."""
        fresh = self._told.with_suffix(".new")
        fresh.write_text(f"{what} {number}\n")
        fresh.rename(self._told)

    def mend(self) -> None:
        """From now on all is well."""
        self._told.unlink()


def small_disk(folder: Path, size: str) -> None:
    """Mount a tmpfs there; skips where that is not allowed."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode != 0:
        _missing(f"a small disk needs the right to mount: {done.stderr.decode().strip()}")


def _missing(why: str) -> NoReturn:
    """CI has what these tests need, or it is broken."""
    if IN_CI:
        pytest.fail(why)
    pytest.skip(f"SKIPPED: {why}")
