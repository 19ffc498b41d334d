"""The Makefile's environments: one of another Python is told, never used in silence."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = os.path.basename(sysconfig.get_path("stdlib"))  # python3.11 or later


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def environment(place: Path, library: str) -> None:
    """As venv leaves one: its Python is the one of these tests, and its packages are those of `library`."""
    (place / "lib" / library).mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "bin" / "python").symlink_to(sys.executable)


def make(folder: Path, *words: str) -> str:
    """What it complains of. The variables that `make test` was given are for that run, not for this one."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "PYTHON", "VENV")}
    ran = subprocess.run(
        ["make", "this-python", *words], cwd=folder, env=inherited, stderr=subprocess.PIPE, text=True, timeout=30
    )
    assert (ran.returncode == 0) == (ran.stderr == "")
    return ran.stderr


def test_an_environment_of_the_python_that_is_asked_for_is_taken(folder: Path) -> None:
    assert make(folder) == make(folder, f"PYTHON={sys.executable}") == ""
    environment(folder / ".venv", OWN)
    assert make(folder) == make(folder, f"PYTHON={sys.executable}") == ""


def test_one_of_another_python_is_not_and_another_place_is(folder: Path) -> None:
    environment(folder / ".venv", "python3.9")
    assert ".venv was made with another Python" in make(folder, f"PYTHON={sys.executable}")
    assert make(folder, f"PYTHON={sys.executable}", "VENV=.venv-own") == ""


def test_one_whose_python_became_another_or_is_gone_is_told(folder: Path) -> None:
    environment(folder / ".venv", "python3.9")
    assert ".venv was made with another Python" in make(folder)
    (folder / ".venv" / "bin" / "python").unlink()
    assert "or its Python is gone: remove it" in make(folder)
