"""Haraka with its queue on disk. Its outbound side takes messages from plugins, so a plugin of ours is its HTTP door.

The plugin (programs/haraka_http.js) renders by Handlebars, composes by nodemailer's MailComposer and hands the message to
Haraka's documented `outbound.send_email`; it answers when Haraka says that the message is queued, which is after an fsync.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import install
from bench.rivals.node import PROGRAMS
from bench.rivals.rival import WORKERS, Promises, Relay, Rival, Running, free_port, relay_environment, server
from bench.rivals.work import Variant, write_templates


class Haraka(Rival):
    """As many processes as cores."""

    name = "Haraka, HTTP plugin"
    promises = Promises(durable=True, retries=True, log=True, idempotent=False, template=True)
    configuration = (
        "a process for each core, concurrency_max in all as many as the others have connections, log at notice; it opens a"
        " connection for each message and does not verify the relay's certificate"
    )

    def prepare(self) -> None:
        """Raises NotInstalled without node and npm."""
        install.node_modules()

    @contextlib.contextmanager
    def run(self, variant: Variant, relay: Relay, folder: Path) -> Iterator[Running]:
        """`haraka -c FOLDER`."""
        port, log, modules = free_port(), folder / "log", install.node_modules()
        write_templates(folder / "templates", variant.size_kb)
        _lay_out(folder, max(variant.connections // WORKERS, 1), secure=relay.ca_file is not None)
        given = relay_environment(variant, relay, folder / "templates", WORKERS)
        given |= {"BENCH_PORT": str(port), "NODE_PATH": str(modules), "NODE_ENV": "production"}
        with server(["node", modules / "Haraka" / "bin" / "haraka", "-c", folder], port, log, **given) as started:
            yield Running(port, [started.pid], {})


def _lay_out(folder: Path, deliveries: int, *, secure: bool) -> None:
    for name in ("config", "plugins", "queue"):
        (folder / name).mkdir()
    shutil.copy(PROGRAMS / "haraka_http.js", folder / "plugins" / "haraka_http.js")
    files = {
        "plugins": "haraka_http\n",
        "me": "haraka.bench.example\n",
        "loglevel": "NOTICE\n",
        "smtp.ini": f"listen=127.0.0.1:{free_port()}\nnodes={WORKERS if WORKERS > 1 else 0}\n",
        "outbound.ini": f"concurrency_max={deliveries}\nenable_tls={str(secure).lower()}\nlocal_mx_ok=true\n",
        "tls.ini": "[redis]\ndisable_for_failed_hosts=false\n",
    }
    for name, text in files.items():
        (folder / "config" / name).write_text(text)
