"""SQLite alone: the system calls show that the WAL is synced after its last write and before the acknowledgement."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("child.py")


@pytest.fixture
def strace() -> str:
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed: that the sync precedes the acknowledgement is NOT tested here")
    return program


def calls_of(strace: str, folder: Path, mode: str) -> list[str]:
    """What a child did between opening the store and saying `accepted`: W a write to the WAL, S a sync of it."""
    trace = folder / "trace"
    subprocess.run(
        [strace, "-f", "-y", "-o", str(trace), "-e", "trace=pwrite64,write,fsync,fdatasync", sys.executable, str(CHILD),
         mode, f"sqlite:///{folder}/post.db", "child-1"], check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    lines = trace.read_text(errors="replace").splitlines()
    opened = next(number for number, line in enumerate(lines) if "write(1<" in line and '"open' in line)
    accepted = next(number for number, line in enumerate(lines) if "write(1<" in line and '"accepted' in line)
    letters: list[str] = []
    for line in lines[opened:accepted]:
        if "sync resumed>" in line:  # it ends here; where it began, another thread's call came in between
            letters.append("S")
        elif "post.db-wal>" in line and "<unfinished" not in line:
            letters.append("S" if "sync(" in line else "W")
        elif "pwrite64(" in line and "post.db-wal>" in line:
            letters.append("W")
    return letters


def test_the_wal_is_synced_between_its_last_write_and_the_acknowledgement(strace: str, tmp_path: Path) -> None:
    calls = calls_of(strace, tmp_path, "once")
    assert calls.count("W") > 2
    assert calls[-1] == "S", calls


def test_the_control_without_syncs_shows_none(strace: str, tmp_path: Path) -> None:
    """Otherwise the test above could not fail."""
    calls = calls_of(strace, tmp_path, "unsynced")
    assert calls.count("W") > 2
    assert "S" not in calls
