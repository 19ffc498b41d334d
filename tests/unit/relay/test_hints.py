"""What a person can do about a relay: each trouble has its own words, in English and Chinese, and the relay's come first."""

import re
from typing import Any

import pytest

from service.mail.outcome import Failure, Phase
from service.mail.reply import make_reply
from service.relay.config import RelayConfig, relay_from
from service.relay.failure import Cause, SessionFailure
from service.relay.hints import hint_for

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def relay(url: str = "smtps://me%40163.com:x@smtp.163.com", **keys: Any) -> RelayConfig:
    return relay_from("r", {"url": url, **keys}, "test")


def said(code: int, text: str, phase: Phase = Phase.AUTH, mechanism: str = "PLAIN") -> SessionFailure:
    return SessionFailure(phase, reply=make_reply(code, [text]), mechanism=mechanism)


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (535, "Error: authentication failed", "授权码"),
        (535, "Login Fail. Please enter your authorization code to login.", "authorization code"),
        (535, "Login fail. Account is abnormal, service is not open, password is incorrect, login frequency limited, or system is busy.", "QQ does not say which"),
        (550, "User has no permission", "SMTP service is switched off"),
        (534, "5.7.9 Application-specific password required. For more information, go to", "app password"),
        (535, "5.7.8 Username and Password not accepted.", "authorization code"),
        (535, "5.7.139 Authentication unsuccessful, basic authentication is disabled.", "OAuth2 only"),
        (550, "5.7.30 Basic authentication is not supported for Client Submission.", "OAuth2 only"),
        (535, "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", "SMTP AUTH is switched off"),
        (535, "5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully.", "SMTP AUTH is switched off"),
        (454, "4.7.0 Too many login attempts, please try again later.", "Too many logins"),
        (535, "too much fail authentication", "Too many logins"),
        (454, "Temporary authentication failure", "try again later"),
        (421, "4.3.2 busy", "try again later"),
    ],
)  # fmt: skip
def test_the_words_of_a_refused_login_decide(code: int, text: str, words: str) -> None:
    hint = hint_for(said(code, text), relay())
    assert words in hint
    assert CHINESE.search(hint)


def test_a_refused_token_is_not_called_a_wrong_password() -> None:
    config = relay("smtp+starttls://me%40a.example@smtp.office365.com", token_file="/t")
    hint = hint_for(said(535, "5.7.3 Authentication unsuccessful", mechanism="XOAUTH2"), config)
    assert "access token was refused: it has expired" in hint
    assert "授权码" not in hint


def test_the_note_of_the_provider_stands_at_the_end_of_what_is_about_its_login() -> None:
    assert hint_for(said(535, "no"), relay()).endswith(relay().preset.note)
    assert hint_for(said(535, "no"), relay("smtps://u:p@h.example")).endswith("开启 SMTP 服务。")


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (553, "Mail from must equal authorized user", "login's own address"),
        (501, "mail from address must be same as authorization user", "login's own address"),
        (550, "5.7.60 SMTP; Client does not have permissions to send as this sender", "login's own address"),
        (554, "Message rejected: Email address is not verified.", "not verified this sender"),
        (550, "User suspended", "may not send"),
        (550, "something else", "does not take mail from this sender"),
    ],
)
def test_a_refused_sender_is_told_from_a_refused_login(code: int, text: str, words: str) -> None:
    assert words in hint_for(said(code, text, Phase.MAIL), relay())


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("url", ["smtps://u:p@h.example", "smtp+starttls://u:p@h.example"])
def test_every_cause_has_words_in_both_languages(cause: Cause, url: str) -> None:
    hint = hint_for(SessionFailure(Phase.TLS, failure=Failure.TIMEOUT, cause=cause), relay(url))
    assert re.search(r"[a-z]{3}", hint)
    assert CHINESE.search(hint)


def test_no_two_causes_have_the_same_words() -> None:
    config = relay("smtp+starttls://u:p@h.example")
    hints = [hint_for(SessionFailure(Phase.TLS, failure=Failure.TLS, cause=cause), config) for cause in Cause]
    assert len(set(hints)) == len(hints)


@pytest.mark.parametrize("failure", [Failure.DNS, Failure.REFUSED, Failure.TIMEOUT, Failure.LOST, Failure.PROTOCOL])
def test_a_failure_without_a_cause_has_words(failure: Failure) -> None:
    assert CHINESE.search(hint_for(SessionFailure(Phase.CONNECT, failure=failure), relay()))


@pytest.mark.parametrize(
    ("url", "failure", "blocked"),
    [
        ("smtp+starttls://u:p@h.example:25", Failure.TIMEOUT, True),
        ("smtp+starttls://u:p@h.example:25", Failure.REFUSED, True),
        ("smtp+starttls://u:p@h.example:25", Failure.DNS, False),
        ("smtps://u:p@h.example:465", Failure.TIMEOUT, False),
    ],
)
def test_port_25_is_named_only_where_it_is_used(url: str, failure: Failure, blocked: bool) -> None:
    hint = hint_for(SessionFailure(Phase.CONNECT, failure=failure), relay(url))
    assert ("25 端口" in hint) is blocked


def test_a_starttls_that_was_refused_and_a_greeting_that_was_a_refusal_are_told_apart() -> None:
    refused = SessionFailure(Phase.TLS, reply=make_reply(454, ["no"]), cause=Cause.STARTTLS_REFUSED)
    assert "refuses it" in hint_for(refused, relay())
    greeting = SessionFailure(Phase.GREETING, reply=make_reply(554, ["no"]))
    assert "serves nobody" in hint_for(greeting, relay())
