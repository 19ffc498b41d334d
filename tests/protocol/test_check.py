"""A check against scripted peers: each step with its time, the failing one with its hint, the others told as not run."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from service.clock import SYSTEM
from service.relay.check import Withheld, check, sender_of
from service.relay.config import RelayConfig, relay_from
from service.relay.pool import Pool
from service.relay.port import CheckStep, StepState
from service.relay.session import Timeouts
from service.settings import load
from tests.support.logging_in import LOOPS, on_loop
from tests.support.sink import Sink
from tests.support.smtp_script import Peer, ScriptedServer
from tests.support.tls import TestAuthority

QUICK = Timeouts(connect=5, greeting=5, command=5, check=15)
OK, FAILED, NOT_RUN, SKIPPED, WARNING = (
    StepState.OK,
    StepState.FAILED,
    StepState.NOT_RUN,
    StepState.SKIPPED,
    StepState.WARNING,
)
CLEAR = ["dns", "tcp", "tls", "greeting", "ehlo", "auth", "sender", "quit"]
STARTTLS = ["dns", "tcp", "greeting", "tls", "ehlo", "auth", "sender", "quit"]


def plain(port: int, login: str = "me%40a.example:p@", **keys: Any) -> RelayConfig:
    return relay_from("r", {"url": f"smtp://{login}127.0.0.1:{port}?plaintext=allow", **keys}, "test")


async def checked(
    config: RelayConfig, timeouts: Timeouts = QUICK, *, sender: str = "", withheld: Withheld | None = None
) -> dict[str, CheckStep]:
    done = await check(config, timeouts, "me.example", SYSTEM, sender=sender, withheld=withheld)
    return {step.name: step for step in done.steps}


def states(steps: dict[str, CheckStep]) -> list[StepState]:
    return [step.state for step in steps.values()]


async def logged_in(peer: Peer) -> None:
    await peer.hello(b"AUTH PLAIN", b"SIZE 1000")
    await peer.line()
    await peer.say(b"235 welcome")


async def test_all_steps_and_no_mail() -> None:
    async def script(peer: Peer) -> None:
        await logged_in(peer)
        await peer.expect(b"MAIL FROM:<me@a.example>\r\n")
        await peer.say(b"250 2.1.0 ok")
        await peer.expect(b"RSET\r\n")
        await peer.say(b"250 2.0.0 ok")
        await peer.expect(b"QUIT\r\n")
        await peer.say(b"221 2.0.0 bye")
        assert await peer.rest() == b""

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port))
        await server.ended()
    assert list(steps) == CLEAR
    assert states(steps) == [OK, OK, SKIPPED, OK, OK, OK, OK, OK]
    assert all(
        step.milliseconds is not None and step.milliseconds >= 0 for name, step in steps.items() if name != "tls"
    )
    assert steps["ehlo"].detail == "AUTH PLAIN, SIZE 1000"
    assert steps["auth"].detail == "PLAIN as me@a.example"
    assert steps["sender"].detail == "me@a.example: 250 2.1.0 ok"
    assert all(step.ok for step in steps.values())


async def test_a_sender_that_is_refused_is_told_and_the_connection_is_ended_politely() -> None:
    async def script(peer: Peer) -> None:
        await logged_in(peer)
        await peer.expect(b"MAIL FROM:<other@a.example>\r\n")
        await peer.say(b"553 Mail from must equal authorized user")
        await peer.expect(b"QUIT\r\n")
        await peer.say(b"221 bye")

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port, **{"from": ["a.example", "other@a.example"]}))
    assert (steps["sender"].state, steps["quit"].state) == (FAILED, OK)
    assert steps["sender"].detail == "other@a.example: 553 Mail from must equal authorized user"
    assert "login's own address" in steps["sender"].hint


async def test_a_refused_login_leaves_what_is_behind_it_unrun() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"AUTH PLAIN")
        await peer.line()
        await peer.say(b"535 Error: authentication failed")
        await peer.rest()

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port))
        await server.ended()
        assert server.peers[0].got.count(b"AUTH") == 1
        assert b"MAIL" not in server.peers[0].got
    assert states(steps) == [OK, OK, SKIPPED, OK, OK, FAILED, NOT_RUN, NOT_RUN]
    assert "授权码" in steps["auth"].hint
    assert steps["sender"].milliseconds is None


async def test_nobody_at_the_port_is_a_failed_tcp_step() -> None:
    async with ScriptedServer() as server:
        port = server.port
    steps = await checked(plain(port))
    assert states(steps) == [OK, FAILED, SKIPPED, *[NOT_RUN] * 5]
    assert "Connection refused" in steps["tcp"].detail


async def test_the_authorities_are_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are hundreds: a service that reads them at each check answers nobody meanwhile."""
    threads: list[threading.Thread] = []

    def read(config: RelayConfig) -> None:
        threads.append(threading.current_thread())

    monkeypatch.setattr("service.relay.check.tls_context", read)
    await checked(plain(1))
    assert threads
    assert threading.main_thread() not in threads


