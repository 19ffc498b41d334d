"""Relays that quote what was sent for the login, at once or later: it stands in no report, status, event, log or check."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.clock import SYSTEM
from service.mail.outcome import Phase
from service.relay.ledger import ProcessLedger
from service.relay.pool import Pool
from service.relay.port import Report
from service.settings import load
from tests.support.logging_in import refused, relay
from tests.support.relaying import codes, outgoing, send
from tests.support.running import ARTICLE, running
from tests.support.smtp_script import Peer, ScriptedServer
from tests.support.waiting import until

USER, SECRET = "me@one.example", "QWERTYUIOPASDFGH"
OFFERED = (b"PIPELINING", b"SIZE 1000000", b"AUTH PLAIN")


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


PLAIN = encoded(f"\0{USER}\0{SECRET}")
FORMS = [SECRET, encoded(SECRET), PLAIN, f"AUTH PLAIN {PLAIN}", PLAIN[:40]]


def shows(text: str) -> bool:
    """Whether any of it can be read there."""
    return any(form.rstrip("=") in text for form in (SECRET, encoded(SECRET), PLAIN, PLAIN[:40]))


def pool_for(port: int, ledger: ProcessLedger | None = None) -> Pool:
    return Pool(relay_of(port), load(), SYSTEM, ledger)


def relay_of(port: int, **keys: Any) -> Any:
    url = f"smtp://{USER.replace('@', '%40')}:{SECRET}@127.0.0.1:{port}?plaintext=allow"
    return relay(port, **{"url": url, "auth": ["PLAIN"], "sender_must_equal_login": False, **keys})


async def log_in(peer: Peer) -> None:
    await peer.hello(*OFFERED)
    await peer.expect(f"AUTH PLAIN {PLAIN}\r\n".encode())
    await peer.say(b"235 2.7.0 ok")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("before", "code", "phase"),
    [
        ((), b"451 4.3.0", Phase.MAIL),
        ((b"250 ok",), b"550 5.7.1", Phase.RCPT),
        ((b"250 ok", b"250 ok"), b"451", Phase.DATA),
        ((b"250 ok", b"250 ok"), b"554-5.0.0 first line\r\n554 5.0.0", Phase.DATA),
    ],
)
async def test_a_reply_in_any_phase_shows_nothing_of_the_login(
    form: str, before: tuple[bytes, ...], code: bytes, phase: Phase
) -> None:
    async def script(peer: Peer) -> None:
        await log_in(peer)
        for _ in range(3):
            await peer.line()
        await peer.say(*before, *[code + b" debug: " + form.encode()] * (3 - len(before)))

    report, told = await reported(script)
    assert codes(report)[0][0] is phase
    assert "debug: " in told
    assert "[redacted]" in told
    assert not shows(told)


@pytest.mark.parametrize("form", [SECRET, encoded(SECRET), PLAIN])
async def test_an_acceptance_that_quotes_it_is_kept_without_it(form: str) -> None:
    async def script(peer: Peer) -> None:
        await log_in(peer)
        for _ in range(3):
            await peer.line()
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        await peer.say(b"250 2.0.0 taken from " + form.encode())
        await peer.rest()

    report, told = await reported(script)
    assert codes(report) == [(Phase.DOT, 250, None)]
    assert "taken from [redacted]" in told
    assert not shows(told)


async def test_what_is_no_reply_at_all_is_told_without_it() -> None:
    async def script(peer: Peer) -> None:
        await log_in(peer)
        await peer.line()
        await peer.say(b"debug: " + b"." * 60 + PLAIN.encode())
        await peer.rest()

    _, told = await reported(script)
    assert "no SMTP reply" in told
    assert not shows(told)
    assert PLAIN[:12] not in told, "nor the piece that is left of it where the words are cut"


async def reported(script: Any) -> tuple[Report, str]:
    """A report, and all that the pool tells of itself and writes into the log meanwhile."""
    with capture_logs() as lines:
        async with ScriptedServer(script) as server:
            pool = pool_for(server.port)
            report = await send(pool, outgoing())
            status = pool.status(SYSTEM.now())
            await pool.close(0)
    return report, f"{report} {status} {lines}"


@pytest.mark.parametrize("where", ["greeting", "ehlo", "offer", "auth", "auth-closing"])
@pytest.mark.parametrize("form", [SECRET, PLAIN])
async def test_a_login_that_is_refused_shows_nothing_of_it_either(where: str, form: str) -> None:
    async def script(peer: Peer) -> None:
        quoted = form.encode()
        if where == "greeting":
            await peer.say(b"554 5.3.0 last time you said " + quoted)
            return
        if where == "ehlo":
            await peer.say(b"220 peer")
            await peer.line()
            await peer.say(b"550 5.3.0 last time you said " + quoted)
            return
        if where == "offer":
            await peer.hello(b"AUTH X" + quoted)
            await peer.rest()
            return
        await peer.hello(*OFFERED)
        await peer.line()
        replies = {"auth": b"535 5.7.8 rejected: ", "auth-closing": b"235 2.7.0 ok\r\n421 4.3.0 closing: "}
        await peer.say(replies[where] + quoted)
        await peer.rest()

    async with ScriptedServer(script) as server:
        failure = await refused(relay_of(server.port))
    assert not shows(f"{failure} {failure.detail} {failure.reply}")


async def test_the_service_shows_it_nowhere(tmp_path: Path) -> None:
    """Refused for the message and for the relay: neither the API nor the log has it."""

    async def script(peer: Peer) -> None:
        await log_in(peer)
        for _ in range(3):
            await peer.line()
        await peer.say(*[f"550 5.7.1 Ip frequency limited: AUTH PLAIN {PLAIN} {SECRET}".encode()] * 3)

    async with ScriptedServer(script) as server:
        url = f"smtp://{USER.replace('@', '%40')}:{SECRET}@127.0.0.1:{server.port}?plaintext=allow"
        table = f'preset = "qq"\nauth = ["PLAIN"]\nsender_must_equal_login = false\nurl = "{url}"\n'
        (tmp_path / "relays.toml").write_text(f"[relays.one]\n{table}")
        with capture_logs() as lines:
            async with running(tmp_path, capture=False, relays_file=tmp_path / "relays.toml") as (client, service):
                id = (await client.post("/send", json=ARTICLE)).json()["id"]
                await until(lambda: service.relays.get("one").status(SYSTEM.now()).reason != "")
                paths = (f"/messages/{id}", f"/messages/{id}/events", "/relays", "/relays/one", "/metrics")
                shown = [(await client.get(path)).text for path in paths]
    told = f"{shown} {lines}"
    assert "frequency limited" in told
    assert "[redacted]" in told
    assert not shows(told)
