"""A request's head is bounded in octets and time before anybody is asked for a key, and a body's trailer is too."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess

READ = 262144  # octets that the event loop takes at once, at most
BODY = json.dumps(ARTICLE).encode()
CHUNKED = b"POST /send?dry_run=true HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder: Path = tmp_path_factory.mktemp("heads")
    with SinkProcess(folder) as sink, ServiceProcess(folder, sink.url, head_timeout=1) as made:
        yield made


def opened(service: ServiceProcess) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.settimeout(30)
    return connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def problem(connection: socket.socket) -> dict[str, Any]:
    """The one answer that comes before the other side closes."""
    head, _, body = everything(connection).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    found: dict[str, Any] = json.loads(body)
    assert lines[0].startswith(f"HTTP/1.1 {found['status']} ")
    assert (fields["content-type"], fields["content-length"]) == ("application/problem+json", str(len(body)))
    assert (fields["connection"], fields["x-request-id"]) == ("close", found["request_id"].lower())
    assert "date" in fields
    return found


def _tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


def poured(connection: socket.socket, piece: bytes, most: int) -> int:
    """Octets that were taken before the other side closed."""
    taken = 0
    try:
        while taken < most:
            connection.sendall(piece)
            taken += len(piece)
    except OSError:
        pass
    return taken


@pytest.mark.parametrize("piece", [b"a" * 4096, b"X-A: a\r\n" * 512], ids=["one field", "many fields"])
@pytest.mark.parametrize(
    "beginning",
    [b"GET /healthz HTTP/1.1\r\nX-A: ", CHUNKED + b"%x\r\n%s\r\n0\r\nX-A: " % (len(BODY), BODY)],
    ids=["head", "trailer"],
)
def test_what_never_ends_is_cut_off_before_it_fills_the_memory(
    service: ServiceProcess, beginning: bytes, piece: bytes
) -> None:
    with opened(service) as connection:
        connection.sendall(beginning)
        most = 64 * READ
        assert poured(connection, piece, most) < most


def test_a_head_that_is_too_large_is_answered_431(service: ServiceProcess) -> None:
    with opened(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-A: ")
        for _ in range(3):
            connection.sendall(b"a" * 30000)
        assert problem(connection)["code"] == "head_too_large"


@pytest.mark.parametrize("beginning", [b"G", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_end_is_answered_408(service: ServiceProcess, beginning: bytes) -> None:
    with opened(service) as connection:
        connection.sendall(beginning)
        found = problem(connection)
        assert (found["status"], found["code"]) == (408, "request_timeout")
        assert "POSTROOM_HEAD_TIMEOUT" in found["detail"]
    counted = 'postroom_http_requests_total{method="other",route="other",status="408"}'
    assert counted in httpx.get(f"{service.url}/metrics").text
    assert any(line.get("request_id") == found["request_id"] for line in service.lines)


@pytest.mark.parametrize(
    "octets", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nno field\r\n\r\n", b"EHLO x\r\n"]
)
def test_what_is_no_http_is_a_problem_too(service: ServiceProcess, octets: bytes) -> None:
    with opened(service) as connection:
        connection.sendall(octets)
        found = problem(connection)
        assert (found["status"], found["code"]) == (400, "malformed_request")


def test_a_body_in_broken_chunks_is_a_problem_and_no_silence(service: ServiceProcess) -> None:
    with opened(service) as connection:
        connection.sendall(CHUNKED + b"no length\r\n")
        assert problem(connection)["code"] == "malformed_request"


def test_no_refusal_is_written_into_the_answer_before_it(service: ServiceProcess) -> None:
    deferred = json.dumps({**ARTICLE, "scheduled_at": _tomorrow()}).encode()
    head = b"POST /send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: wait=30\r\nContent-Length: %d\r\n\r\n"
    with opened(service) as connection:
        connection.sendall(head % len(deferred) + deferred + b"no http\r\n\r\n")
        assert everything(connection) == b""


def test_a_connection_that_says_nothing_is_closed_without_a_word(service: ServiceProcess) -> None:
    with opened(service) as connection:
        assert connection.recv(1000) == b""


def test_an_answer_in_the_making_is_not_cut_off_by_half_a_head_behind_its_request(service: ServiceProcess) -> None:
    deferred = json.dumps({**ARTICLE, "scheduled_at": _tomorrow()}).encode()
    head = b"POST /send HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: wait=3\r\nContent-Length: %d\r\n\r\n"
    with opened(service) as connection:
        connection.sendall(head % len(deferred) + deferred + b"GET /healthz HT")
        assert connection.recv(4000).startswith(b"HTTP/1.1 202 ")


def test_a_second_head_has_its_time_as_the_first_had(service: ServiceProcess) -> None:
    with opened(service) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        while not got.endswith(b'{"status":"alive"}'):
            got += connection.recv(4000)
        connection.sendall(b"GET /healthz HT")
        assert problem(connection)["status"] == 408


def test_large_bodies_in_any_pieces_and_heads_one_after_the_other_are_taken_as_before(service: ServiceProcess) -> None:
    body = json.dumps({**ARTICLE, "text": "ä" * 3_000_000}, ensure_ascii=False).encode()
    head = (
        b"POST /send?dry_run=true HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: %s\r\n\r\n" % (b"a" * 20000)
    with opened(service) as connection:
        connection.sendall(head % len(body) + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    with opened(service) as connection:
        connection.sendall(CHUNKED + b"".join(b"1\r\n%c\r\n" % octet for octet in BODY) + b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    with opened(service) as connection:
        connection.sendall(one * 20)
        got = b""
        while got.count(b"HTTP/1.1 200 ") < 20:
            more = connection.recv(65536)
            assert more, got[-200:]
            got += more