async def test_an_unknown_host_is_a_failed_dns_step() -> None:
    steps = await checked(relay_from("r", {"url": "smtps://u:p@nowhere.invalid"}, "test"))
    assert states(steps) == [FAILED, *[NOT_RUN] * 7]
    assert "spelling" in steps["dns"].hint


async def test_a_peer_that_says_nothing_is_left_when_the_check_is_over() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"AUTH PLAIN")
        await peer.line()
        await peer.rest()

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port), Timeouts(check=2))
        await server.ended()
    assert states(steps) == [OK, OK, SKIPPED, OK, OK, FAILED, NOT_RUN, NOT_RUN]
    assert steps["auth"].detail == "the check's 2 s are over"


async def test_the_deadline_holds_for_the_steps_behind_the_login_too() -> None:
    async def script(peer: Peer) -> None:
        await logged_in(peer)
        await peer.line()
        await peer.rest()

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port), Timeouts(check=2))
        await server.ended()
    assert (steps["auth"].state, steps["sender"].state, steps["quit"].state) == (OK, FAILED, NOT_RUN)


async def test_a_relay_that_hangs_up_instead_of_221_works_all_the_same() -> None:
    async def script(peer: Peer) -> None:
        await logged_in(peer)
        for _ in range(2):
            await peer.line()
            await peer.say(b"250 ok")
        await peer.line()

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port))
    assert (steps["sender"].state, steps["quit"].state, steps["quit"].ok) == (OK, WARNING, True)


async def test_without_login_and_addresses_there_is_nothing_to_ask() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"SIZE")
        await peer.expect(b"QUIT\r\n")
        await peer.say(b"221 bye")

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port, ""))
    assert states(steps) == [OK, OK, SKIPPED, OK, OK, SKIPPED, SKIPPED, OK]
    assert "--from" in steps["sender"].hint, "and it says what to give"


async def test_an_address_that_is_given_is_the_one_that_is_asked_for() -> None:
    async def script(peer: Peer) -> None:
        await logged_in(peer)
        await peer.expect(b"MAIL FROM:<shop@b.example>\r\n")
        await peer.say(b"553 5.7.1 not yours")
        await peer.line()
        await peer.say(b"221 bye")

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port), sender="shop@b.example")
    assert steps["sender"].detail == "shop@b.example: 553 5.7.1 not yours"


async def test_a_login_that_is_withheld_leaves_every_other_step_done() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"AUTH PLAIN")
        await peer.expect(b"QUIT\r\n")
        await peer.say(b"221 bye")

    async with ScriptedServer(script) as server:
        steps = await checked(plain(server.port), withheld=Withheld("it rests", "wait"))
    assert list(steps) == CLEAR
    assert states(steps) == [OK, OK, SKIPPED, OK, OK, NOT_RUN, NOT_RUN, OK]
    assert (steps["auth"].detail, steps["auth"].hint, steps["auth"].ok) == ("it rests", "wait", False)


