"""nodemailer's pool behind node:http: what a small service of one's own in Node is made of. It stores nothing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import install
from bench.rivals.rival import Promises, Relay, Rival, Running, free_port, relay_environment, server
from bench.rivals.work import Variant, write_templates

PROGRAMS = Path(__file__).resolve().parent / "programs"


class Nodemailer(Rival):
    """One process; the queue is nodemailer's, in memory."""

    name = "nodemailer pool, node:http"
    promises = Promises(durable=False, retries=False, log=False, idempotent=False, template=True)
    configuration = (
        "one process (a second one gained nothing on two cores), templates compiled once by Handlebars, a pool of"
        " connections; answers before it sends"
    )

    def prepare(self) -> None:
        """Raises NotInstalled without node and npm."""
        install.node_modules()

    @contextlib.contextmanager
    def run(self, variant: Variant, relay: Relay, folder: Path) -> Iterator[Running]:
        """programs/nodemailer_server.cjs."""
        port, log = free_port(), folder / "log"
        write_templates(folder / "templates", variant.size_kb)
        given = relay_environment(variant, relay, folder / "templates")
        given |= {"BENCH_PORT": str(port), "NODE_PATH": str(install.node_modules()), "NODE_ENV": "production"}
        with server(["node", PROGRAMS / "nodemailer_server.cjs"], port, log, **given) as started:
            yield Running(port, [started.pid], {})
