"""An operation of the API as data: its route, who may call it, what it takes, answers and refuses.

The routes and the OpenAPI document are both made from these, so that they can't drift apart.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service import errors
from service.api.context import Context
from service.errors import PostroomError
from service.spool.values import Caller


@dataclass(slots=True)
class Call:
    """One request on its way through a handler."""

    request: Request
    context: Context
    caller: Caller
    request_id: str


Handler = Callable[[Call], Awaitable[Response]]
ErrorType = type[PostroomError]

ALWAYS: tuple[ErrorType, ...] = (
    errors.MissingApiKey,
    errors.InvalidApiKey,
    errors.InsufficientScope,
    errors.MisdirectedRequest,
    errors.StorageUnavailable,
    errors.InternalError,
)
WITH_BODY: tuple[ErrorType, ...] = (
    errors.MalformedJson,
    errors.RequestTimeout,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
    errors.ValidationFailed,
    errors.QueueFull,
)


@dataclass(frozen=True, slots=True)
class Success:
    """An answer that is no error."""

    status: int
    description: str
    example: Any = None
    schema: Mapping[str, Any] | str | None = None  # a JSON Schema, or the name of one in openapi_schemas
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)  # name -> description


@dataclass(frozen=True, slots=True)
class Operation:
    """See the module."""

    method: str
    path: str
    id: str
    tag: str
    summary: str
    description: str
    handler: Handler
    successes: tuple[Success, ...]
    scope: str | None = None  # None: anybody
    body: type[BaseModel] | None = None
    body_optional: bool = False  # no body is as good as {}
    examples: Mapping[str, Any] = field(default_factory=dict)  # request bodies by name
    example_query: Mapping[str, Any] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    errors: tuple[ErrorType, ...] = ()
    idempotent: bool = False  # takes Idempotency-Key
    wait: bool = False  # takes Prefer: wait
    path_examples: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_errors(self) -> tuple[ErrorType, ...]:
        """Every error it can answer, once each."""
        found = list(self.errors)
        if self.scope is not None:
            found += ALWAYS
        if self.body is not None:
            found += WITH_BODY
        return tuple(dict.fromkeys(found))
