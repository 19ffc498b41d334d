"""Logins against a scripted peer: the exact bytes, one attempt each, and nothing of a secret in what is told."""

import asyncio
import base64
import hashlib
import hmac
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.mail.outcome import Failure, Phase
from service.relay.failure import Cause, SessionFailure
from service.relay.session import Session, Timeouts
from tests.support.logging_in import LOOPS, QUICK, SECRET, USER, against, offering, on_loop, open_to, refused, relay
from tests.support.smtp_script import Peer, Script, ScriptedServer

GOOD = b"235 2.7.0 welcome"


def encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())


PLAIN = b"AUTH PLAIN " + encoded(f"\0{USER}\0{SECRET}") + b"\r\n"
CHALLENGE = "<1896.697170952@postoffice.example>"
PROOF = hmac.new(SECRET.encode(), CHALLENGE.encode(), hashlib.md5).hexdigest()
XOAUTH2 = b"AUTH XOAUTH2 " + encoded(f"user={USER}\x01auth=Bearer tok.en-1\x01\x01") + b"\r\n"
BEARER = b"AUTH OAUTHBEARER " + encoded(f"n,a={USER},\x01auth=Bearer tok.en-1\x01\x01") + b"\r\n"
REFUSAL = encoded('{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}')


def exchange(*pairs: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return list(pairs)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("mechanism", "lines"),
    [
        ("PLAIN", exchange((PLAIN, GOOD))),
        ("LOGIN", exchange((b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6"), (encoded(USER) + b"\r\n", b"334 UGFzc3dvcmQ6"), (encoded(SECRET) + b"\r\n", GOOD))),
        ("LOGIN", exchange((b"AUTH LOGIN\r\n", b"334 who are you, \xc4\xe3\xba\xc3"), (encoded(USER) + b"\r\n", b"334"), (encoded(SECRET) + b"\r\n", GOOD))),
        ("CRAM-MD5", exchange((b"AUTH CRAM-MD5\r\n", b"334 " + encoded(CHALLENGE)), (encoded(f"{USER} {PROOF}") + b"\r\n", GOOD))),
    ],
)  # fmt: skip
def test_each_mechanism_says_exactly_what_its_rfc_says(
    loop: str, mechanism: str, lines: list[tuple[bytes, bytes]]
) -> None:
    @offering(b"AUTH " + mechanism.encode())
    async def script(peer: Peer) -> None:
        for wanted, answer in lines:
            await peer.expect(wanted)
            await peer.say(answer)

    session, (got,) = on_loop(loop, against(script))
    assert isinstance(session, Session)
    assert session.words.endswith(f"no TLS AUTH {mechanism}")
    assert got == b"".join(wanted for wanted, _ in lines)


@pytest.mark.parametrize(
    ("offered", "configured", "first"),
    [
        (b"AUTH=PLAIN LOGIN", ["PLAIN", "LOGIN"], PLAIN),
        (b"AUTH login plain", ["PLAIN", "LOGIN"], PLAIN),
        (b"AUTH PLAIN LOGIN", ["LOGIN", "PLAIN"], b"AUTH LOGIN\r\n"),
        (b"AUTH CRAM-MD5 PLAIN XOAUTH2", ["xoauth2", "PLAIN"], PLAIN),
    ],
)
async def test_the_first_of_the_relays_own_list_that_is_offered_is_tried_and_no_other(
    offered: bytes, configured: list[str], first: bytes
) -> None:
    @offering(offered)
    async def script(peer: Peer) -> None:
        await peer.expect(first)
        await peer.say(b"535 5.7.8 no")

    failure, (got,) = await against(script, auth=configured)
    assert isinstance(failure, SessionFailure)
    assert (failure.phase, failure.reply and failure.reply.code) == (Phase.AUTH, 535)
    assert got == first


async def test_a_login_that_fails_at_the_user_name_never_shows_the_secret() -> None:
    @offering(b"AUTH LOGIN")
    async def script(peer: Peer) -> None:
        await peer.expect(b"AUTH LOGIN\r\n")
        await peer.say(b"334 VXNlcm5hbWU6")
        await peer.expect(encoded(USER) + b"\r\n")
        await peer.say(b"535 5.7.8 who?")

    failure, (got,) = await against(script)
    assert str(failure) == "auth: 535 5.7.8 who?: "
    assert encoded(SECRET) not in got


async def test_a_long_secret_goes_after_the_334() -> None:
    secret = "s" * 400

    @offering(b"AUTH PLAIN")
    async def script(peer: Peer) -> None:
        await peer.expect(b"AUTH PLAIN\r\n")
        await peer.say(b"334 ")
        await peer.expect(encoded(f"\0u\0{secret}") + b"\r\n")
        await peer.say(GOOD)

    async with ScriptedServer(script) as server:
        from service.relay.config import relay_from

        url = f"smtp://u:{secret}@localhost:{server.port}?plaintext=allow"
        (await open_to(relay_from("r", {"url": url}, "test"))).abort()


@pytest.mark.parametrize(
    ("answer", "code", "failure"),
    [
        ([b"421 4.7.0 too busy"], 421, None),
        ([b"454 4.7.0 later"], 454, None),
        ([b"235 2.7.0 welcome", b"421 4.3.2 going down"], 421, None),
        ([b"334 UGFzc3dvcmQ6"], None, Failure.PROTOCOL),
        ([b"welcome"], None, Failure.PROTOCOL),
    ],
)
async def test_whatever_else_is_answered_to_a_login_is_told_as_it_is(
    answer: list[bytes], code: int | None, failure: Failure | None
) -> None:
    @offering(b"AUTH PLAIN")
    async def script(peer: Peer) -> None:
        await peer.expect(PLAIN)
        await peer.say(*answer)

    told, (got,) = await against(script)
    assert isinstance(told, SessionFailure)
    assert (told.phase, told.reply and told.reply.code, told.failure) == (Phase.AUTH, code, failure)
    assert got == PLAIN, "one attempt, and nothing after it"


async def test_a_challenge_that_is_no_base64_ends_the_login_without_an_answer() -> None:
    @offering(b"AUTH CRAM-MD5")
    async def script(peer: Peer) -> None:
        await peer.expect(b"AUTH CRAM-MD5\r\n")
        await peer.say(b"334 <not base64>")

    failure, (got,) = await against(script)
    assert isinstance(failure, SessionFailure)
    assert (failure.failure, failure.detail) == (Failure.PROTOCOL, "the challenge of CRAM-MD5 is no Base64")
    assert got == b"AUTH CRAM-MD5\r\n"


@pytest.mark.parametrize(
    "said", [PLAIN.decode().strip(), encoded(f"\0{USER}\0{SECRET}").decode(), f"password {SECRET} is wrong"]
)
async def test_a_server_that_repeats_the_secret_gets_it_into_no_log(said: str) -> None:
    @offering(b"AUTH PLAIN")
    async def script(peer: Peer) -> None:
        await peer.expect(PLAIN)
        await peer.say(b"535-5.7.8 " + said.encode(), b"535 5.7.8 bad")

    failure, _ = await against(script)
    assert isinstance(failure, SessionFailure)
    assert failure.reply is not None
    assert "[redacted]" in failure.reply.text
    assert encoded(f"\0{USER}\0{SECRET}").decode() not in str(failure)
    assert SECRET not in str(failure)


async def test_without_a_mechanism_in_common_nothing_is_said() -> None:
    @offering(b"AUTH GSSAPI NTLM")
    async def script(peer: Peer) -> None:
        pass

    failure, (got,) = await against(script)
    assert isinstance(failure, SessionFailure)
    assert (failure.failure, failure.cause) == (Failure.CAPABILITY, Cause.NO_MECHANISM)
    assert "offers AUTH GSSAPI NTLM, wanted PLAIN LOGIN CRAM-MD5" in failure.detail
    assert got == b""


async def test_without_a_secret_no_login_is_tried() -> None:
    """A process that only takes requests has none, and may still be asked for a check."""

    @offering(b"AUTH PLAIN LOGIN")
    async def script(peer: Peer) -> None:
        pass

    async with ScriptedServer(script) as server:
        config = replace(relay(server.port), secret=SecretStr(""))
        failure = await refused(config)
        await server.ended()
    assert (failure.phase, failure.cause) == (Phase.AUTH, Cause.NO_SECRET)
    assert b"AUTH" not in server.peers[0].got


# --- tokens -----------------------------------------------------------------------------------------------------------


def printing(folder: Path, *tokens: str) -> list[str]:
    """A command that prints these, one at each start, and writes down that it was started."""
    file = folder / "token.sh"
    cases = "\n".join(f"{number}) printf %s '{token}' ;;" for number, token in enumerate(tokens, 1))
    file.write_text(
        f'echo x >> "{folder}/started"\ncase $(wc -l < "{folder}/started") in\n{cases}\n*) exit 9 ;; esac\n'
    )
    return ["/bin/sh", str(file)]


def started(folder: Path) -> int:
    return len((folder / "started").read_text().splitlines())


def refusing(command: bytes, ends: bytes = b"535 5.7.8 no") -> Script:
    @offering(b"AUTH XOAUTH2")
    async def script(peer: Peer) -> None:
        await peer.expect(command)
        await peer.say(b"334 " + REFUSAL)
        await peer.expect(b"\r\n")
        await peer.say(ends)

    return script


def taking(command: bytes) -> Script:
    @offering(b"AUTH XOAUTH2")
    async def script(peer: Peer) -> None:
        await peer.expect(command)
        await peer.say(GOOD)

    return script


def with_token(token: str) -> bytes:
    return b"AUTH XOAUTH2 " + encoded(f"user={USER}\x01auth=Bearer {token}\x01\x01") + b"\r\n"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("mechanism", "command"), [(b"XOAUTH2", XOAUTH2), (b"OAUTHBEARER", BEARER)])
def test_a_token_logs_in_in_one_line(loop: str, mechanism: bytes, command: bytes, tmp_path: Path) -> None:
    @offering(b"AUTH LOGIN PLAIN " + mechanism)
    async def script(peer: Peer) -> None:
        await peer.expect(command)
        await peer.say(GOOD)

    session, (got,) = on_loop(loop, against(script, token_command=printing(tmp_path, "tok.en-1")))
    assert isinstance(session, Session), session
    assert got == command


@pytest.mark.parametrize(("mechanism", "command", "end"), [(b"XOAUTH2", XOAUTH2, b"\r\n"), (b"OAUTHBEARER", BEARER, b"AQ==\r\n")])  # fmt: skip
async def test_a_refused_token_gets_its_535_by_the_line_that_ends_the_dialogue(
    mechanism: bytes, command: bytes, end: bytes, tmp_path: Path
) -> None:
    @offering(b"AUTH " + mechanism)
    async def script(peer: Peer) -> None:
        await peer.expect(command)
        await peer.say(b"334 " + REFUSAL)
        await peer.expect(end)
        await peer.say(b"535-5.7.8 Username and Password not accepted.", b"535 5.7.8 Learn more")

    failure, (got,) = await against(script, token_command=printing(tmp_path, "tok.en-1"))
    assert isinstance(failure, SessionFailure)
    assert (failure.reply and failure.reply.code, failure.mechanism) == (535, mechanism.decode())
    assert '"status":"401"' in failure.detail
    assert "tok.en-1" not in str(failure)
    assert got == command + end
    assert started(tmp_path) == 1, "it had just been fetched: another one would be no better"


async def test_a_kept_token_that_is_refused_is_fetched_anew_once(tmp_path: Path) -> None:
    scripts = taking(with_token("one")), refusing(with_token("one")), taking(with_token("two"))
    async with ScriptedServer(*scripts) as server:
        config = relay(server.port, token_command=printing(tmp_path, "one", "two"))
        (await open_to(config)).abort()
        (await open_to(config)).abort()
        assert len(server.peers) == 3
    assert started(tmp_path) == 2


async def test_after_the_second_refusal_there_is_no_third_login(tmp_path: Path) -> None:
    scripts = (
        taking(with_token("one")),
        refusing(with_token("one")),
        refusing(with_token("two")),
        refusing(with_token("three")),
    )
    async with ScriptedServer(*scripts) as server:
        config = relay(server.port, token_command=printing(tmp_path, "one", "two", "three"))
        (await open_to(config)).abort()
        assert (await refused(config)).reply is not None
        assert len(server.peers) == 3
        await refused(config)
        assert len(server.peers) == 4, "the refused token was forgotten: one login with a new one"
    assert started(tmp_path) == 3


async def test_a_source_that_has_no_other_token_costs_one_login(tmp_path: Path) -> None:
    async with ScriptedServer(taking(with_token("one")), refusing(with_token("one"))) as server:
        config = relay(server.port, token_command=printing(tmp_path, "one", "one"))
        (await open_to(config)).abort()
        assert (await refused(config)).reply is not None
        assert len(server.peers) == 2
    assert started(tmp_path) == 2


def renewing(file: Path, old: str, new: str) -> Script:
    """The file is renewed while the login with what stood in it is on its way, which is refused."""
    renew = file.write_text

    @offering(b"AUTH XOAUTH2")
    async def script(peer: Peer) -> None:
        await peer.expect(with_token(old))
        renew(new)
        await peer.say(b"334 " + REFUSAL)
        await peer.expect(b"\r\n")
        await peer.say(b"535 5.7.8 no")

    return script


async def test_a_token_file_that_was_renewed_during_a_refused_login_is_tried_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    async with ScriptedServer(renewing(file, "one", "two"), taking(with_token("two"))) as server:
        (await open_to(relay(server.port, token_file=str(file)))).abort()
        assert len(server.peers) == 2


async def test_a_token_file_that_is_renewed_during_each_login_costs_two_and_one_that_is_not_costs_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    scripts = renewing(file, "one", "two"), renewing(file, "two", "three"), refusing(with_token("three"))
    async with ScriptedServer(*scripts) as server:
        config = relay(server.port, token_file=str(file))
        assert (await refused(config)).reply is not None
        assert len(server.peers) == 2
        assert (await refused(config)).reply is not None
        assert len(server.peers) == 3, "nobody renewed it: the next login is the breaker's to allow"


async def test_a_login_that_can_not_be_checked_now_spends_no_token(tmp_path: Path) -> None:
    async with ScriptedServer(taking(with_token("one")), refusing(with_token("one"), b"454 4.7.0 later")) as server:
        config = relay(server.port, token_command=printing(tmp_path, "one"))
        (await open_to(config)).abort()
        failure = await refused(config)
        assert failure.reply is not None
        assert failure.reply.code == 454
    assert started(tmp_path) == 1


async def test_many_logins_at_once_wait_for_one_fetch(tmp_path: Path) -> None:
    async with ScriptedServer(*[taking(with_token("one"))] * 5) as server:
        config = relay(server.port, token_command=printing(tmp_path, "one"))
        for session in await asyncio.gather(*(open_to(config) for _ in range(5))):
            session.abort()
    assert started(tmp_path) == 1


async def test_without_a_token_nothing_is_said_after_ehlo(tmp_path: Path) -> None:
    @offering(b"AUTH XOAUTH2")
    async def script(peer: Peer) -> None:
        pass

    failure, (got,) = await against(script, token_file=str(tmp_path / "none"))
    assert isinstance(failure, SessionFailure)
    assert (failure.phase, failure.failure, failure.cause) == (Phase.AUTH, Failure.TOKEN, Cause.TOKEN_FILE)
    assert failure.detail == f"token_file: {tmp_path}/none: No such file or directory"
    assert got == b""


# --- before the login -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("greeting", "phase", "code", "failure"),
    [
        ([b"554 5.7.1 no service here"], Phase.GREETING, 554, None),
        ([b"421 4.3.2 busy"], Phase.GREETING, 421, None),
        ([b"HTTP/1.1 400 Bad Request", b""], Phase.GREETING, None, Failure.PROTOCOL),
        ([], Phase.GREETING, None, Failure.LOST),
    ],
)
async def test_what_comes_in_place_of_a_greeting_is_told(
    greeting: list[bytes], phase: Phase, code: int | None, failure: Failure | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(*greeting)

    told, _ = await against(script)
    assert isinstance(told, SessionFailure)
    assert (told.phase, told.reply and told.reply.code, told.failure) == (phase, code, failure)


async def test_silence_after_connecting_is_a_greeting_that_did_not_come() -> None:
    async def script(peer: Peer) -> None:
        await peer.rest()

    async with ScriptedServer(script) as server:
        told = await refused(relay(server.port), Timeouts(greeting=0.2))
    assert (told.phase, told.failure, told.cause) == (Phase.GREETING, Failure.TIMEOUT, Cause.SILENT)


async def test_nobody_at_the_port_and_no_such_host_are_told_apart() -> None:
    async with ScriptedServer() as server:
        port = server.port
    told = await refused(relay(port))
    assert (told.phase, told.failure) == (Phase.CONNECT, Failure.REFUSED)
    assert told.detail.endswith("127.0.0.1: Connection refused")
    from service.relay.config import relay_from

    unknown = await refused(relay_from("r", {"url": "smtps://u:p@nowhere.invalid"}, "test"), QUICK)
    assert (unknown.phase, unknown.failure) == (Phase.CONNECT, Failure.DNS)
