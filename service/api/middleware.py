"""Around every request: the name it was asked under, an id, a span, a metric, a log line, and the staging guard's header.

What went wrong is logged at info, or error, and at warning if a stop cut it off; what went well at debug, because the
metrics count it.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.context import Context
from service.api.hosts import hosts_of
from service.api.problems import problem_response
from service.errors import InternalError
from service.telemetry import Log, get_logger, labelled, method_label

log = get_logger()
_LONGEST_PATH = 200  # characters in a log line
_CUT_OFF = (
    "The process stopped before it could answer, and the request may have been carried out. Repeat it with the"
    " Idempotency-Key that it had; without one look at GET /messages first, for a repeat may send a second copy."
)
_LAST_WORDS = 0.3  # seconds for a client that may not read; less than serving waits for those that it cuts off
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")


class Around:
    """Pure ASGI: no task, no copy of the body."""

    def __init__(self, app: ASGIApp, context: Context, direct: Mapping[tuple[str, str], ASGIApp]) -> None:
        self._app, self._context, self._direct = app, context, direct
        self._hosts = hosts_of(context.settings)

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

        app = self._direct.get((scope["method"], scope["path"]), self._app)
        if self._hosts is not None and (refusal := self._hosts.refusal(scope)) is not None:
            context.metrics.refused.labels(refusal.code).inc()
            app = problem_response(refusal, scope["path"], id.decode())
        try:
            if not context.tracing.on:
                await app(scope, receive, answer)
            else:
                parent = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
                with context.tracing.request(method_label(scope["method"]), parent.decode("latin-1")) as span:
                    await app(scope, receive, answer)
                    context.tracing.answered(span, scope["state"].get("route", "other"), status)
        except asyncio.CancelledError:  # the end of a stop's grace
            if not status:
                problem = problem_response(InternalError(_CUT_OFF), scope["path"], id.decode())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORDS):
                        await problem(scope, receive, answer)
            self._count(scope, status, context.clock.monotonic() - began, log.warning)
            raise
        say = log.error if status >= 500 else log.info if status >= 400 else log.debug
        self._count(scope, status, context.clock.monotonic() - began, say)

    def _count(self, scope: Scope, status: int, seconds: float, say: Callable[..., Any]) -> None:
        route: Any = scope.get("state", {}).get("route", "other")
        metrics = self._context.metrics
        labelled(metrics.requests, method_label(scope["method"]), route, str(status)).inc()
        labelled(metrics.request_seconds, route).observe(seconds)
        path, milliseconds = scope["path"][:_LONGEST_PATH], round(seconds * 1000, 1)
        say(Log.REQUEST, method=scope["method"], route=route, path=path, status=status, milliseconds=milliseconds)
