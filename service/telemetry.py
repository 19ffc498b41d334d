"""The catalogue of log events and metrics: every name is declared here once.

Logs are JSON lines on stderr (structlog), with the request id and message id bound where there are any; no line holds
a secret, a body or a variable. Metrics are Prometheus'; one registry for each process, `render()` is what /metrics
answers.
"""

import contextlib
import logging
import sys
from enum import StrEnum
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECRET_NAMES = ("password", "secret", "token", "authorization", "api_key")


class Log(StrEnum):
    """Names of log events."""

    STARTED = "service.started"
    LISTENING = "service.listening"
    STOPPING = "service.stopping"
    STOPPED = "service.stopped"
    REQUEST = "http.request"
    REQUEST_FAILED = "http.failed"
    ATTEMPT = "delivery.attempt"
    LEASE_LOST = "delivery.lease_lost"
    RESCUED = "delivery.rescued"
    ALERT_SENDER_MISMATCH = "alert.sender_mismatch"
    ALERT_COMPOSE = "alert.compose_violation"
    ALERT_RELAY = "alert.relay"
    ALERT_REPLY = "alert.reply"
    RELAY_PAUSED = "relay.paused"
    RELAY_PIPELINING = "relay.pipelining_lowered"
    STORE_FAILED = "store.failed"
    STORE_RECOVERED = "store.recovered"
    HINTS_OFF = "store.hints_off"
    LOOP_FAILED = "loop.failed"
    TEMPLATES_RELOADED = "templates.reloaded"
    TEMPLATES_REFUSED = "templates.refused"
    TEMPLATE_PUBLISHED = "templates.published"
    RELAYS_RELOADED = "relays.reloaded"
    RELAYS_REFUSED = "relays.refused"
    DKIM_RELOADED = "dkim.reloaded"
    DKIM_REFUSED = "dkim.refused"
    DKIM_GAP = "dkim.no_key"
    PURGED = "janitor.purged"
    BOOTSTRAP_KEY = "keys.bootstrap"
    NO_KEYS = "keys.none"
    UNKNOWN_SETTING = "settings.unknown"


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        seconds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
        self.requests = Counter(
            "postroom_http_requests_total", "HTTP requests.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "postroom_http_request_seconds", "Time to answer.", ("route",), buckets=seconds, registry=registry
        )
        self.accepted = Counter("postroom_messages_accepted_total", "Messages with a 202.", registry=registry)
        self.replayed = Counter("postroom_requests_replayed_total", "Answers kept under a key.", registry=registry)
        self.refused = Counter(
            "postroom_submissions_refused_total", "Submissions refused, by code.", ("code",), registry=registry
        )
        self.outcomes = Counter(
            "postroom_recipient_outcomes_total",
            "Outcomes per recipient.",
            ("relay", "event", "kind"),
            registry=registry,
        )
        self.replies = Counter("postroom_replies_total", "Replies by code.", ("relay", "code"), registry=registry)
        self.delivery_seconds = Histogram(
            "postroom_accept_to_sent_seconds",
            "From due time to 250.",
            ("priority",),
            buckets=seconds,
            registry=registry,
        )
        self.attempt_seconds = Histogram(
            "postroom_attempt_seconds", "One mail transaction.", ("relay",), buckets=seconds, registry=registry
        )
        self.leases_lost = Counter("postroom_leases_lost_total", "Results refused by their fence.", registry=registry)
        self.rescued = Counter("postroom_attempts_rescued_total", "Orphaned attempts closed.", registry=registry)
        self.in_doubt = Counter("postroom_attempts_in_doubt_total", "Attempts in doubt.", ("relay",), registry=registry)
        self.queue = Gauge("postroom_recipients", "Recipients by state.", ("state",), registry=registry)
        self.queue_age = Gauge(
            "postroom_queue_age_seconds", "Age of the oldest due recipient.", ("priority",), registry=registry
        )
        self.relay_up = Gauge("postroom_relay_open", "1 while a relay takes mail.", ("relay",), registry=registry)
        self.relay_connections = Gauge("postroom_relay_connections", "Open sessions.", ("relay",), registry=registry)
        self.relay_health = Gauge(
            "postroom_relay_health", "1 for the health a relay has.", ("relay", "health"), registry=registry
        )
        self.relay_quota_left = Gauge(
            "postroom_relay_quota_left", "What priority high may still send.", ("relay", "quota"), registry=registry
        )
        self.relay_alerts = Counter(
            "postroom_relay_alerts_total", "Times that somebody must look.", ("relay", "kind"), registry=registry
        )
        self.relays_reloads = Counter(
            "postroom_relays_reloads_total", "Relays configured anew, by result.", ("result",), registry=registry
        )
        self.relays_current = Gauge(
            "postroom_relays_current", "0 while a fault in the relays' files keeps them from use.", registry=registry
        )
        self.storage_healthy = Gauge("postroom_storage_healthy", "1 while commits succeed.", registry=registry)

    def forget_relay(self, name: str) -> None:
        """A relay that is gone is neither open nor shut."""
        for gauge in (self.relay_up, self.relay_connections, self.relay_health, self.relay_quota_left):
            with contextlib.suppress(KeyError):
                gauge.remove_by_labels({"relay": name})

    def render(self) -> bytes:
        """The exposition text (Prometheus format 0.0.4)."""
        return generate_latest(self.registry)


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name in event:
        if any(word in name.lower() for word in _SECRET_NAMES):
            event[name] = "[redacted]"
    return event


def configure_logging(level: str = "info", form: str = "json") -> None:
    """Log lines on stderr from here on, also those of the standard library's loggers (warnings and up)."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=[*shared]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))


def get_logger() -> Any:
    """The structured logger; call `log.info(Log.NAME, key=value)`."""
    return structlog.get_logger("postroom")
