"""Reading a request's body: bounded in bytes and time, strict in JSON.

Nothing is read that can't be used: type, encoding and declared length are looked at first. What is counted while
streaming can't be lied about by a header. JSON is RFC 8259 and stricter: UTF-8, no NaN, no duplicate names, no lone
surrogates, a bounded depth.
"""

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from starlette.requests import ClientDisconnect, Request

from service.api.context import Context
from service.errors import MalformedJson, PayloadTooLarge, QueueFull, RequestTimeout, UnsupportedMediaType

_IN_THREAD = 256 * 1024  # octets; parsing more would hold up the loop
_JSON_TYPE = re.compile(r"application/json[ \t]*(?:;[ \t]*(?:charset=utf-?8[ \t]*)?)?")


def check_headers(request: Request) -> None:
    """Refuse what is not plain JSON in UTF-8. Raises UnsupportedMediaType."""
    content_type = request.headers.get("content-type", "").strip().lower().replace('"', "")
    if _JSON_TYPE.fullmatch(content_type) is None:
        raise UnsupportedMediaType
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:20]!r} is not accepted: send the body as it is.")


class _Held:
    """Octets of one request that count as in flight."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.octets = 0

    def take(self, octets: int) -> None:
        """Count them. Raises QueueFull when all requests together hold too much."""
        self.octets += octets
        self._context.inflight_bytes += octets
        if self._context.inflight_bytes > self._context.settings.max_inflight_bytes:
            raise QueueFull("Too many bytes are being worked on.", retry_after=1)

    def release(self) -> None:
        """The request is done with them."""
        self._context.inflight_bytes -= self.octets


@asynccontextmanager
async def json_body(
    request: Request,
    context: Context,
    limit: int,
    *,
    allowed: Callable[[], str] = lambda: _FIXED,
    optional: bool = False,
    turn: AbstractAsyncContextManager[None] | None = None,
) -> AsyncIterator[Any]:
    """The parsed body; its bytes count as in flight until the block ends. Raises RequestError, QueueFull.

    `allowed` makes a sentence on the setting that `limit` follows from. `optional`: no body is as good as `{}`.
    `turn` is waited for when the octets are there: parsed they would take many times as much memory, which nobody counts.
    """
    declared = request.headers.get("content-length", "")
    if optional and declared in ("", "0") and "transfer-encoding" not in request.headers:
        yield {}
        return
    check_headers(request)
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit, allowed)
    held = _Held(context)
    try:
        body = await _read(request, context.settings.body_timeout, limit, held, allowed)
        depth = context.settings.max_json_depth
        async with turn or nullcontext():
            yield parse(body, depth) if len(body) < _IN_THREAD else await asyncio.to_thread(parse, body, depth)
    finally:
        held.release()


_FIXED = "This operation takes no more; no setting changes that."


def _too_large(limit: int, allowed: Callable[[], str]) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} octets. {allowed()}")


async def _read(request: Request, timeout: float, limit: int, held: _Held, allowed: Callable[[], str]) -> bytes:
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                held.take(len(chunk))
                if held.octets > limit:
                    raise _too_large(limit, allowed)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout from None
    except ClientDisconnect:
        raise RequestTimeout("The client went away.") from None
    return b"".join(chunks)


# --- JSON -------------------------------------------------------------------------------------------------------


def parse(body: bytes, max_depth: int) -> Any:
    """Strict JSON. Raises MalformedJson with a sentence that says where."""
    if not body or body.isspace():
        raise MalformedJson("The body is empty: send one JSON object.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8 (octet {error.start}).") from None
    if _has_brackets(body, max_depth + 1) and _too_deep(body, max_depth):
        raise MalformedJson(f"The JSON is nested deeper than {max_depth} levels.")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise MalformedJson(f"Malformed JSON: {what} at line {error.lineno} column {error.colno}.") from None
    except RecursionError:
        raise MalformedJson(f"The JSON is nested deeper than {max_depth} levels.") from None
    except _NotStrict as error:
        raise MalformedJson(f"Malformed JSON: {error}.") from None
    except ValueError:  # Python's own words on a whole number of thousands of digits
        raise MalformedJson("Malformed JSON: a number has too many digits.") from None
    if b"\\" in body and b"\\u" in body:  # one octet is found sooner than two
        _refuse_surrogates(value)
    return value


def _has_brackets(body: bytes, least: int) -> bool:
    """Whether so many open. Found one by one: to count all of 25 MiB of base64 keeps the interpreter for 25 ms."""
    for bracket in b"[{":
        at = body.find(bracket)
        while at >= 0:
            least -= 1
            if least == 0:
                return True
            at = body.find(bracket, at + 1)
    return False


_NOISE = re.compile(rb'\\.|[^"\\\[\]{}]+', re.S)  # escapes, and all that is neither quotation mark nor bracket
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_MARKS_AT_ONCE = 64 * 1024  # a body of nothing but quotation marks must not become a list of as many pieces


def _too_deep(body: bytes, limit: int) -> bool:
    """Whether brackets outside of strings are nested deeper than `limit`; what can't matter is taken out in C first."""
    marks = _NOISE.sub(b"", body) if b"\\" in body else body.translate(None, _NO_MARKS)
    depth, inside = 0, False
    for at in range(0, len(marks), _MARKS_AT_ONCE):
        pieces = marks[at : at + _MARKS_AT_ONCE].split(b'"')  # in turn outside and inside of strings
        for octet in b"".join(pieces[inside::2]):
            depth += 1 if octet in b"[{" else -1
            if depth > limit:
                return True
        inside ^= len(pieces) % 2 == 0
    return False


class _NotStrict(ValueError):
    """RFC 8259 may let it pass; here it is refused, with this sentence."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _NotStrict(f"the name {name[:60]!r} stands twice in one object")
    return value


def _constant(name: str) -> Any:
    raise _NotStrict(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotStrict("a number is out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def _refuse_surrogates(value: Any) -> None:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            try:
                each.encode()
            except UnicodeEncodeError:
                raise MalformedJson("A string holds a lone surrogate (\\ud800 to \\udfff).") from None
        elif isinstance(each, dict):
            pending += each
            pending += each.values()
        elif isinstance(each, list):
            pending += each


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(method: str, path: str, query: str, value: Any) -> bytes:
    """SHA-256 of a request: two requests with the same JSON in any order and spacing are the same request."""
    canonical = _CANONICAL.encode(value)
    return hashlib.sha256("\n".join((method, path, query, canonical)).encode()).digest()
