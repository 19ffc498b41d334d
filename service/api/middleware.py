"""Around every request: an id, a metric, a log line for what went wrong, and the staging guard's header."""

import re
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.context import Context
from service.telemetry import Log, get_logger

log = get_logger()
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")


class Around:
    """Pure ASGI: no task, no copy of the body."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = self._context
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        id = given if _SANE_ID.fullmatch(given) else context.clock.new_id("req_").encode()
        scope.setdefault("state", {})["request_id"] = id.decode()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=id.decode())
        began = context.clock.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                headers.append((b"x-request-id", id))
                if context.readiness.guard is not None:
                    headers.append((b"x-postroom-guard", context.readiness.guard.encode("ascii", "replace")))
            await send(message)

        await self._app(scope, receive, answer)
        self._count(scope, status, context.clock.monotonic() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("state", {}).get("route", "other")
        metrics = self._context.metrics
        metrics.requests.labels(scope["method"], route, str(status)).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        if status >= 400:
            say = log.error if status >= 500 else log.info
            say(Log.REQUEST, method=scope["method"], route=route, status=status, milliseconds=round(seconds * 1000, 1))
