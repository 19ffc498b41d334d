"""Traces from a caller's `traceparent` to the mail transaction, for who has OpenTelemetry; for all others, nothing.

A message carries its trace through the queue as the `traceparent` (W3C Trace Context 3.2) of the request that accepted
it: the first line of its delivery log keeps it, and whoever makes an attempt, in whatever process and however late, makes
it part of the same trace. This file decides what spans there are and what they may show: ids, names of relays, counts and
replies' codes; no address, no header, no content. Where the spans go, and which are kept, is OpenTelemetry's and set by
its own variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, ...).

Without an endpoint `OFF` stands in: its methods do nothing, and nothing of OpenTelemetry is imported.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

Attributes = Mapping[str, str | int | bool]
_NOTHING: AbstractContextManager[None] = nullcontext()


class Tracing(Protocol):
    """What the code that is traced may ask for. `on` is False where asking is not worth preparing for."""

    on: bool

    def request(self, method: str, traceparent: str) -> AbstractContextManager[Any]:
        """The span of an HTTP request, a child of the caller's. Yields a handle for `answered`."""

    def answered(self, handle: Any, route: str, status: int) -> None:
        """What the request came to."""

    def step(self, name: str, attributes: Attributes | None = None) -> AbstractContextManager[Any]:
        """A part of the work of the current span."""

    def traceparent(self) -> str | None:
        """The current span, as it is kept with a message."""

    def attempt(self, traceparent: str | None, began: int, ended: int, attributes: Attributes, failed: str) -> None:
        """An attempt that is over, from `began` to `ended` (ms); `failed` is empty or a word for what it came to."""

    def close(self, seconds: float) -> None:
        """Hand over what is still here, for `seconds` at most. It blocks: call it in a thread."""


class _Off:
    """No traces."""

    on = False

    def request(self, _method: str, _traceparent: str) -> AbstractContextManager[Any]:
        return _NOTHING

    def answered(self, _handle: Any, _route: str, _status: int) -> None:
        return

    def step(self, _name: str, _attributes: Attributes | None = None) -> AbstractContextManager[Any]:
        return _NOTHING

    def traceparent(self) -> str | None:
        return None

    def attempt(
        self, _traceparent: str | None, _began: int, _ended: int, _attributes: Attributes, _failed: str
    ) -> None:
        return

    def close(self, _seconds: float) -> None:
        return


OFF: Tracing = _Off()


def trace_id(traceparent: str) -> str:
    """The trace's id in a `traceparent`; empty when it is none (W3C Trace Context 3.2.2)."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""


def open_tracing(endpoint: str, *, role: str) -> Tracing:
    """Spans in batches to `endpoint`/v1/traces, by OTLP over HTTP. Raises ImportError without postroom[otel]."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {"service.name": "postroom", "postroom.role": role}
    told = OTELResourceDetector().detect()  # what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say has more weight
    provider = TracerProvider(resource=Resource.create(named).merge(told), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return Traces(provider)


class Traces:
    """Spans of one provider. Nothing global is set: a library that traces by itself is not drawn in."""

    on = True

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("postroom")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, traceparent: str) -> Iterator[Any]:
        """See Tracing."""
        from opentelemetry.trace import SpanKind

        with self._tracer.start_as_current_span(
            method, self._context(traceparent), SpanKind.SERVER, {"http.request.method": method}, record_exception=False
        ) as span:
            yield span

    def answered(self, handle: Any, route: str, status: int) -> None:
        """See Tracing."""
        from opentelemetry.trace import Status, StatusCode

        method = handle.attributes.get("http.request.method", "") if handle.is_recording() else ""
        handle.update_name(f"{method} {route}")
        handle.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            handle.set_status(Status(StatusCode.ERROR))

    @contextmanager
    def step(self, name: str, attributes: Attributes | None = None) -> Iterator[None]:
        """See Tracing. What went wrong is told by its class alone: the text of an error may quote what was sent."""
        from opentelemetry.trace import Status, StatusCode

        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes or {}), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise

    def traceparent(self) -> str | None:
        """See Tracing."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    def attempt(self, traceparent: str | None, began: int, ended: int, attributes: Attributes, failed: str) -> None:
        """See Tracing."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        span = self._tracer.start_span(
            "attempt", self._context(traceparent or ""), SpanKind.CLIENT, dict(attributes), start_time=began * 1_000_000
        )
        if failed:
            span.set_attribute("error.type", failed)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=ended * 1_000_000)

    def close(self, seconds: float) -> None:
        """See Tracing."""
        self._provider.force_flush(int(seconds * 1000))
        self._provider.shutdown()

    def _context(self, traceparent: str) -> Any:
        """What a `traceparent` says, and never what else is current. A malformed one is as none."""
        from opentelemetry.context import Context

        return self._propagator.extract({"traceparent": traceparent} if traceparent else {}, Context())
