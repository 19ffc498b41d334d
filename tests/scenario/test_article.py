"""The article's example: a Chinese message from a 163 mailbox to a QQ mailbox, over every kind of login and TLS."""

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.running import ARTICLE, running
from tests.support.sink import Received, Sink
from tests.support.tls import TestAuthority


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


def read_back(received: Received) -> EmailMessage:
    """By the standard library, which did not write it."""
    message = email.message_from_bytes(received.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def assert_is_the_article(received: Received) -> None:
    assert received.mail_from == "zouchengzhuo@163.com"
    assert received.rcpt_tos == ["405966530@qq.com"]
    message = read_back(received)
    assert message["subject"] == "测试SMTP发送邮件"
    (sender,), (recipient,) = message["from"].addresses, message["to"].addresses
    assert (sender.display_name, sender.addr_spec) == ("zoucz", "zouchengzhuo@163.com")
    assert (recipient.display_name, recipient.addr_spec) == ("zoucz", "405966530@qq.com")
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().strip() == "这是一封测试邮件"
    assert html.get_content().strip() == "<p>这是一封<b>测试</b>邮件</p>"
    assert message.get_content_type() == "multipart/alternative"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls", "smtp"])
async def test_one_setting_sends_it(
    scheme: str, mechanism: str, tmp_path: Path, authority: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = authority.server_context()
    sink = await Sink().start(
        implicit=context if scheme == "smtps" else None,
        starttls=context if scheme == "smtp+starttls" else None,
        mechanisms=(mechanism,),
    )
    option = "plaintext=allow" if scheme == "smtp" else f"ca_file={authority.ca_file}"
    url = f"{scheme}://zouchengzhuo%40163.com:AUTHCODE@localhost:{sink.port}?{option}"
    monkeypatch.setenv("POSTROOM_RELAY_URL", url)
    async with running(tmp_path, capture=False) as (client, _):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "sent"
        assert answer.json()["recipients"][0]["provider_message_id"] == "1"
        (received,) = sink.received
        assert_is_the_article(received)
        assert received.tls is (scheme == "smtp+starttls")
        assert sink.logins == [(mechanism, True)], "one login, with the one mechanism offered"
    await sink.stop()


async def test_a_wrong_secret_is_tried_once_and_nothing_is_lost(tmp_path: Path, authority: TestAuthority) -> None:
    sink = await Sink().start(implicit=authority.server_context())
    url = f"smtps://zouchengzhuo%40163.com:WRONG@localhost:{sink.port}?ca_file={authority.ca_file}"
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=1"})
        assert answer.status_code == 202
        message = (await client.get(answer.headers["location"])).json()
        (recipient,) = message["recipients"]
        assert (recipient["status"], recipient["attempts"]) == ("queued", 0), "the message is charged nothing"
        assert recipient["last_reply"]["code"] == 535
        assert "broken" in recipient["held_back_by"]
        assert sink.logins == [("PLAIN", False)], "never a second mechanism with a refused secret"
        (relay,) = (await client.get("/relays")).json()["data"]
        assert relay["health"] == "broken"
        assert "WRONG" not in (await client.get("/relays")).text
    await sink.stop()


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
async def test_a_certificate_of_another_host_ends_it_before_the_login(scheme: str, tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path, host="elsewhere.example")
    context = authority.server_context()
    sink = await Sink().start(
        implicit=context if scheme == "smtps" else None, starttls=context if scheme == "smtp+starttls" else None
    )
    url = f"{scheme}://zouchengzhuo%40163.com:AUTHCODE@localhost:{sink.port}?ca_file={authority.ca_file}"
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=1"})
        message = (await client.get(answer.headers["location"])).json()
        assert message["recipients"][0]["class"] == "tls"
        assert sink.logins == []
        assert sink.received == []
    await sink.stop()


async def test_starttls_that_is_stripped_ends_it_before_the_login(tmp_path: Path) -> None:
    sink = await Sink().start()
    url = f"smtp+starttls://zouchengzhuo%40163.com:AUTHCODE@localhost:{sink.port}"
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=1"})
        message = (await client.get(answer.headers["location"])).json()
        assert message["status"] == "queued"
        assert "does not offer STARTTLS" in message["recipients"][0]["last_reply"]["text"]
        assert sink.logins == []
        assert sink.received == []
    await sink.stop()


async def test_three_recipients_get_three_fates(tmp_path: Path, authority: TestAuthority) -> None:
    sink = await Sink().start(implicit=authority.server_context())
    sink.replies = {"greylisted@example.org": "450 4.2.0 try later", "nobody@example.org": "550 5.1.1 no such user"}
    url = f"smtps://zouchengzhuo%40163.com:AUTHCODE@localhost:{sink.port}?ca_file={authority.ca_file}"
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        to = ["zoucz <405966530@qq.com>", "greylisted@example.org", "nobody@example.org"]
        answer = await client.post("/send", json={**ARTICLE, "to": to}, headers={"Prefer": "wait=1"})
        message = (await client.get(answer.headers["location"])).json()
        assert [each["status"] for each in message["recipients"]] == ["sent", "deferred", "bounced"]
        assert message["recipients"][1]["next_attempt_at"] is not None
        assert (await client.get("/suppressions/nobody@example.org")).json()["data"][0]["reason"] == "bad_address"
        assert (await client.get("/suppressions/greylisted@example.org")).status_code == 404
        assert [received.rcpt_tos for received in sink.received] == [["405966530@qq.com"]]
    await sink.stop()


async def test_what_the_capture_relay_answers_is_shown_as_it_is(tmp_path: Path) -> None:
    """The first reply that a newcomer sees: nothing of it is taken for a secret."""
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
    (recipient,) = answer.json()["recipients"]
    assert recipient["last_reply"]["text"].startswith("captured as cap_")
