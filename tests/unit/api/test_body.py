"""Strict JSON: the depth is counted outside of strings, whatever is escaped in them."""

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from service.api import body as body_module
from service.api.body import fingerprint, parse
from service.errors import MalformedJson, UnsupportedMediaType

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(JSON, st.booleans(), st.integers(1, 6))
def test_exactly_what_is_nested_too_deep_is_refused(value: object, ascii_only: bool, limit: int) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    if depth_of(value) > limit:
        with pytest.raises(MalformedJson, match="nested deeper"):
            parse(body, limit)
    else:
        assert parse(body, limit) == value


@pytest.mark.parametrize("text", ['"[[[["', '"\\"[[["', '"\\\\"', '"a\\n[[[\\u005b"', '["\\\\", "[[["]', '"]]]]"'])
def test_brackets_in_strings_are_no_depth(text: str) -> None:
    assert parse(text.encode(), 1) == json.loads(text)


@given(JSON, st.integers(1, 6))
def test_a_string_may_lie_across_two_pieces_of_a_long_body(value: object, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(body_module, "_MARKS_AT_ONCE", 3)
        assert body_module._too_deep(json.dumps(value).encode(), limit) == (depth_of(value) > limit)


def test_a_long_flat_body_is_read_quickly_enough() -> None:
    assert len(parse(b"[" + b"[]," * 50_000 + b"[]]", 2)) == 50_001


def test_equal_requests_have_equal_fingerprints() -> None:
    one, two = json.loads('{"a": 1, "b": [1, 2]}'), json.loads('{"b":[1,2],"a":1}')
    assert fingerprint("POST", "/send", "", one) == fingerprint("POST", "/send", "", two)
    assert fingerprint("POST", "/send", "", one) != fingerprint("POST", "/send", "dry_run=true", one)
    assert fingerprint("POST", "/send", "", {"b": [2, 1], "a": 1}) != fingerprint("POST", "/send", "", one)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"ttl": %s}' % (b"9" * 5000), "Malformed JSON: a number has too many digits."),
        (b'{"subject": "a\nb"}', "Malformed JSON: Invalid control character at line 1 column 15."),
        (b'{"ttl": NaN}', "Malformed JSON: NaN is not JSON."),
    ],
)
def test_what_is_said_of_bad_json_is_for_the_caller_and_not_for_pythons_programmers(body: bytes, detail: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        parse(body, 32)
    assert caught.value.detail == detail


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        ("application/json", True),
        ('Application/JSON ;  charset="UTF-8"', True),
        ("application/json;charset=utf8", True),
        ("application/json;", True),
        ("application/json; charset=latin-1", False),
        ("application/json; charset=utf-8; charset=utf-16", False),
        ("application/jsonp", False),
        ("text/json", False),
        ("", False),
    ],
)
def test_json_in_utf_8_is_taken_however_its_type_is_written(content_type: str, accepted: bool) -> None:
    request = Request({"type": "http", "headers": [(b"content-type", content_type.encode())]})
    with nullcontext() if accepted else pytest.raises(UnsupportedMediaType):
        body_module.check_headers(request)
