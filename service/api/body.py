"""Reading a request's body: bounded in bytes and time, strict in JSON.

Nothing is read that can't be used: type, encoding and declared length are looked at first. What is counted while
streaming can't be lied about by a header. JSON is RFC 8259 and stricter: UTF-8, no NaN, no duplicate names, no lone
surrogates, a bounded depth.
"""

import asyncio
import hashlib
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request

from service.api.context import Context
from service.errors import MalformedJson, PayloadTooLarge, QueueFull, RequestTimeout, UnsupportedMediaType

_JSON_TYPES = {"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"}


def check_headers(request: Request) -> None:
    """Refuse what is not plain JSON in UTF-8. Raises UnsupportedMediaType."""
    content_type = request.headers.get("content-type", "").strip().lower().replace('"', "")
    if content_type not in _JSON_TYPES:
        raise UnsupportedMediaType
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:20]!r} is not accepted: send the body as it is.")


@asynccontextmanager
async def json_body(request: Request, context: Context, limit: int) -> AsyncIterator[Any]:
    """The parsed body; its bytes count as in flight until the block ends. Raises RequestError, QueueFull."""
    check_headers(request)
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    held = 0
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(context.settings.body_timeout):
            async for chunk in request.stream():
                held += len(chunk)
                context.inflight_bytes += len(chunk)
                if held > limit:
                    raise _too_large(limit)
                if context.inflight_bytes > context.settings.max_inflight_bytes:
                    raise QueueFull("Too many bytes are being worked on.", retry_after=1)
                chunks.append(chunk)
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        yield parse(body, context.settings.max_json_depth)
    except TimeoutError:
        raise RequestTimeout from None
    except ClientDisconnect:
        raise RequestTimeout("The client went away.") from None
    finally:
        context.inflight_bytes -= held


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} octets.")


# --- JSON -------------------------------------------------------------------------------------------------------


def parse(body: bytes, max_depth: int) -> Any:
    """Strict JSON. Raises MalformedJson with a sentence that says where."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8 (octet {error.start}).") from None
    if body.count(b"[") + body.count(b"{") > max_depth and _depth(text) > max_depth:
        raise MalformedJson(f"The JSON is nested deeper than {max_depth} levels.")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedJson(f"Malformed JSON: {error.msg} at line {error.lineno} column {error.colno}.") from None
    except RecursionError:
        raise MalformedJson(f"The JSON is nested deeper than {max_depth} levels.") from None
    except ValueError as error:
        raise MalformedJson(f"Malformed JSON: {error}.") from None
    if b"\\u" in body:
        _refuse_surrogates(value)
    return value


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside of strings."""
    depth = deepest = 0
    inside = escaped = False
    for character in text if len(text) < 2_000_000 else _brackets_only(text):
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _brackets_only(text: str) -> str:
    """Only the characters that matter for `_depth`, taken out in C: a large body holds long base64 strings."""
    return text.translate(_Matter())


class _Matter(dict[int, str | None]):
    def __missing__(self, key: int) -> str | None:
        value = chr(key) if chr(key) in '"\\[]{}' else None
        self[key] = value
        return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {name[:60]!r} stands twice in one object")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is out of range")
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


def fingerprint(method: str, path: str, query: str, value: Any) -> bytes:
    """SHA-256 of a request: two requests with the same JSON in any order and spacing are the same request."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256("\n".join((method, path, query, canonical)).encode()).digest()
