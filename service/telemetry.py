"""The catalogue of log events and metrics: every name is declared here once.

Logs are JSON lines on stderr (structlog), with `request_id` and the message's `id` on every line that concerns one. No
code here logs a secret, a body or a variable, and service/redaction.py is the net under that. Metrics are Prometheus';
one registry for each process, `render()` is what /metrics answers.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.redaction import REDACTED, is_secret_name, redact

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Log(StrEnum):
    """Names of log events."""

    STARTED = "service.started"
    LISTENING = "service.listening"
    STOPPING = "service.stopping"
    STOPPED = "service.stopped"
    CUT_OFF = "service.cut_off"
    REQUEST = "http.request"
    REQUEST_FAILED = "http.failed"
    ATTEMPT = "delivery.attempt"
    LEASE_LOST = "delivery.lease_lost"
    ELSEWHERE = "delivery.elsewhere"
    ATTEMPT_FAULT = "delivery.fault"
    RESCUED = "delivery.rescued"
    ALERT_SENDER_MISMATCH = "alert.sender_mismatch"
    ALERT_COMPOSE = "alert.compose_violation"
    ALERT_RELAY = "alert.relay"
    ALERT_REPLY = "alert.reply"
    RELAY_PAUSED = "relay.paused"
    RELAY_PIPELINING = "relay.pipelining_lowered"
    STORE_FAILED = "store.failed"
    STORE_RECOVERED = "store.recovered"
    STORE_AWAITED = "store.awaited"
    HINTS_OFF = "store.hints_off"
    STEPS_LEFT = "store.steps_left"
    STORE_IS_A_COPY = "store.is_a_copy"
    LOOP_FAILED = "loop.failed"
    LOOP_RECOVERED = "loop.recovered"
    TEMPLATES_RELOADED = "templates.reloaded"
    TEMPLATES_REFUSED = "templates.refused"
    TEMPLATE_PUBLISHED = "templates.published"
    RELAYS_RELOADED = "relays.reloaded"
    RELAYS_REFUSED = "relays.refused"
    REFRESH_TOKEN_NOT_KEPT = "relays.refresh_token_not_kept"  # noqa: S105 - the name of an event
    DKIM_RELOADED = "dkim.reloaded"
    DKIM_REFUSED = "dkim.refused"
    DKIM_GAP = "dkim.no_key"
    PURGED = "janitor.purged"
    CLOCK_DOUBTED = "janitor.clock_doubted"
    CLOCK_JUMPED = "clock.jumped"
    CLOCK_BELIEVED = "clock.believed"
    BOOTSTRAP_KEY = "keys.bootstrap"
    NO_KEYS = "keys.none"
    TRACING = "tracing.on"
    TRACING_MISSING = "tracing.missing"
    UNKNOWN_SETTING = "settings.unknown"


_M = TypeVar("_M", Counter, Histogram)


@lru_cache(maxsize=4096)
def labelled(metric: _M, *values: str) -> _M:
    """One series of a metric, looked up fast. Whoever takes a series away clears what is kept here."""
    return metric.labels(*values)


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_GROUP = (1, 2, 4, 8, 16, 32, 64, 128)  # operations; a group has 128 at most
_log_lines_lost = Counter("postroom_log_lines_lost_total", "Log lines that stderr did not take.", registry=None)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """A method of HTTP as a label: what a client makes up is `other`, so that it makes no new series."""
    return method if method in _METHODS else "other"


class Metrics:
    """All metrics of one process. No label holds what a client can make up: no id, no address, no text of a reply."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_requests()
        self._of_delivery()
        self._of_the_queue()
        self._of_relays()
        self._of_storage()
        self.log_lines_lost = _log_lines_lost  # one stderr for all that this process runs
        self.registry.register(_log_lines_lost)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"postroom_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"postroom_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        return Histogram(f"postroom_{name}", help, labels, buckets=buckets, registry=self.registry)

    def _of_requests(self) -> None:
        self.requests = self._counter("http_requests_total", "HTTP requests answered.", "method", "route", "status")
        self.request_seconds = self._histogram(
            "http_request_seconds", "From the head of a request to the end of its answer.", "route"
        )
        self.accepted = self._counter("messages_accepted_total", "Messages that got a 202 after a durable commit.")
        self.replayed = self._counter(
            "requests_replayed_total", "Requests answered with what their key was told before."
        )
        self.refused = self._counter("submissions_refused_total", "Requests refused for what they asked.", "code")

    def _of_delivery(self) -> None:
        self.outcomes = self._counter(
            "recipient_outcomes_total", "What attempts came to, for each recipient.", "relay", "event", "kind"
        )
        self.replies = self._counter(
            "replies_total",
            "Replies of relays for recipients, by class (2yz, 4yz, 5yz) and code.",
            "relay",
            "class",
            "code",
        )
        self.delivery_seconds = self._histogram(
            "accept_to_sent_seconds", "From the time a message was due (at once: accepted) to its 250.", "priority"
        )
        self.attempt_seconds = self._histogram("attempt_seconds", "One mail transaction.", "relay")
        self.claim_seconds = self._histogram("claim_seconds", "One claim: waiting for its commit included.")
        self.leases_lost = self._counter("leases_lost_total", "Results refused because another sender had the lease.")
        self.rescued = self._counter("attempts_rescued_total", "Attempts that a vanished process left open, closed.")
        self.in_doubt = self._counter("attempts_in_doubt_total", "Attempts whose final reply was lost.", "relay")

    def _of_the_queue(self) -> None:
        self.queue = self._gauge("recipients", "Recipients by state, of the whole store.", "state")
        self.queue_age = self._gauge(
            "queue_age_seconds", "For how long the oldest recipient that is due has waited.", "priority"
        )

    def _of_relays(self) -> None:
        self.relay_up = self._gauge("relay_open", "1 while a relay takes mail.", "relay")
        self.relay_connections = self._gauge("relay_connections", "Open sessions of this process.", "relay")
        self.relay_health = self._gauge("relay_health", "1 for the health a relay has.", "relay", "health")
        self.relay_quota_left = self._gauge(
            "relay_quota_left", "What priority normal may still send, in the quota's unit.", "relay", "quota"
        )
        self.relay_quota_left_for_high = self._gauge(
            "relay_quota_left_for_high", "What priority high may still send, in the quota's unit.", "relay", "quota"
        )
        self.relay_alerts = self._counter("relay_alerts_total", "Times that somebody must look.", "relay", "kind")
        self.relays_reloads = self._counter("relays_reloads_total", "Relays configured anew, by result.", "result")
        self.relays_current = self._gauge("relays_current", "0 while a fault in the relays' files keeps them from use.")

    def _of_storage(self) -> None:
        self.storage_healthy = self._gauge("storage_healthy", "1 while commits succeed, asked at the scrape.")
        self.storage_failures = self._counter("storage_failures_total", "Times that the store stopped taking writes.")
        self.commit_seconds = self._histogram(
            "commit_seconds", "One group commit, from its first statement to the disk.", "lane"
        )
        self.commit_operations = self._histogram(
            "commit_operations", "Operations that shared one commit.", "lane", buckets=_GROUP
        )

    def know_relay(self, name: str, refusals: Iterable[str]) -> None:
        """Its counters that alerts ask for begin at zero: Prometheus sees no increase in a series that begins at one.

        refusals: the kinds of outcomes by which its policy may refuse a recipient for good.
        """
        self.in_doubt.labels(name)
        self.outcomes.labels(name, "sent", "sent")
        for kind in refusals:
            self.outcomes.labels(name, "refused", kind)

    def forget_relay(self, name: str) -> None:
        """A relay that is gone is neither open nor shut, and counts nothing."""
        gauges = (self.relay_up, self.relay_connections, self.relay_health)
        of_quotas = (self.relay_quota_left, self.relay_quota_left_for_high)
        counted = (self.outcomes, self.replies, self.attempt_seconds, self.in_doubt, self.relay_alerts)
        for metric in (*gauges, *of_quotas, *counted):
            with contextlib.suppress(KeyError):
                metric.remove_by_labels({"relay": name})
        labelled.cache_clear()

    def render(self) -> bytes:
        """The exposition text (Prometheus format 0.0.4)."""
        return generate_latest(self.registry)


