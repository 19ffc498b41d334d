"""Our transactions against a real Postfix with its guards on: what it answers, and what is in the mailbox afterwards.

Each test starts a Postfix of its own. What it refuses is decided by its own tables, so the replies are its own words.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.clock import SYSTEM
from service.mail.outcome import Failure, Phase
from service.relay.config import relay_from
from service.relay.pool import Pool
from service.relay.port import Pipelining
from service.settings import load
from tests.support.dovecot_auth import DovecotAuth
from tests.support.postfix import Arrived, Postfix
from tests.support.relaying import SENT, begin, codes, outgoing, pool_for, send
from tests.support.tls import TestAuthority

LISTED = {
    "smtpd_recipient_restrictions": "check_recipient_access inline:{ {gone@b.example = 550 5.1.1 nobody here}"
    " {busy@b.example = 450 4.2.0 come back later} }, permit",
    "header_checks": "regexp:{{/^X-Refuse:/ REJECT we do not like this} {/^X-Later:/ WARN}}",
}
REFUSED_CONTENT = (b"Subject: x\r\nX-Refuse: yes\r\n\r\nhello\r\n",)
ONE = "max_connections=1"
BY_CHUNK_OR_DOT = pytest.mark.parametrize("options", [f"{ONE}&chunking=true", f"{ONE}&chunking=false"])


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    """One that has refusals on its lists."""
    with Postfix(LISTED) as started:
        yield started


def body(number: int) -> tuple[bytes, ...]:
    """Content that is told from any other."""
    return (b"Subject: number %d\r\nX-Number: %d\r\n\r\n" % (number, number), b"line of %d\r\n.\r\n..\r\n" % number)


async def all_sent(pool: Pool, *numbers: int) -> None:
    """Hand over `body(n)` for n@b.example, as many at once as the pool says that it can start."""
    capacity = asyncio.Event()
    pool.on_capacity(capacity.set)
    waiting = []
    for number in numbers:
        while pool.free(SYSTEM.now()) + pool.ahead(SYSTEM.now()) == 0:
            capacity.clear()
            await asyncio.wait_for(capacity.wait(), 30)
        waiting.append(begin(pool, outgoing(f"{number}@b.example", content=body(number))))
    done = await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert [codes(report) for report in done] == [SENT] * len(numbers)


@pytest.mark.parametrize("pipelining", ["full", "envelope", "off"])
async def test_two_hundred_messages_over_four_connections_arrive_once_each_and_byte_for_byte(
    postfix: Postfix, pipelining: str
) -> None:
    pool = pool_for(postfix.port, f"max_connections=4&max_messages_per_connection=30&pipelining={pipelining}")
    numbers = range(200)
    await all_sent(pool, *numbers)
    await pool.close(5)
    arrived = await asyncio.to_thread(postfix.arrived, 200)
    assert sorted((each.recipient, each.content) for each in arrived) == sorted(
        (f"{number}@b.example", b"".join(body(number))) for number in numbers
    )
    assert "improper command pipelining" not in postfix.log()
    assert pool.learnt.pipelining is Pipelining[pipelining.upper()], "no reply was out of step"


@BY_CHUNK_OR_DOT
async def test_dots_and_long_lines_survive(postfix: Postfix, options: str) -> None:
    lines = (b".", b"..", b".leading", b"", b"x" * 998, b"." * 998, b"y" * 20_000, "三点…".encode(), b".")
    content = b"Subject: dots\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)
    pool = pool_for(postfix.port, options)
    for _ in range(2):
        assert codes(await send(pool, outgoing(content=(content,)))) == SENT
    await pool.close(1)
    arrived = await asyncio.to_thread(postfix.arrived, 2)
    assert [each.content for each in arrived] == [content] * 2


@BY_CHUNK_OR_DOT
async def test_three_recipients_with_three_replies_send_the_content_to_the_one_accepted(
    postfix: Postfix, options: str
) -> None:
    pool = pool_for(postfix.port, options)
    message = outgoing("a@b.example", "busy@b.example", "gone@b.example", content=body(1))
    report = await send(pool, message)
    await all_sent(pool, 2)
    await pool.close(1)
    assert codes(report) == [(Phase.DOT, 250, None), (Phase.RCPT, 450, None), (Phase.RCPT, 550, None)]
    assert [str(each.reply) for each in report.results[1:]] == [
        "450 4.2.0 <busy@b.example>: Recipient address rejected: come back later",
        "550 5.1.1 <gone@b.example>: Recipient address rejected: nobody here",
    ]
    await assert_only(postfix, "a@b.example", "2@b.example")


@BY_CHUNK_OR_DOT
async def test_when_nobody_is_accepted_nothing_arrives_and_the_session_lives_on(postfix: Postfix, options: str) -> None:
    pool = pool_for(postfix.port, options)
    report = await send(pool, outgoing("gone@b.example", "busy@b.example"))
    await all_sent(pool, 1)
    await pool.close(1)
    assert codes(report) == [(Phase.RCPT, 550, None), (Phase.RCPT, 450, None)]
    await assert_only(postfix, "1@b.example")
    assert sessions(postfix) == 1


async def test_a_refusal_at_the_dot_leaves_the_next_message_that_was_opened_with_it(postfix: Postfix) -> None:
    pool = pool_for(postfix.port, f"{ONE}&chunking=false")
    refused = begin(pool, outgoing("1@b.example", content=REFUSED_CONTENT))
    following = begin(pool, outgoing("2@b.example", content=body(2)))  # it waits, and goes with the content before it
    report = await asyncio.wait_for(refused, 10)
    assert codes(report) == [(Phase.DOT, 550, None)]
    assert str(report.results[0].reply) == "550 5.7.1 we do not like this"
    assert codes(await asyncio.wait_for(following, 10)) == SENT
    await pool.close(1)
    await assert_only(postfix, "2@b.example")
    assert sessions(postfix) == 1


async def test_the_first_octet_is_taken_as_a_chunk_and_what_follows_goes_whole(postfix: Postfix) -> None:
    pool = pool_for(postfix.port, f"{ONE}&chunking=true")
    await all_sent(pool, 1)
    for number in (2, 3):  # one after the other: each goes whole
        await all_sent(pool, number)
    assert pool.learnt.chunking
    await pool.close(1)
    arrived = await asyncio.to_thread(postfix.arrived, 3)
    assert sorted(each.content for each in arrived) == [b"".join(body(number)) for number in (1, 2, 3)]
    await asyncio.to_thread(postfix.until_logged, "ehlo=1 mail=3 rcpt=3 bdat=4 quit=1")


async def test_what_was_refused_in_one_chunk_leaves_the_session_to_the_next(postfix: Postfix) -> None:
    pool = pool_for(postfix.port, f"{ONE}&chunking=true")
    report = await send(pool, outgoing("1@b.example", content=REFUSED_CONTENT))
    await all_sent(pool, 2, 3)
    await pool.close(1)
    assert codes(report) == [(Phase.DOT, 550, None)]
    await assert_only(postfix, "2@b.example", "3@b.example")
    assert sessions(postfix) == 1


async def test_the_next_messages_own_refusals_are_its_own(postfix: Postfix) -> None:
    pool = pool_for(postfix.port, ONE)
    waiting = [
        begin(pool, outgoing("1@b.example", content=body(1))),
        begin(pool, outgoing("gone@b.example", "busy@b.example")),
    ]
    first, second = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    await all_sent(pool, 3)
    await pool.close(1)
    assert (codes(first), codes(second)) == (SENT, [(Phase.RCPT, 550, None), (Phase.RCPT, 450, None)])
    await assert_only(postfix, "1@b.example", "3@b.example")


async def test_a_lost_lease_leaves_no_mail_not_even_an_empty_one(postfix: Postfix) -> None:
    pool = pool_for(postfix.port, f"{ONE}&chunking=false")
    report = await send(pool, outgoing(may_proceed=lambda: False))
    assert codes(report) == [(Phase.CONTENT, None, Failure.SHUTDOWN)]
    await asyncio.to_thread(postfix.until_logged, "lost connection after DATA")
    await all_sent(pool, 1)
    await pool.close(1)
    await assert_only(postfix, "1@b.example")


async def test_an_internationalised_address_and_subject_arrive(postfix: Postfix) -> None:
    content = "Subject: 你好\r\nFrom: 用户@例子.example\r\n\r\n世界\r\n".encode()
    pool = pool_for(postfix.port)
    assert codes(await send(pool, outgoing("用户@b.example", content=(content,), smtputf8=True))) == SENT
    await pool.close(1)
    arrived = await asyncio.to_thread(postfix.arrived, 1)
    assert arrived == [Arrived("用户@b.example", content)]


async def test_a_message_over_the_announced_size_is_never_offered() -> None:
    with Postfix({"message_size_limit": "2000"}) as postfix:
        pool = pool_for(postfix.port)
        report = await send(pool, outgoing(content=(b"Subject: x\r\n\r\n", b"x" * 3000 + b"\r\n")))
        await all_sent(pool, 1)
        await pool.close(1)
        assert codes(report) == [(Phase.MAIL, None, Failure.CAPABILITY)]
        assert pool.max_size == 2000
        await assert_only(postfix, "1@b.example")


@BY_CHUNK_OR_DOT
async def test_a_size_that_was_not_announced_is_refused_with_the_content(options: str) -> None:
    with Postfix({"message_size_limit": "2000", "smtpd_discard_ehlo_keywords": "size"}) as postfix:
        pool = pool_for(postfix.port, options)
        report = await send(pool, outgoing(content=(b"Subject: x\r\n\r\n", b"x\r\n" * 3000)))
        await all_sent(pool, 1)
        await pool.close(1)
        assert codes(report) == [(Phase.DOT, 552, None)]
        assert report.results[0].reply is not None
        assert report.results[0].reply.enhanced == "5.3.4"
        await assert_only(postfix, "1@b.example")


async def test_too_many_errors_end_the_session_with_a_421_and_the_next_message_takes_a_fresh_one() -> None:
    with Postfix({**LISTED, "smtpd_hard_error_limit": "2"}) as postfix:
        pool = pool_for(postfix.port, f"{ONE}&chunking=false")
        report = await send(pool, outgoing("1@b.example", "gone@b.example", "busy@b.example", "2@b.example"))
        assert codes(report) == [
            (Phase.RCPT, 421, None),
            (Phase.RCPT, 550, None),
            (Phase.RCPT, 450, None),
            (Phase.RCPT, 421, None),
        ]
        assert not report.content_started
        await all_sent(pool, 3)
        await pool.close(1)
        await assert_only(postfix, "3@b.example")
        assert sessions(postfix) == 2


async def test_too_many_connections_are_told_in_the_greeting() -> None:
    with Postfix({"smtpd_client_connection_count_limit": "1"}) as postfix:
        holder, other = pool_for(postfix.port), pool_for(postfix.port)
        await all_sent(holder, 1)
        report = await send(other, outgoing())
        await other.close(1)
        await holder.close(1)
    assert codes(report) == [(Phase.GREETING, 421, None)]
    assert "too many connections" in str(report.results[0].reply)


async def test_too_many_messages_in_a_minute_are_told_at_mail() -> None:
    with Postfix({"smtpd_client_message_rate_limit": "2"}) as postfix:
        pool = pool_for(postfix.port, f"{ONE}&chunking=false")
        await all_sent(pool, 1, 2)
        report = await send(pool, outgoing("3@b.example"))
        await pool.close(1)
        assert codes(report) == [(Phase.MAIL, 450, None)]
        assert "too much mail" in str(report.results[0].reply)
        await assert_only(postfix, "1@b.example", "2@b.example")


async def test_a_session_that_timed_out_while_idle_is_replaced_and_nothing_is_reported() -> None:
    with Postfix({"smtpd_timeout": "1s"}) as postfix:
        pool = pool_for(postfix.port, ONE)
        await all_sent(pool, 1)
        await asyncio.to_thread(postfix.until_logged, "timeout after")
        await all_sent(pool, 2)
        await pool.close(1)
        await assert_only(postfix, "1@b.example", "2@b.example")
        assert sessions(postfix) == 2


async def test_a_stop_of_postfix_before_the_content_leaves_nothing_in_doubt(postfix: Postfix) -> None:
    async def stop() -> None:
        await asyncio.to_thread(postfix.stop)

    pool = pool_for(postfix.port, f"{ONE}&chunking=false")
    report = await send(pool, outgoing(on_content=stop))
    await pool.close(1)
    assert codes(report) == [(Phase.CONTENT, None, Failure.LOST)]
    assert not report.content_started


async def assert_only(postfix: Postfix, *recipients: str) -> None:
    """The mailbox holds one message for each of these, and nothing further is on its way."""
    await asyncio.to_thread(postfix.arrived, len(recipients))
    await asyncio.to_thread(postfix.idle)
    assert sorted(each.recipient for each in postfix.arrived(0)) == sorted(recipients)


def sessions(postfix: Postfix) -> int:
    """How many connections said EHLO."""
    return postfix.log().count("disconnect from unknown[127.0.0.1] ehlo=")


# --- logins and TLS ---------------------------------------------------------------------------------------------------


def login_settings(folder: Path) -> dict[str, str]:
    """TLS demanded, AUTH only over it, and sending only after it."""
    return {
        "smtpd_tls_chain_files": str(folder / "server.pem"),
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_auth_only": "yes",
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": str(folder / "auth"),
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
    }


@pytest.fixture
def login_folder() -> Iterator[Path]:
    """Where other users may reach the socket, which pytest's folders are closed to."""
    with tempfile.TemporaryDirectory(prefix="postroom-auth-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def login_pool(url: str, authority: TestAuthority, **values: object) -> Pool:
    return Pool(relay_from("r", {"url": url, "ca_file": str(authority.ca_file), **values}, "test"), load(), SYSTEM)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
async def test_tls_and_a_login(login_folder: Path, scheme: str, mechanism: str) -> None:
    authority = TestAuthority(login_folder)
    wrapped = {"smtpd_tls_wrappermode": "yes"} if scheme == "smtps" else {}
    async with DovecotAuth(login_folder / "auth", "me@example.com", "CODE") as logins:
        with Postfix({**login_settings(login_folder), **wrapped}) as postfix:
            url = f"{scheme}://me%40example.com:CODE@127.0.0.1:{postfix.port}"
            pool = login_pool(url, authority, auth=[mechanism])
            await all_sent(pool, 1, 2, 3)
            await pool.close(1)
            await assert_only(postfix, "1@b.example", "2@b.example", "3@b.example")
    assert set(logins.logins) == {(mechanism, True)}


async def test_a_wrong_secret_is_one_refused_login(login_folder: Path) -> None:
    authority = TestAuthority(login_folder)
    async with DovecotAuth(login_folder / "auth", "me@example.com", "CODE") as logins:
        with Postfix(login_settings(login_folder)) as postfix:
            pool = login_pool(f"smtp+starttls://me%40example.com:WRONG@127.0.0.1:{postfix.port}", authority)
            report = await send(pool, outgoing())
            await pool.close(1)
    assert codes(report) == [(Phase.AUTH, 535, None)]
    assert not report.mail_started
    assert logins.logins == [("PLAIN", False)]
    assert "WRONG" not in repr(report)


async def test_a_certificate_of_an_unknown_authority_is_never_trusted(login_folder: Path, tmp_path: Path) -> None:
    TestAuthority(login_folder)
    async with DovecotAuth(login_folder / "auth", "me@example.com", "CODE") as logins:
        with Postfix(login_settings(login_folder)) as postfix:
            url = f"smtp+starttls://me%40example.com:CODE@127.0.0.1:{postfix.port}"
            pool = login_pool(url, TestAuthority(tmp_path))
            report = await send(pool, outgoing())
            await pool.close(1)
    assert codes(report) == [(Phase.TLS, None, Failure.TLS)]
    assert logins.logins == []
