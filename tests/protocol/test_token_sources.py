"""Tokens from commands, files and an OAuth2 server: exact requests, deadlines that hold, and no secret in what is told."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from service.mail.outcome import Failure, Phase
from service.relay import files, token_sources
from service.relay.failure import Cause, SessionFailure
from service.relay.oauth import Fetched, Source
from service.relay.oauth_client import Client, Given
from service.relay.token_sources import Command, File
from tests.support.logging_in import LOOPS, on_loop

LONG = 30.0  # seconds: far beyond what a fetch takes
Answer = Callable[[dict[str, str]], bytes | None]


async def failed(source: Source, timeout: float = LONG) -> SessionFailure:
    with pytest.raises(SessionFailure) as caught:
        await source.fetch(timeout)
    assert (caught.value.phase, caught.value.failure) == (Phase.AUTH, Failure.TOKEN)
    return caught.value


# --- commands and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_command_is_run_without_a_shell(loop: str) -> None:
    words = ("/usr/bin/printf", '{"access_token":"%s","expires_in":60}', "`echo a`/$HOME", "; exit 3")
    failure = on_loop(loop, failed(Command(words)))
    assert failure.cause is Cause.TOKEN_ANSWER, "what a shell would have made a token of"
    plain = ("/usr/bin/printf", '{"access_token":"%s","expires_in":60}', "a/b")
    assert on_loop(loop, Command(plain).fetch(LONG)) == Fetched("a/b", 60)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("words", "cause", "detail"),
    [
        (("/nowhere/token",), Cause.TOKEN_COMMAND, "token_command: /nowhere/token: No such file or directory"),
        (("/bin/sh", "-c", "echo HIDDEN >&2; echo HIDDEN; exit 3"), Cause.TOKEN_COMMAND, "token_command: /bin/sh: exit status 3"),
        (("/bin/sh", "-c", "echo HIDDEN words"), Cause.TOKEN_ANSWER, "token_command: no token, nor JSON with access_token"),
        (("/usr/bin/yes", "HIDDEN"), Cause.TOKEN_ANSWER, "token_command: no token, nor JSON with access_token"),
    ],
)  # fmt: skip
def test_a_command_that_gives_no_token_is_told_without_its_output(
    loop: str, words: tuple[str, ...], cause: Cause, detail: str, capfd: pytest.CaptureFixture[str]
) -> None:
    failure = on_loop(loop, failed(Command(words)))
    assert (failure.cause, failure.detail) == (cause, detail)
    assert "HIDDEN" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("then", ["wait", "exit 0"])
def test_a_command_that_hangs_is_ended_with_its_children(loop: str, then: str, tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/child; {then}"
    failure = on_loop(loop, failed(Command(("/bin/sh", "-c", script)), 1.5))
    assert failure.detail == "token_command: /bin/sh: not done within 1.5 s"
    child = int((tmp_path / "child").read_text())
    ends = time.monotonic() + 10
    while _lives(child):
        assert time.monotonic() < ends, "the child was left behind"
        time.sleep(0.01)


def _lives(process: int) -> bool:
    with contextlib.suppress(OSError):
        return f"/proc/{process}/stat" and " Z " not in Path(f"/proc/{process}/stat").read_text()
    return False


async def test_a_file_is_read_at_each_fetch(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    source = File(file)
    assert await source.fetch(LONG) == Fetched("one", 0)
    file.write_text('{"access_token":"two","expires_in":3600}')
    assert await source.fetch(LONG) == (two := Fetched("two", 0))
    assert (await source.fetch(LONG)).basis == await source.basis(LONG) != two.basis
    os.remove(file)
    failure = await failed(source)
    assert (failure.cause, failure.detail) == (Cause.TOKEN_FILE, f"token_file: {file}: No such file or directory")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "large"])
def test_what_is_no_small_regular_file_is_refused_and_holds_up_nobody(loop: str, kind: str, tmp_path: Path) -> None:
    file, words = tmp_path / "token", "is no regular file"
    if kind == "fifo":
        os.mkfifo(file)  # nobody will ever write to it
    elif kind == "device":
        file = Path("/dev/zero")
    elif kind == "directory":
        file.mkdir()
    else:
        file.write_bytes(b"x" * 65537)
        words = "holds more than 65536 octets"
    failure = on_loop(loop, failed(File(file)))
    assert (failure.cause, failure.detail) == (Cause.TOKEN_FILE, f"token_file: {file}: {words}")


async def test_a_file_system_that_does_not_answer_is_left_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def read(path: Path, most: int) -> bytes:
        answers.wait(30)
        return b"late"

    monkeypatch.setattr(token_sources, "read_regular", read)
    reading = asyncio.create_task(failed(File(tmp_path), 0.3))
    await asyncio.sleep(0)
    assert not reading.done(), "and others go on meanwhile"
    failure = await reading
    answers.set()
    assert (failure.cause, failure.detail) == (Cause.TOKEN_FILE, f"token_file: {tmp_path}: not read within 0.3 s")


# --- an OAuth2 server -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def token_server(
    answer: Answer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """An HTTP server; yields its address and what it was asked: the head, and the form. None: it never answers."""
    asked: list[tuple[str, dict[str, str]]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:"))
            form = dict(parse_qsl((await reader.readexactly(length)).decode()))
            asked.append((head, form))
            if (said := answer(form)) is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/oauth2/token?tenant=1", asked
    finally:
        server.close()


def said(status: int, body: str, *fields: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status} words", "Content-Type: application/json", *fields])
    return f"{head}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def client(url: str, refresh: str = "", **more: Any) -> Client:
    return Client(url, "id&1", Given(SecretStr("HIDDEN=s")), Given(SecretStr(refresh)), **more)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_refresh_token_is_exchanged_as_rfc_6749_6_says(loop: str) -> None:
    async def work() -> None:
        async with token_server(lambda _: said(200, '{"access_token":"abc","expires_in":3600}')) as (url, asked):
            assert await client(url, "HIDDEN/r", scope="https://mail.google.com/").fetch(LONG) == Fetched("abc", 3600)
        ((head, form),) = asked
        assert head.startswith("POST /oauth2/token?tenant=1 HTTP/1.1\r\n")
        assert "Content-Type: application/x-www-form-urlencoded\r\n" in head
        assert form == {
            "grant_type": "refresh_token",
            "refresh_token": "HIDDEN/r",
            "client_id": "id&1",
            "client_secret": "HIDDEN=s",
            "scope": "https://mail.google.com/",
        }

    on_loop(loop, work())


async def test_the_credentials_of_the_client_alone_are_exchanged_as_rfc_6749_4_4_2_says() -> None:
    async with token_server(lambda _: said(200, '{"access_token":"abc"}')) as (url, asked):
        assert await client(url).fetch(LONG) == Fetched("abc", None)
    assert asked[0][1] == {"grant_type": "client_credentials", "client_id": "id&1", "client_secret": "HIDDEN=s"}


async def test_a_new_refresh_token_takes_the_place_of_the_old_until_another_is_given(tmp_path: Path) -> None:
    file = tmp_path / "refresh"
    file.write_text("first\n")
    answers = iter(["second", "third", "fifth"])

    def answer(_: dict[str, str]) -> bytes:
        return said(200, f'{{"access_token":"abc","refresh_token":"{next(answers)}"}}')

    async with token_server(answer) as (url, asked):
        source = Client(url, "id", Given(), Given(file=file))
        await source.fetch(LONG)
        await source.fetch(LONG)
        file.write_text("fourth")
        await source.fetch(LONG)
    assert [form["refresh_token"] for _, form in asked] == ["first", "second", "fourth"]
    assert "second" not in repr(source)


def rotating(*answers: str) -> Answer:
    """Gives these refresh tokens, one after the other."""
    left = iter(answers)
    return lambda _: said(200, f'{{"access_token":"abc","refresh_token":"{next(left)}"}}')


async def test_a_new_refresh_token_is_kept_in_its_file_for_the_next_start(tmp_path: Path) -> None:
    behind = tmp_path / "data"
    behind.mkdir()
    (behind / "refresh").write_text("first\n")
    (tmp_path / "refresh").symlink_to(behind / "refresh")
    file = tmp_path / "refresh"
    async with token_server(rotating("second", "third")) as (url, asked):
        await Client(url, "id", Given(), Given(file=file)).fetch(LONG)
        assert file.read_text() == "second\n"
        await Client(url, "id", Given(), Given(file=file)).fetch(LONG)  # as after a restart
    assert [form["refresh_token"] for _, form in asked] == ["first", "second"]
    assert file.read_text() == "third\n"
    assert file.is_symlink()
    assert (behind / "refresh").stat().st_mode & 0o777 == 0o600
    assert os.listdir(behind) == ["refresh"], "no other file is left"


async def test_a_file_that_holds_another_refresh_token_by_now_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "refresh"
    file.write_text("first")

    def answer(_: dict[str, str]) -> bytes:
        file.write_text("by hand")
        return said(200, '{"access_token":"abc","refresh_token":"second"}')

    async with token_server(answer) as (url, _):
        await Client(url, "id", Given(), Given(file=file)).fetch(LONG)
    assert file.read_text() == "by hand"


async def test_what_a_server_put_into_the_file_is_no_renewal_and_what_somebody_else_did_is(tmp_path: Path) -> None:
    """A token that was refused is fetched anew for a renewal, so a server that rotates must not look like one."""
    file, secret = tmp_path / "refresh", tmp_path / "secret"
    file.write_text("first")
    secret.write_text("HIDDEN=s")
    async with token_server(rotating("second", "third", "third")) as (url, _):
        source = Client(url, "id", Given(file=secret), Given(file=file))
        for _ in range(2):
            fetched = await source.fetch(LONG)
            assert await source.basis(LONG) == fetched.basis
        assert file.read_text() == "third\n"
        file.write_text("by hand")
        assert await source.basis(LONG) != fetched.basis
        file.write_text("third")
        assert await source.basis(LONG) == fetched.basis
        secret.write_text("another")
        assert await source.basis(LONG) != fetched.basis
        assert fetched.basis not in repr(fetched)


async def test_a_refresh_token_that_cannot_be_kept_is_no_renewal_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "refresh"
    file.write_text("first")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    async with token_server(rotating("second")) as (url, _):
        source = Client(url, "id", Given(), Given(file=file))
        assert (await source.fetch(LONG)).basis == await source.basis(LONG)


async def test_a_refresh_token_that_cannot_be_kept_is_told_and_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "refresh"
    file.write_text("first")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # to root every file is writable
    with capture_logs() as lines:
        async with token_server(rotating("HIDDEN2", "HIDDEN2")) as (url, asked):
            source = Client(url, "id", Given(), Given(file=file))
            await source.fetch(LONG)
            await source.fetch(LONG)
    assert [form["refresh_token"] for _, form in asked] == ["first", "HIDDEN2"]
    assert lines == [
        {
            "event": "relays.refresh_token_not_kept",
            "log_level": "warning",
            "file": str(file),
            "detail": "is not writable",
        }
    ]
    assert file.read_text() == "first"


async def test_a_disk_without_room_leaves_the_old_refresh_token_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "refresh"
    file.write_text("first")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with capture_logs() as lines:
        async with token_server(rotating("second")) as (url, _):
            await Client(url, "id", Given(), Given(file=file)).fetch(LONG)
    assert [line["detail"] for line in lines] == ["No space left on device"]
    assert file.read_text() == "first"
    assert os.listdir(tmp_path) == ["refresh"]


@pytest.mark.parametrize(
    ("answer", "cause", "detail"),
    [
        (said(400, '{"error":"invalid_grant","error_description":"Token HIDDEN/r has been\\n revoked."}'), Cause.TOKEN_REFUSED,
         "token_url: answered 400 invalid_grant: Token [redacted] has been  revoked."),
        (said(400, '{"error":"HIDDEN%2Fr","error_description":"' + "x" * 276 + 'HIDDEN/r"}'), Cause.TOKEN_REFUSED,
         f"token_url: answered 400 [redacted]: {'x' * 276}[redacted]"),
        (said(401, '{"error":"invalid_client"}'), Cause.TOKEN_REFUSED, "token_url: answered 401 invalid_client"),
        (said(403, "<html>HIDDEN=s</html>"), Cause.TOKEN_REFUSED, "token_url: answered 403"),
        (said(429, ""), Cause.TOKEN_UNREACHABLE, "token_url: answered 429"),
        (said(503, '{"error":3}'), Cause.TOKEN_UNREACHABLE, "token_url: answered 503 3"),
        (said(302, "", "Location: https://elsewhere.example/"), Cause.TOKEN_ANSWER, "token_url: answered 302, and redirects are not followed"),
        (said(200, "<html>HIDDEN</html>"), Cause.TOKEN_ANSWER, "token_url: no token, nor JSON with access_token"),
        (said(200, "x" * 70000), Cause.TOKEN_UNREACHABLE, "token_url: an answer over 65536 octets"),
        (b"220 smtp.example ready\r\n", Cause.TOKEN_UNREACHABLE, "token_url: 220 smtp.example ready\r\n"),
        (b"", Cause.TOKEN_UNREACHABLE, "token_url: Remote end closed connection without response"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_token_is_told_without_secrets(answer: bytes, cause: Cause, detail: str) -> None:
    async with token_server(lambda _: answer) as (url, asked):
        failure = await failed(client(url, "HIDDEN/r"))
    assert (failure.cause, failure.detail) == (cause, detail)
    assert "HIDDEN" not in str(failure)
    assert len(asked) == 1, "and nobody is asked again"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("stalls", ["before the answer", "within the head", "within the body", "drips"])
def test_a_server_that_stalls_is_left_at_the_deadline_and_its_thread_ends(loop: str, stalls: str) -> None:
    begun = {
        "before the answer": b"",
        "within the head": b"HTTP/1.1 200 OK\r\nContent-",
        "within the body": said(200, "{")[:-1],
        "drips": b"HTTP/1.1 200 OK\r\nContent-",
    }

    async def work() -> None:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(begun[stalls])
                while stalls == "drips" and not reader.at_eof():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)  # each octet comes long before a socket's own timeout
                await reader.read()
            closed.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        failure = await failed(client(url), 0.3)
        assert (failure.cause, failure.detail) == (Cause.TOKEN_UNREACHABLE, "token_url: no answer within 0.3 s")
        await asyncio.wait_for(closed.wait(), 10)
        server.close()

    on_loop(loop, work())


async def test_nobody_at_the_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    failure = await failed(client(f"http://127.0.0.1:{port}/"))
    assert (failure.cause, failure.detail) == (Cause.TOKEN_UNREACHABLE, "token_url: [Errno 111] Connection refused")


async def test_a_certificate_of_an_own_authority_without_key_identifiers_is_good_under_every_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.tls import TestAuthority

    authority = TestAuthority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    async with token_server(lambda _: said(200, '{"access_token":"abc"}'), authority.server_context()) as (url, _):
        assert await client(url.replace("http:", "https:")).fetch(LONG) == Fetched("abc", None)


async def test_a_token_server_must_show_a_good_certificate(tmp_path: Path) -> None:
    from tests.support.tls import TestAuthority

    context = TestAuthority(tmp_path).server_context()
    async with token_server(lambda _: said(200, '{"access_token":"abc"}'), context) as (url, asked):
        failure = await failed(client(url.replace("http:", "https:")))
    assert failure.cause is Cause.TOKEN_UNREACHABLE
    assert "certificate verify failed" in failure.detail
    assert asked == []
