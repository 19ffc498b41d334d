"""TLS that is not what it should be: no login and no mail leaves, seen on the wire, and the hint says what it is."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.clock import SYSTEM
from service.errors import ConfigurationError
from service.mail.outcome import Failure, Phase
from service.relay.config import relay_from
from service.relay.failure import Cause, SessionFailure
from service.relay.hints import hint_for
from service.relay.session import Progress, Timeouts, open_session, tls_context
from tests.support.logging_in import LOOPS, QUICK, SECRET, on_loop, refused, relay
from tests.support.sink import Sink
from tests.support.smtp_script import Peer, Script, ScriptedServer
from tests.support.tap import Tap
from tests.support.tls import TestAuthority

IN_CLEAR = {"smtps": b"", "smtp+starttls": b"EHLO me.example\r\nSTARTTLS\r\n"}
HANDSHAKE = b"\x16\x03"  # RFC 8446 5.1: a record of type handshake


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


def secured(scheme: str, context: ssl.SSLContext) -> Script:
    """A server that would take a login and mail, if only somebody came through its TLS."""

    async def script(peer: Peer) -> None:
        if scheme == "smtp+starttls":
            await peer.hello(b"STARTTLS", b"AUTH PLAIN")
            await peer.line()
            await peer.say(b"220 go ahead")
        with contextlib.suppress(OSError):
            await peer.start_tls(context)
            if scheme == "smtps":
                await peer.say(b"220 peer")
            await peer.line()
            await peer.say(b"250 AUTH PLAIN")
            await peer.rest()

    return script


def answering(*lines: bytes) -> Script:
    """A server that answers STARTTLS with these."""

    async def script(peer: Peer) -> None:
        await peer.hello(b"STARTTLS", b"AUTH PLAIN")
        await peer.line()
        await peer.say(*lines)
        await peer.rest()

    return script


async def clear_after_the_220(peer: Peer) -> None:
    await peer.hello(b"STARTTLS", b"AUTH PLAIN")
    await peer.line()
    await peer.say(b"220 go ahead")
    await peer.some()
    await peer.say(b"250 this is no TLS")
    await peer.rest()


async def stripped(peer: Peer) -> None:
    await peer.hello(b"AUTH PLAIN", b"PIPELINING")
    await peer.rest()


async def plaintext(peer: Peer) -> None:
    await peer.say(b"220 peer, in clear")
    await peer.rest()


def attempt(loop: str, scheme: str, script: Script, **keys: Any) -> tuple[SessionFailure, bytes, str]:
    """Why there was no session, what the client wrote, and the hint."""

    async def work() -> tuple[SessionFailure, bytes, str]:
        async with ScriptedServer(script) as server, Tap(server.port) as tap:
            config = relay(tap.port, scheme, **keys)
            failure = await refused(config, Timeouts(connect=5, greeting=5))
            await server.ended()
            return failure, tap.sent, hint_for(failure, config)

    return on_loop(loop, work())


def assert_nothing_left(sent: bytes, in_clear: bytes) -> None:
    assert sent.startswith(in_clear)
    behind = sent.removeprefix(in_clear)
    assert behind == b"" or behind.startswith(HANDSHAKE)
    for word in (b"AUTH ", b"MAIL", SECRET.encode()):
        assert word not in sent


Made = Callable[[TestAuthority], ssl.SSLContext]


BAD: dict[str, tuple[Made, Cause, str]] = {
    "another name": (lambda made: made.odd_context("other.example"), Cause.CERTIFICATE_NAME, "another host name"),
    "expired": (lambda made: made.odd_context(begins=-48, ends=-24), Cause.CERTIFICATE_EXPIRED, "has expired"),
    "not yet valid": (lambda made: made.odd_context(begins=24, ends=48), Cause.CERTIFICATE_NOT_YET_VALID, "clock"),
    "self-signed": (lambda made: made.odd_context(by_itself=True), Cause.CERTIFICATE_SELF_SIGNED, "signed by itself"),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", IN_CLEAR)
@pytest.mark.parametrize("case", BAD)
def test_a_bad_certificate_ends_before_the_login(loop: str, scheme: str, case: str, authority: TestAuthority) -> None:
    make, cause, words = BAD[case]
    script = secured(scheme, make(authority))
    failure, sent, hint = attempt(loop, scheme, script, ca_file=str(authority.ca_file))
    assert (failure.phase, failure.failure, failure.cause) == (Phase.TLS, Failure.TLS, cause), failure
    assert words in hint
    assert_nothing_left(sent, IN_CLEAR[scheme])


@contextlib.contextmanager
def old_server(scheme: str, authority: TestAuthority) -> Iterator[int]:
    """A server that speaks TLS 1.1 at most, and says so by an alert, which asyncio's would not send."""
    context = authority.server_context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(10)

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            if scheme == "smtp+starttls":
                connection.sendall(b"220 peer\r\n")
                connection.recv(1000)
                connection.sendall(b"250-peer\r\n250 STARTTLS\r\n")
                connection.recv(1000)
                connection.sendall(b"220 go ahead\r\n")
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1000)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        thread.join()
        listening.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", IN_CLEAR)
