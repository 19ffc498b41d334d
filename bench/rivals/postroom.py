"""Postroom itself, with its full feature set: keys, an Idempotency-Key a request, limits, the gate, the delivery log."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.__main__ import TOKEN, postroom
from bench.rivals.rival import LOGIN, SECRET, Promises, Relay, Rival, Running
from bench.rivals.work import Variant, write_postroom_template


class Postroom(Rival):
    """One process on SQLite, one message a request."""

    name = "Postroom"
    kind = "postroom"
    promises = Promises(durable=True, retries=True, log=True, idempotent=True, template=True)
    configuration = "one process, SQLite, every 202 after an fsync; API key, Idempotency-Key and recipient limit in use"
    role = "all"

    def prepare(self) -> None:
        """It is here."""

    @contextlib.contextmanager
    def run(self, variant: Variant, relay: Relay, folder: Path) -> Iterator[Running]:
        """`postroom serve`."""
        templates = folder / "templates"
        write_postroom_template(templates, variant.size_kb)
        with postroom(_url(variant, relay), templates_dir=templates, role=self.role) as service:
            yield Running(service.port, [service.process.pid], {"Authorization": f"Bearer {TOKEN}"})


class PostroomBatch(Postroom):
    """The same by POST /send/batch."""

    name = "Postroom, batches of 50"
    kind = "postroom-batch"
    path = "/send/batch"
    batch = 50
    configuration = "the same service; 50 messages a request share one commit, and are stored or refused together"


class PostroomApart(Postroom):
    """Two processes, on two cores."""

    name = "Postroom, apart"
    configuration = "`--role apart`: the same in two processes, one that answers and one that sends"
    role = "apart"


class PostroomApartBatch(PostroomBatch):
    """Both."""

    name = "Postroom, apart, batches"
    configuration = "`--role apart` and batches of 50"
    role = "apart"


def _url(variant: Variant, relay: Relay) -> str:
    options = f"max_connections={variant.connections}&max_messages_per_connection=100000"
    if relay.ca_file is None:
        return f"smtp://127.0.0.1:{relay.port}?plaintext=allow&{options}"
    return f"smtp+starttls://{LOGIN}:{SECRET}@127.0.0.1:{relay.port}?ca_file={relay.ca_file}&{options}"
