"""Rivals from PyPI and npm, in a cache folder of the user: locked by hash, in a folder named by the lock, nothing global.

`$XDG_CACHE_HOME/postroom-bench` or `~/.cache/postroom-bench`. What is there is used again; a lock that changes makes a
new folder beside the old one, and so does another Python: all that are compared run on the one that runs this. Postfix comes
from the system, since it needs its own user: `apt-get install postfix`.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
_PATIENCE = 600  # seconds for one installation
_SHOWN = ("django", "django-post-office", "fastapi", "fastapi-mail", "gunicorn", "uvicorn")


class NotInstalled(Exception):
    """The sentence why a rival cannot take part."""


def cache() -> Path:
    """Where it all stands."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "postroom-bench"


def python() -> Path:
    """The interpreter of the rivals from PyPI. Raises NotInstalled."""
    lock = HERE / "requirements.txt"
    build = hashlib.sha256(f"{sys.base_prefix} {sys.version}".encode()).hexdigest()[:8]
    folder = cache() / f"python-{sys.version_info.major}.{sys.version_info.minor}-{build}-{_digest(lock)}"
    program = folder / "bin" / "python"
    if not _complete(folder):
        print(f"installing rivals from PyPI into {folder} ...", flush=True)
        _run("PyPI", sys.executable, "-m", "venv", "--clear", str(folder))
        given = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(lock))
        _run("PyPI", str(program), *given)
        _mark(folder)
    return program


def node_modules() -> Path:
    """The packages of the rivals from npm. Raises NotInstalled."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotInstalled(f"{program} is not installed")
    folder = cache() / f"node-{_digest(HERE / 'package-lock.json')}"
    if not _complete(folder):
        print(f"installing rivals from npm into {folder} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        _run("npm", "npm", "ci", "--prefix", str(folder), *quiet)
        _mark(folder)
    return folder / "node_modules"


def versions() -> str:
    """Of the rivals, as locked, and of what the system brings."""
    locked = re.findall(r"^([a-z-]+)==(\S+)", (HERE / "requirements.txt").read_text(), re.M)
    found = [f"{name} {number}" for name, number in locked if name in _SHOWN]
    packages = json.loads((HERE / "package.json").read_text())["dependencies"]
    found += [f"{name} {number}" for name, number in packages.items()]
    for name, *command in (("Node", "node", "--version"), ("Postfix", "postconf", "-d", "-h", "mail_version")):
        if (program := shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin")) is not None:
            ran = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=True, timeout=60)
            found.append(f"{name} {ran.stdout.strip().removeprefix('v')}")
    return ", ".join(found)


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def _complete(folder: Path) -> bool:
    return (folder / "complete").exists()


def _mark(folder: Path) -> None:
    (folder / "complete").touch()


def _run(source: str, *command: str) -> None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"the installation from {source} took more than {_PATIENCE} s") from None
    if ran.returncode:
        raise NotInstalled(f"the installation from {source} failed: {ran.stderr.strip()[-500:]}")
