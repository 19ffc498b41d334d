"""The command `postroom` as a process of its own, without the second that Python takes to import it.

A server that has everything imported forks for each command: arguments, folder, environment, output and exit status are
a new process's, as `python -m service` has them.
"""

import multiprocessing
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["service.cli", "service.serving", "tests.support.commands"])


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    status: int
    out: str
    err: str


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["postroom", *arguments]
    runpy.run_module("service", run_name="__main__", alter_sys=False)


def run(arguments: list[str], folder: Path, environment: dict[str, str], timeout: float = 60) -> Done:
    """`postroom ARGUMENTS` in `folder`."""
    process = _CONTEXT.Process(target=_run, args=(arguments, str(folder), environment))
    process.start()
    process.join(timeout)
    assert process.exitcode is not None, arguments
    out, err = (Path(f"{folder}.{name}").read_text() for name in ("out", "err"))
    return Done(process.exitcode, out, err)
