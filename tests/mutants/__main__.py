"""`make mutants`: break one guard after the other in a copy of the tree; the test that is named for it must fail.

tests/mutants/mutants.toml is the list. A mutant whose words are not found in the file any more, or whose test does not
run, is a fault of the list and fails as well. `python -m tests.mutants NAME ...` takes some of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("service", "tests", "templates", "bench", "openapi", "docs", "README.md", "pyproject.toml", "Makefile")
_FAILED = 1  # pytest's exit code when tests ran and some failed
_DEADLINE = 300  # seconds for a test


@dataclass(frozen=True, slots=True)
class Mutant:
    """A guard, how it is broken, and the test that must notice."""

    name: str
    changes: Sequence[tuple[str, str, str]]  # file, what stands there once, what takes its place
    test: str


def load() -> list[Mutant]:
    """The list. A mutant with several guards that each hold alone has several `changes`."""
    data = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))
    return [_mutant(name, values) for name, values in data.items()]


def _mutant(name: str, values: dict[str, Any]) -> Mutant:
    changes = values.get("changes", [values])
    return Mutant(name, [(each["file"], each["find"], each["replace"]) for each in changes], values["test"])


def faults(mutants: Sequence[Mutant]) -> list[str]:
    """What is wrong with the list itself: words that do not stand in their file exactly once."""
    found = []
    for mutant in mutants:
        for file, find, replace in mutant.changes:
            count = (ROOT / file).read_text(encoding="utf-8").count(find)
            if count != 1 or find == replace:
                found.append(f"{mutant.name}: {file}: its words stand there {count} times, not once: {find!r}")
    return found


def _caught(copy: Path, mutant: Mutant) -> str:
    """An empty text when its test fails; else what is wrong."""
    before: dict[Path, str] = {}
    for name, find, replace in mutant.changes:
        file = copy / name
        text = file.read_text(encoding="utf-8")
        before.setdefault(file, text)
        file.write_text(text.replace(find, replace), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.test.split()]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        return ""  # what hangs for so long is noticed too
    finally:
        for file, text in before.items():
            file.write_text(text, encoding="utf-8")
    if ran.returncode == _FAILED:
        return ""
    return (
        "its test passes" if ran.returncode == 0 else f"its test does not run: {ran.stdout[-300:]}{ran.stderr[-300:]}"
    )


def main(names: Sequence[str]) -> int:
    """How many mutants were not caught, as an exit code."""
    mutants = [each for each in load() if not names or each.name in names]
    if wrong := faults(mutants):
        print("\n".join(wrong))
        return 1
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "postroom"
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.is_file():
                copy.mkdir(exist_ok=True)
                shutil.copy(source, copy / name)
        for mutant in mutants:
            began = time.monotonic()
            complaint = _caught(copy, mutant)
            survivors += bool(complaint)
            print(
                f"{'SURVIVED' if complaint else 'caught  '} {time.monotonic() - began:6.1f} s  {mutant.name}  {complaint}"
            )
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