@pytest.mark.parametrize(
    ("login", "keys", "address"),
    [
        ("me%40a.example:p@", {}, "me@a.example"),
        ("apikey:p@", {}, ""),
        ("apikey:p@", {"from": ["a.example", "shop@a.example"]}, "shop@a.example"),
        ("me%40a.example:p@", {"from": ["shop@a.example"]}, "shop@a.example"),
        ("me%40a.example:p@", {"from": ["shop@a.example"], "sender_must_equal_login": True}, "me@a.example"),
        ("apikey:p@", {"from": ["b.example", "a.example"]}, "postmaster@b.example"),
        ("me%40a.example:p@", {"from": ["b.example", "A.example"]}, "me@a.example"),
        ("me%40a.example:p@", {"from": ["b.example"]}, "postmaster@b.example"),
        ("", {"from": ["b.example"]}, "postmaster@b.example"),
        ("apikey:p@", {"from": ["b.example"], "sender_must_equal_login": True}, ""),
    ],
)
def test_the_sender_that_is_asked_for_is_one_that_the_relay_would_carry(
    login: str, keys: dict[str, Any], address: str
) -> None:
    assert sender_of(plain(1, login, **keys)) == address


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
@pytest.mark.parametrize(("hours", "state"), [(24 * 10, WARNING), (24 * 20, OK)])
def test_the_certificate_is_told_and_one_that_expires_soon_is_a_warning(
    loop: str, scheme: str, hours: float, state: StepState, tmp_path: Path
) -> None:
    async def work() -> dict[str, CheckStep]:
        authority = TestAuthority(tmp_path)
        context = authority.odd_context(ends=hours)
        sink = await Sink().start(**{"implicit" if scheme == "smtps" else "starttls": context})
        url = f"{scheme}://zouchengzhuo%40163.com:AUTHCODE@localhost:{sink.port}"
        config = relay_from("r", {"url": url, "ca_file": str(authority.ca_file)}, "test")
        steps = await checked(config)
        patient = Pool(config, load(certificate_warning="9d"), SYSTEM)
        assert {step.name: step.state for step in await patient.check()}["tls"] is OK
        await patient.close(0)
        await sink.stop()
        assert sink.received == []
        return steps

    steps = on_loop(loop, work())
    assert list(steps) == (CLEAR if scheme == "smtps" else STARTTLS)
    assert steps["tls"].state is state
    days = 9.99 if state is WARNING else 20
    assert steps["tls"].detail == (
        "TLSv1.3 TLS_AES_256_GCM_SHA384; certificate of localhost for localhost, 127.0.0.1, "
        f"by Postroom test authority, {days:.0f} days left"
    )
    assert ("renew" in steps["tls"].hint) is (state is WARNING)
    assert all(step.ok for step in steps.values())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
def test_a_bad_certificate_is_a_failed_tls_step(loop: str, scheme: str, tmp_path: Path) -> None:
    async def work() -> dict[str, CheckStep]:
        authority = TestAuthority(tmp_path)
        context = authority.odd_context("other.example")
        sink = await Sink().start(**{"implicit" if scheme == "smtps" else "starttls": context})
        url = f"{scheme}://u:p@localhost:{sink.port}"
        steps = await checked(relay_from("r", {"url": url, "ca_file": str(authority.ca_file)}, "test"))
        await sink.stop()
        return steps

    steps = on_loop(loop, work())
    before = ["dns", "tcp"] if scheme == "smtps" else ["dns", "tcp", "greeting"]
    assert [name for name, step in steps.items() if step.state is OK] == before
    assert steps["tls"].state is FAILED
    assert steps["tls"].detail == "Hostname mismatch, certificate is not valid for 'localhost'"
    assert "another host name" in steps["tls"].hint
    assert steps["ehlo"].state is NOT_RUN


async def test_a_greeting_that_refuses_within_tls_leaves_the_handshake_good(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"554 5.7.1 no service here")
        await peer.rest()

    authority = TestAuthority(tmp_path)
    async with ScriptedServer(script, tls=authority.server_context()) as server:
        url = f"smtps://u:p@localhost:{server.port}"
        steps = await checked(relay_from("r", {"url": url, "ca_file": str(authority.ca_file)}, "test"))
    assert states(steps) == [OK, OK, OK, FAILED, *[NOT_RUN] * 4]
    assert steps["greeting"].detail == "554 5.7.1 no service here"


async def test_checks_do_not_wait_for_each_other() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"SIZE")
        await peer.line()
        await peer.say(b"221 bye")

    async with ScriptedServer(*[script] * 3) as server:
        found = await asyncio.gather(*(checked(plain(server.port, "")) for _ in range(3)))
    assert all(steps["quit"].state is OK for steps in found)
