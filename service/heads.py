"""A request's head in bounds: uvicorn with httptools reads one of any length, for any time, before anybody is asked for a key.

Here too: the trailer fields and the extensions of a chunked body, which no body's limit counts. A body's own octets and its
time are api/body's.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"  # RFC 6585 section 5
_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"  # RFC 9110 section 15.5.9


class BoundedHead(HttpToolsProtocol):
    """One connection. Made by `protocol_of`."""

    largest: ClassVar[int]  # octets
    longest: ClassVar[float]  # seconds

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
            self._refuse(_TOO_LARGE)
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
            self._refuse(_TOO_LATE)
        else:
            self.transport.close()

    def _refuse(self, answer: bytes) -> None:
        """What would be written into another answer would be read as its part."""
        if not self._owes_an_answer():
            self.transport.write(answer)
        self.transport.close()


def protocol_of(settings: Settings) -> type[BoundedHead]:
    """The protocol with this service's limits."""
    limits = {"largest": settings.max_head_bytes, "longest": settings.head_timeout}
    return type("BoundedHeadOfService", (BoundedHead,), limits)
