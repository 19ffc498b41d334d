"""What the handlers work with: one of these for each process, made in app.py."""

from dataclasses import dataclass

from service.api.turns import Turns
from service.clock import Clock
from service.relay.port import Relays
from service.settings import Settings
from service.spool.health import Readiness
from service.spool.keys import Keys
from service.spool.messages import Messages
from service.spool.relays import RelayWatch
from service.spool.submit import Submitter
from service.spool.templates import TemplateLibrary
from service.store.port import Store
from service.telemetry import Metrics
from service.tracing import OFF, Tracing


@dataclass(slots=True)
class Context:
    """The use cases and what they are configured with."""

    settings: Settings
    clock: Clock
    store: Store
    submitter: Submitter
    messages: Messages
    keys: Keys
    templates: TemplateLibrary
    relays: Relays
    readiness: Readiness
    metrics: Metrics
    watch: RelayWatch
    batches: Turns
    tracing: Tracing = OFF
    inflight_bytes: int = 0  # bodies being read or worked on
