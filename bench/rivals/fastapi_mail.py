"""fastapi-mail in BackgroundTasks under uvicorn: what its documentation shows, made as fast as it lets itself be made."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import install
from bench.rivals.node import PROGRAMS
from bench.rivals.rival import WORKERS, Promises, Relay, Rival, Running, free_port, relay_environment, server
from bench.rivals.work import Variant, write_templates


class FastapiMail(Rival):
    """As many processes as cores."""

    name = "fastapi-mail, BackgroundTasks"
    promises = Promises(durable=False, retries=False, log=False, idempotent=False, template=True)
    configuration = (
        "uvicorn with uvloop and httptools, a process for each core, templates cached, a semaphore as wide as the others'"
        " pools; it opens a connection for each message and answers before it sends"
    )

    def prepare(self) -> None:
        """Raises NotInstalled when PyPI cannot be reached."""
        install.python()

    @contextlib.contextmanager
    def run(self, variant: Variant, relay: Relay, folder: Path) -> Iterator[Running]:
        """programs/fastapi_mail_app.py."""
        port, log = free_port(), folder / "log"
        write_templates(folder / "templates", variant.size_kb)
        given = relay_environment(variant, relay, folder / "templates", WORKERS)
        command = [install.python(), "-m", "uvicorn", "fastapi_mail_app:app", "--app-dir", PROGRAMS, "--port", port]
        options = ["--workers", WORKERS, "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        with server([*command, *options], port, log, **given) as started:
            yield Running(port, [started.pid], {})