def _redactor(addresses: bool) -> structlog.typing.Processor:
    """Runs after traces have become text, so that what an exception quotes is seen too."""

    def redacted(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        for name, value in event.items():
            if not name.startswith("_"):  # those are of the standard library's records, and are taken out
                event[name] = REDACTED if is_secret_name(name) else redact(value, addresses=addresses)
        return event

    return redacted


class _Stderr:
    """What was there when it was made. A line that it does not take, since its reader is gone or a disk is full, is lost
    and counted: what it tells of must go on.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            _log_lines_lost.inc()
            return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(level: str = "info", form: str = "json", *, addresses: bool = False) -> None:
    """Log lines on stderr from here on, also those of the standard library's loggers (warnings and up).

    addresses: whether whole addresses are written; otherwise their local parts are taken out.
    """
    stderr: Any = _Stderr()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        # a plain traceback: a pretty one shows the values of variables
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redactor(addresses),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(stderr),  # a line in one piece: role `apart` has two writers
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=[*shared]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))


def bind_message(id: str) -> None:
    """From here on the lines of this request name the message that they concern, as `id`."""
    structlog.contextvars.bind_contextvars(id=id)


def get_logger() -> Any:
    """The structured logger; call `log.info(Log.NAME, key=value)`."""
    return structlog.get_logger("postroom")