def test_a_relay_that_knows_only_old_versions_gets_no_login(loop: str, scheme: str, authority: TestAuthority) -> None:
    async def work(port: int) -> tuple[SessionFailure, bytes, str]:
        async with Tap(port) as tap:
            config = relay(tap.port, scheme, ca_file=str(authority.ca_file))
            failure = await refused(config)
            return failure, tap.sent, hint_for(failure, config)

    with old_server(scheme, authority) as port:
        failure, sent, hint = on_loop(loop, work(port))
    assert (failure.phase, failure.failure, failure.cause) == (Phase.TLS, Failure.TLS, Cause.TLS_VERSION), failure
    assert "no TLS version in common" in hint
    assert_nothing_left(sent, IN_CLEAR[scheme])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", IN_CLEAR)
@pytest.mark.parametrize("trusted", ["the system's", "another one"])
def test_an_unknown_authority_ends_before_the_login(
    loop: str, scheme: str, trusted: str, authority: TestAuthority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = TestAuthority(tmp_path / "other")
    keys = {} if trusted == "the system's" else {"ca_file": str(other.ca_file)}
    failure, sent, hint = attempt(loop, scheme, secured(scheme, authority.server_context()), **keys)
    # of the same name, so OpenSSL takes `other` for the issuer and finds that its key did not sign
    found = (
        (Cause.CERTIFICATE_ISSUER,)
        if trusted == "the system's"
        else (Cause.CERTIFICATE_ISSUER, Cause.CERTIFICATE_OTHER)
    )
    assert (failure.phase, failure.failure) == (Phase.TLS, Failure.TLS)
    assert failure.cause in found
    assert "certificate" in hint.lower()
    assert_nothing_left(sent, IN_CLEAR[scheme])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("script", "code", "failure", "cause", "words", "in_clear"),
    [
        (stripped, None, Failure.TLS, Cause.NO_STARTTLS, "does not offer STARTTLS", b"EHLO me.example\r\n"),
        (answering(b"454 4.3.0 TLS not available"), 454, None, Cause.STARTTLS_REFUSED, "refuses it", IN_CLEAR["smtp+starttls"]),
        (answering(b"501 5.5.4 no parameters"), 501, None, Cause.STARTTLS_REFUSED, "refuses it", IN_CLEAR["smtp+starttls"]),
        (answering(b"\x00\x01\x02"), None, Failure.TLS, Cause.NO_SMTP, "no SMTP server", IN_CLEAR["smtp+starttls"]),
        (clear_after_the_220, None, Failure.TLS, Cause.NO_TLS, "something else than TLS", IN_CLEAR["smtp+starttls"]),
    ],
    ids=["stripped", "454", "501", "garbage", "no TLS after 220"],
)  # fmt: skip
def test_a_starttls_that_does_not_come_about_ends_before_the_login(
    loop: str, script: Script, code: int | None, failure: Failure | None, cause: Cause, words: str, in_clear: bytes
) -> None:
    told, sent, hint = attempt(loop, "smtp+starttls", script)
    told_of = told.reply and told.reply.code
    assert (told.phase, told_of, told.failure, told.cause) == (Phase.TLS, code, failure, cause), told
    assert words in hint
    assert_nothing_left(sent, in_clear)


