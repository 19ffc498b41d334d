"""A request's head in bounds: uvicorn with httptools reads one of any length, for any time, before anybody is asked for a key.

Here too: the trailer fields and the extensions of a chunked body, which no body's limit counts; and what is no HTTP. All of
these are answered with a problem, as api answers what it refuses, and counted and logged as its requests are. A body's own
octets and its time are api/body's.
"""

import asyncio
from typing import Any, ClassVar

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.problems import MEDIA_TYPE, problem_document
from service.clock import Clock
from service.errors import HeadTimeout, HeadTooLarge, MalformedRequest, PostroomError
from service.settings import Settings
from service.telemetry import Log, Metrics, get_logger, labelled

log = get_logger()
_NO_ROUTE = "other"  # as of a path that there is not


class BoundedHead(HttpToolsProtocol):
    """One connection. Made by `protocol_of`."""

    largest: ClassVar[int]  # octets
    longest: ClassVar[float]  # seconds
    clock: ClassVar[Clock]
    metrics: ClassVar[Metrics]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._fruitless = 0  # octets since a head was whole or a body grew
        self._fruit = False
        self._in_head = True
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nothing is owed to a connection that says nothing."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what was read and made nothing whole."""
        self._fruit = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._fruitless = 0 if self._fruit else self._fruitless + len(data)
        if self._fruitless > self.largest:
            self._refuse(HeadTooLarge(f"POSTROOM_MAX_HEAD_BYTES allows {self.largest} octets before a body."))
        elif self._in_head and self._late is None:
            self._wait()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._fruit, self._in_head = True, False
        self._wait_no_more()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A body grows."""
        self._fruit = True
        super().on_body(body)

    def _wait(self) -> None:
        self._late = self.loop.call_later(self.longest, self._too_late)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _owes_an_answer(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _too_late(self) -> None:
        """A client that has asked for nothing would take a 408 for the answer to what it asks next."""
        self._late = None
        if self._owes_an_answer():  # to the request before: this one's turn has not come
            self._wait()
        elif self._fruitless:
            self._refuse(HeadTimeout(f"POSTROOM_HEAD_TIMEOUT allows {self.longest:g} seconds for the head."))
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, for the parser."""
        self._refuse(MalformedRequest())

    def _may_answer(self) -> bool:
        """What would be written into another answer would be read as its part; of a body's request, no other is under way."""
        if not self._owes_an_answer():
            return True
        return not self._in_head and not self.pipeline and not self.cycle.response_started

    def _refuse(self, error: PostroomError) -> None:
        if self._may_answer():
            self.transport.write(self._answer(error))
        self.transport.close()

    def _answer(self, error: PostroomError) -> bytes:
        """A problem without `instance`: the path is not known yet."""
        id = self.clock.new_id("req_")
        labelled(self.metrics.requests, _NO_ROUTE, _NO_ROUTE, str(error.status)).inc()
        self.metrics.refused.labels(error.code).inc()
        log.info(Log.REQUEST, route=_NO_ROUTE, status=error.status, code=error.code, request_id=id)
        document = {name: each for name, each in problem_document(error, "", id).items() if name != "instance"}
        body = to_json(document)
        fields = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", id.encode()),
        ]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        return STATUS_LINE[error.status] + head + b"\r\n" + body


def protocol_of(settings: Settings, clock: Clock, metrics: Metrics) -> type[BoundedHead]:
    """The protocol with this service's limits."""
    members = {
        "largest": settings.max_head_bytes,
        "longest": settings.head_timeout,
        "clock": clock,
        "metrics": metrics,
    }
    return type("BoundedHeadOfService", (BoundedHead,), members)
