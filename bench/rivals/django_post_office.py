"""django-post_office: a Django view that queues into SQLite, and its worker, which sends what is queued.

Its worker is made for cron or Celery. Here it is called again as soon as it is through, so that it does not wait for a minute.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import install
from bench.rivals.node import PROGRAMS
from bench.rivals.rival import WORKERS, Promises, Relay, Rival, Running, free_port, process, relay_environment, server
from bench.rivals.work import Variant, write_templates


class DjangoPostOffice(Rival):
    """gunicorn with a process for each core, and the worker."""

    name = "django-post_office"
    promises = Promises(durable=True, retries=True, log=True, idempotent=False, template=True)
    configuration = (
        "gunicorn (gthread), a process for each core; SQLite in WAL mode, synchronous=FULL; rendered when accepted; its"
        " worker in a loop, 20 ms between its runs, batches of 1000, as many threads as the others have connections; it opens its"
        " connections anew for each run"
    )

    def prepare(self) -> None:
        """Raises NotInstalled when PyPI cannot be reached."""
        install.python()

    @contextlib.contextmanager
    def run(self, variant: Variant, relay: Relay, folder: Path) -> Iterator[Running]:
        """programs/post_office_app.py: its tables, then server and worker."""
        program, port = PROGRAMS / "post_office_app.py", free_port()
        write_templates(folder / "templates", variant.size_kb)
        given = {**relay_environment(variant, relay, folder / "templates"), "BENCH_FOLDER": str(folder)}
        subprocess.run([install.python(), program, "prepare"], env={**os.environ, **given}, check=True, timeout=60)
        options = ["--worker-class", "gthread", "--workers", WORKERS, "--threads", 4, "--keep-alive", 75]
        command = [
            install.python(),
            "-m",
            "gunicorn",
            "post_office_app:application",
            "--chdir",
            PROGRAMS,
            *options,
            "--no-control-socket",
        ]
        log = folder / "server.log"
        with (
            process([install.python(), program, "work"], folder / "worker.log", **given) as worker,
            server([*command, "--bind", f"127.0.0.1:{port}"], port, log, **given) as started,
        ):
            yield Running(port, [started.pid, worker.pid], {})