@pytest.mark.parametrize("loop", LOOPS)
def test_replies_that_were_put_behind_the_220_are_not_taken_for_those_within_tls(
    loop: str, authority: TestAuthority
) -> None:
    """CVE-2011-0411: an EHLO reply in clear, sent ahead, offers AUTH; the one within TLS does not."""

    async def script(peer: Peer) -> None:
        await peer.hello(b"STARTTLS")
        await peer.line()
        await peer.say(b"220 go ahead", b"250-peer", b"250 AUTH PLAIN LOGIN", b"235 welcome", b"250 ok")
        await peer.start_tls(authority.server_context())
        await peer.expect(b"EHLO me.example\r\n")
        await peer.say(b"250-peer", b"250 PIPELINING")
        await peer.rest()

    failure, sent, _ = attempt(loop, "smtp+starttls", script, ca_file=str(authority.ca_file))
    assert (failure.phase, failure.cause) == (Phase.AUTH, Cause.NO_MECHANISM), failure
    assert "offers AUTH nothing" in failure.detail
    assert_nothing_left(sent, IN_CLEAR["smtp+starttls"])


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_offered_in_clear_is_forgotten_when_tls_begins(loop: str, authority: TestAuthority) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"STARTTLS", b"AUTH PLAIN")
        await peer.line()
        await peer.say(b"220 go ahead")
        await peer.start_tls(authority.server_context())
        await peer.line()
        await peer.say(b"250 peer")
        await peer.rest()

    failure, sent, _ = attempt(loop, "smtp+starttls", script, ca_file=str(authority.ca_file))
    assert (failure.phase, failure.failure) == (Phase.AUTH, Failure.CAPABILITY)
    assert_nothing_left(sent, IN_CLEAR["smtp+starttls"])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_scheme_that_does_not_fit_the_port_is_named(loop: str) -> None:
    failure, sent, hint = attempt(loop, "smtps", plaintext)
    assert (failure.phase, failure.failure, failure.cause) == (Phase.TLS, Failure.TLS, Cause.NO_TLS)
    assert "answers in clear" in hint
    assert "明文" in hint
    assert_nothing_left(sent, b"")

    async def waits_for_a_handshake(peer: Peer) -> None:
        await peer.rest()

    async def silent() -> tuple[SessionFailure, bytes, str]:
        async with ScriptedServer(waits_for_a_handshake) as server, Tap(server.port) as tap:
            config = relay(tap.port, "smtp+starttls")
            failure = await refused(config, Timeouts(greeting=0.2))
            return failure, tap.sent, hint_for(failure, config)

    failure, sent, hint = on_loop(loop, silent())
    assert (failure.phase, failure.failure, failure.cause) == (Phase.GREETING, Failure.TIMEOUT, Cause.SILENT)
    assert "use smtps://" in hint
    assert sent == b""


# --- what a relay's TLS is set to -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "version"), [({}, "TLSv1.3"), ({"tls_max": "1.2"}, "TLSv1.2"), ({"tls_min": "1.3"}, "TLSv1.3")])  # fmt: skip
async def test_the_versions_of_a_relay_are_kept(keys: dict[str, str], version: str, authority: TestAuthority) -> None:
    sink = await Sink().start(implicit=authority.server_context())
    config = login_of(sink, authority, **keys)
    session = await open_session(config, tls_context(config), QUICK, "me.example", SYSTEM.monotonic)
    assert f" {version} " in session.words
    await session.quit()
    await sink.stop()


async def test_a_relay_that_is_older_than_tls_min_gets_no_login(authority: TestAuthority) -> None:
    context = authority.server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    sink = await Sink().start(implicit=context)
    failure = await refused(login_of(sink, authority, tls_min="1.3"))
    assert (failure.phase, failure.failure) == (Phase.TLS, Failure.TLS) or failure.cause is Cause.TLS_BROKEN_OFF
    assert sink.logins == []
    await sink.stop()


async def test_the_ciphers_of_a_relay_are_kept(authority: TestAuthority) -> None:
    sink = await Sink().start(implicit=authority.server_context())
    config = login_of(sink, authority, tls_max="1.2", ciphers="ECDHE-ECDSA-CHACHA20-POLY1305")
    progress = Progress()
    session = await open_session(config, tls_context(config), QUICK, "me.example", SYSTEM.monotonic, progress)
    assert progress.tls is not None
    cipher = progress.tls.cipher()
    assert cipher is not None
    assert cipher[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
    await session.quit()
    await sink.stop()


def test_ciphers_that_openssl_does_not_know_stop_the_start() -> None:
    config = relay_from("r", {"url": "smtps://u:p@h.example", "ciphers": "NONSENSE"}, "test")
    with pytest.raises(ConfigurationError, match="relay r: ciphers: OpenSSL knows no cipher in 'NONSENSE'"):
        tls_context(config)


def login_of(sink: Sink, authority: TestAuthority, scheme: str = "smtps", **keys: Any) -> Any:
    url = f"{scheme}://zouchengzhuo%40163.com:AUTHCODE@localhost:{sink.port}"
    return relay_from("r", {"url": url, "ca_file": str(authority.ca_file), **keys}, "test")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", IN_CLEAR)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_next_connection_takes_up_the_tls_session_of_the_last(
    loop: str, scheme: str, version: str, authority: TestAuthority
) -> None:
    async def work() -> list[bool]:
        context = authority.server_context()
        sink = await Sink().start(**{"implicit" if scheme == "smtps" else "starttls": context})
        config = login_of(sink, authority, scheme, tls_max=version)
        ours, reused = tls_context(config), []
        assert ours is not None
        clock = [0.0]
        ours.monotonic = lambda: clock[0]
        for seconds in (0, 3000, 1000, 10):
            clock[0] += seconds
            progress = Progress()
            session = await open_session(config, ours, QUICK, "me.example", SYSTEM.monotonic, progress)
            assert progress.tls is not None
            reused.append(bool(progress.tls.session_reused))
            await session.quit()
        await sink.stop()
        return reused

    # an hour after the full handshake, however often it was resumed since, the certificate is asked for again
    assert on_loop(loop, work()) == [False, True, False, True]


async def test_a_ticket_that_the_relay_does_not_take_costs_nothing_but_itself(authority: TestAuthority) -> None:
    first = await Sink().start(implicit=authority.server_context())
    config = login_of(first, authority)
    ours = tls_context(config)
    (await open_session(config, ours, QUICK, "me.example", SYSTEM.monotonic)).abort()
    await first.stop()
    second = await Sink().start(implicit=authority.server_context())  # with ticket keys of its own
    progress = Progress()
    moved = login_of(second, authority)
    (await open_session(moved, ours, QUICK, "me.example", SYSTEM.monotonic, progress)).abort()
    assert progress.tls is not None
    assert not progress.tls.session_reused
    await second.stop()


async def test_a_ticket_is_used_once(authority: TestAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = await Sink().start(implicit=authority.server_context())
    config = login_of(sink, authority)
    ours = tls_context(config)
    (await open_session(config, ours, QUICK, "me.example", SYSTEM.monotonic)).abort()
    monkeypatch.setattr(ours, "keep", lambda connection: None)  # as if the others had not come as far yet
    reused = []
    for _ in range(2):
        progress = Progress()
        (await open_session(config, ours, QUICK, "me.example", SYSTEM.monotonic, progress)).abort()
        assert progress.tls is not None
        reused.append(bool(progress.tls.session_reused))
    assert reused == [True, False]
    await sink.stop()
