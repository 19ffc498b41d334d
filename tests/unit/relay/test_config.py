"""Relays from URLs and files: TLS never guessed, every fault a sentence, no secret in any of them."""

import os
from pathlib import Path
from typing import Any

import pytest

from service.clock import SYSTEM
from service.durations import Rate
from service.errors import ConfigurationError, RelayNotFound
from service.relay import open_relays
from service.relay.config import RelayConfig, Tls, load_relays, relay_from
from service.relay.presets import load_presets, preset_for
from service.relay.shown import shown_relay
from service.settings import load


def one(url: str, **more: object):  # type: ignore[no-untyped-def]
    return relay_from("r", {"url": url, **more}, "test")


def test_the_url_of_the_article_is_all_that_is_needed() -> None:
    config = one("smtps://zouchengzhuo%40163.com:CODE@smtp.163.com")
    assert (config.host, config.port, config.tls, config.user) == (
        "smtp.163.com",
        465,
        Tls.IMPLICIT,
        "zouchengzhuo@163.com",
    )
    assert config.secret.get_secret_value() == "CODE"
    assert config.preset.name == "163"
    assert config.rule.must_equal_login
    assert (config.max_connections, config.max_messages_per_connection) == (2, 10)
    assert [quota.rate for quota in config.quotas] == [Rate(30, 900), Rate(200, 86400)]
    assert "CODE" not in repr(config)


def test_a_secret_in_a_fifo_is_refused_with_its_key_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    with pytest.raises(ConfigurationError, match=r"^test: secret_file: .*/secret: is no regular file$"):
        one("smtps://u@h.example", secret_file=str(tmp_path / "secret"))
    assert one("smtps://h.example", ca_file=str(tmp_path / "secret")).ca_mark == "", "who needs it says so"


@pytest.mark.parametrize(("given", "holds"), [("true", True), ("false", False)])
def test_a_url_says_whether_mail_must_be_from_the_login(given: str, holds: bool) -> None:
    config = one(f"smtps://me%40163.com:CODE@smtp.163.com?sender_must_equal_login={given}")
    assert config.rule.must_equal_login is holds


@pytest.mark.parametrize(
    ("host", "name"),
    [("smtp.qq.com", "qq"), ("SMTP.163.COM", "163"), ("email-smtp.eu-west-1.amazonaws.com", "ses"), ("mail.example.com", ""), ("smtp.163.com.evil.example", "")],
)  # fmt: skip
def test_the_host_name_picks_the_preset(host: str, name: str) -> None:
    assert preset_for(host).name == name


@pytest.mark.parametrize(
    ("url", "port", "tls"),
    [("smtps://h.example", 465, Tls.IMPLICIT), ("smtp+starttls://h.example", 587, Tls.STARTTLS), ("smtp+starttls://h.example:25", 25, Tls.STARTTLS),
     ("smtp://localhost:2525?plaintext=allow", 2525, Tls.NONE), ("smtps://h.example:4650", 4650, Tls.IMPLICIT)],
)  # fmt: skip
def test_scheme_and_port_agree(url: str, port: int, tls: Tls) -> None:
    config = one(url)
    assert (config.port, config.tls) == (port, tls)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("smtps://u:SECRET@h.example:587", "begins in clear"),
        ("smtp+starttls://u:SECRET@h.example:465", "TLS from the start"),
        ("smtp://u:SECRET@smtp.163.com", "sends in clear"),
        ("smtp://u:SECRET@smtp.163.com?plaintext=allow", "sends in clear"),
        ("smtp://u:SECRET@localhost", "plaintext=allow"),
        ("http://u:SECRET@h.example", "must begin with"),
        ("smtps://u:SECRET@", "must begin with"),
        ("smtps://u:SECRET@h.example/path", "path"),
        ("smtps://u:SECRET@h.example:port", "port must be a number"),
        ("smtps://u:SECRET@h.example:0", "port must be a number from 1 to 65535"),
        ("smtps://u:SECRET@[::1", "an IPv6 address stands in"),
        ("smtps://u%00:SECRET@h.example", "control character"),
        ("smtps://u:SECRET%01@h.example", "control character"),
        ("smtps://u:SECRET%FF@h.example", "UTF-8"),
        ("smtps://:SECRET@h.example", "no user"),
        ("smtps://u:SECRET@smtp..example", "the host"),
        ("smtps://u:SECRET@smtp example", "the host"),
        ("smtps://u:SECRET@smtp.example!", "the host"),
        ("smtps://u:SECRET@h.example?colour=red", "unknown option colour"),
        ("smtps://u:2024?SECRET@h.example", "is written"),
        ("smtps://u:?SECRET=x&y@h.example", "is written"),
        ("smtps://u:x?SECRET@h.example", "is written"),
        ("smtps://u:x/SECRET@h.example", "is written"),
        ("smtps://u:x#SECRET@h.example", "is written"),
        ("smtps://u:x@2024?SECRET@h.example", "is written"),
        ("smtp://localhost:1?SECRET@127.0.0.1?plaintext=allow", "is written"),
        ("smtps://u:SECRET@h.example?max_connections=0", "max_connections"),
        ("smtps://u:SECRET@h.example?ca_file=/nowhere", "ca_file"),
    ],
)
def test_a_contradiction_is_refused_with_a_sentence_and_without_the_secret(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_relays(load(relay_url=url), SYSTEM)
    assert "SECRET" not in caught.value.detail


FILE = """
[relays.netease]
preset = "163"
url = "smtps://name%40163.com@smtp.163.com"
secret_file = "{folder}/secret"
quotas = ["5/m"]
[relays.own]
url = "smtp+starttls://u:p@mail.example.com"
from = ["example.com"]
priority = 2
"""


def test_a_file_holds_several_relays(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("CODE\n")
    (tmp_path / "relays.toml").write_text(FILE.format(folder=tmp_path))
    first, second = load_relays(load(relays_file=tmp_path / "relays.toml"))
    assert (first.name, first.secret.get_secret_value()) == ("netease", "CODE")
    assert [quota.text for quota in first.quotas] == ["5/m"]
    assert (second.name, second.senders, second.priority) == ("own", ("example.com",), 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [("x", "Expected"), ("", "must hold tables"), ("[relays.a]\nurl = 'smtps://h.example'\ncolour = 1", "unknown key colour"),
     ("[relays.a]\npreset = '163'", "needs `url`"), ("[relays.a]\nurl='smtps://h.example'\npreset='nope'", "there is no 'nope'"),
     ("[relays.a]\nurl='smtps://h.example'\nquotas=['x']", "must be a rate"), ("[relays.a]\nurl='smtps://h.example'\nfrom=['a b']", "from"),
     ("[relays.a]\nurl='smtps://h.example'\nsecret_file='/nowhere'", "secret_file")],
)  # fmt: skip
def test_a_fault_in_the_file_names_relay_and_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "relays.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load_relays(load(relays_file=tmp_path / "relays.toml"))


async def test_the_sender_chooses_among_relays(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("CODE\n")
    (tmp_path / "relays.toml").write_text(FILE.format(folder=tmp_path))
    relays = open_relays(load(relays_file=tmp_path / "relays.toml"), SYSTEM)

    def names(sender: str, pinned: str | None = None) -> list[str]:
        return [relay.name for relay in relays.candidates(sender, pinned)]

    assert relays.sender_decides()
    assert names("name@163.com") == ["netease"]
    assert names("x@example.com") == ["own"], "netease would refuse this sender"
    assert names("x@example.com", "netease") == [], (
        "pinned: it is asked apart, so that it says what it must be (spool/plan)"
    )
    assert names("x@other.example") == [], "mail of a sender that none takes waits"
    assert names("x@example.com", "nope") == []
    with pytest.raises(RelayNotFound, match="did you mean own"):
        relays.get("owm")


def test_without_a_relay_only_an_api_process_starts() -> None:
    with pytest.raises(ConfigurationError, match="POSTROOM_RELAY_URL"):
        open_relays(load(), SYSTEM)
    assert open_relays(load(role="api"), SYSTEM).names() == ()


def test_every_preset_is_complete() -> None:
    for preset in load_presets().values():
        assert preset.hosts
        assert preset.implicit or preset.starttls
        assert preset.auth
        assert preset.max_connections >= 1


def test_quotas_of_recipients_and_domains_stand_beside_those_of_the_account(tmp_path: Path) -> None:
    (tmp_path / "relays.toml").write_text(
        "[relays.a]\nurl = 'smtps://me%40a.example@smtp.a.example'\ntimezone = 'Asia/Tokyo'\nheadroom = 0.25\n"
        "quotas = ['100/day', '9/m recipients']\nrecipient_quotas = ['2/h']\ndomain_quotas = ['50/m']\n"
        "[relays.b]\nurl = 'smtps://me%40a.example@smtp.a.example:994'\nquotas = []\n"
    )
    first, second = load_relays(load(relays_file=tmp_path / "relays.toml", quota_guard=3, quota_headroom=0.5))
    assert [quota.label for quota in first.quotas] == [
        "100/day",
        "9/m recipients",
        "2/h per recipient",
        "50/m per domain",
    ]
    assert {quota.headroom for quota in first.quotas} == {0.25}
    assert first.quotas[0].zone == "Asia/Tokyo"
    assert (first.quotas[0].guard, first.quotas[1].guard) == (3, 1.2)
    assert second.quotas == ()


def test_one_login_is_one_account_whatever_the_port() -> None:
    first, second, other = (
        one(url, quotas=["5/m"]).quotas[0].account
        for url in ("smtps://a%40b.example@h.example", "smtp+starttls://a%40b.example@h.example", "smtps://c@h.example")
    )
    assert first == second != other


TWO = """
[relays.first]
url = "smtps://apikey@smtp.sendgrid.net"
secret_file = "{folder}/one"
[relays.second]
url = "smtp+starttls://apikey{secret}@smtp.sendgrid.net:587"
{more}
"""


def two(folder: Path, more: str = "", secret: str = "", **settings: Any) -> list[RelayConfig]:
    """Two relays with one login."""
    (folder / "one").write_text("CANARY-1\n")
    (folder / "other").write_text("CANARY-2\n")
    (folder / "relays.toml").write_text(TWO.format(folder=folder, secret=secret, more=more.format(folder=folder)))
    return load_relays(load(relays_file=folder / "relays.toml", **settings))


@pytest.mark.parametrize(
    ("more", "secret", "key"),
    [
        ('secret_file = "{folder}/other"', "", "secret_file"),
        ("", ":CANARY-2", "url"),
        ('token_file = "{folder}/other"', "", "token_file"),
    ],
)
def test_two_secrets_of_one_account_are_refused_with_both_relays_and_the_key(
    tmp_path: Path, more: str, secret: str, key: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        two(tmp_path, more, secret)
    told = caught.value.detail
    assert f"relays.second: {key}: is not the secret that relays.first has for the same account" in told
    assert "(apikey@smtp.sendgrid.net)" in told
    assert "CANARY" not in told


def test_two_accounts_with_one_login_are_told_apart_by_a_name_of_their_own(tmp_path: Path) -> None:
    first, second = two(tmp_path, 'secret_file = "{folder}/other"\naccount = "news"\nquotas = ["5/m"]')
    assert (first.account, second.account) == ("apikey@smtp.sendgrid.net", "news")
    assert [quota.account for quota in second.quotas] == ["news"]


def test_one_secret_written_twice_is_one_and_a_process_that_lacks_one_says_nothing_of_it(tmp_path: Path) -> None:
    first, second = two(tmp_path, secret=":CANARY-1")
    assert first.secret_mark == second.secret_mark
    assert len(two(tmp_path, 'secret_file = "{folder}/missing"', role="api")) == 2


@pytest.mark.parametrize("name", ["a@b", "", "x" * 65, 7])
def test_the_name_of_an_account_can_be_no_login(name: object) -> None:
    with pytest.raises(ConfigurationError, match="account: must be a name"):
        one("smtps://a@h.example", account=name)


@pytest.mark.parametrize(
    ("values", "words"),
    [({"quotas": ["5/day"]}, "timezone"), ({"recipient_quotas": ["x"]}, "recipient_quotas: 'x' must be a rate"), ({"headroom": 1}, "headroom"),
     ({"headroom": "much"}, "headroom"), ({"quotas": "5/m"}, "must be a list"), ({"domain_quotas": ["1/h each"]}, "domain_quotas")],
)  # fmt: skip
def test_a_wrong_quota_stops_the_start_with_its_key(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        one("smtps://h.example", **values)


def test_every_quota_of_a_preset_can_be_read() -> None:
    for name, preset in load_presets().items():
        login = {"token_file": "/token"} if preset.auth == ("XOAUTH2",) else {}
        config = one("smtps://me%40a.example@h.example:4650", preset=name, **login)
        assert len(config.quotas) == len(preset.quotas) + len(preset.recipient_quotas) + len(preset.domain_quotas)
    assert load_presets()["tencentses"].recipient_quotas == ("10/h",)
    assert load_presets()["directmail"].recipient_quotas == ("50/300s",)
    assert "10000/d recipients" in load_presets()["office365"].quotas


def test_an_empty_secret_file_stops_who_sends_and_not_who_only_takes_requests(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    values = {"url": "smtps://u@h.example", "secret_file": str(tmp_path / "secret")}
    with pytest.raises(ConfigurationError, match=r"^test: secret_file: .*/secret: is empty$"):
        relay_from("r", values, "test", settings=load(role="sender"))
    assert relay_from("r", values, "test", settings=load(role="api")).secret.get_secret_value() == ""


TOKEN = "0a1b2c3d-TOKEN-4e5f"


@pytest.mark.parametrize(
    "url", [f"smtp+starttls://{TOKEN}:{TOKEN}@smtp.postmarkapp.com:587", f"smtps://{TOKEN}:{TOKEN}@h.example"]
)
def test_a_user_that_is_the_secret_is_shown_nowhere_and_names_its_account_all_the_same(url: str) -> None:
    """The account stands in the store, in answers and in metrics."""
    made, again = (relay_from("a", {"url": url, "quotas": ["5/m"]}, "test") for _ in range(2))
    assert made.user == TOKEN, "it logs in"
    assert made.account == again.account
    assert made.account != relay_from("a", {"url": url.replace("0a", "0b")}, "test").account
    shown = [made.account, made.shown_user, shown_relay(made, {"url": url}), *(each.bucket() for each in made.quotas)]
    assert not [text for text in shown if TOKEN in text]
    assert relay_from("a", {"url": url, "account": "mine"}, "test").account == "mine"


def test_the_user_of_a_provider_that_knows_tokens_only_is_hidden_before_the_secret_is_known() -> None:
    config = relay_from("a", {"url": f"smtp+starttls://{TOKEN}@smtp.postmarkapp.com:587"}, "test")
    assert TOKEN not in config.account + config.shown_user
    assert relay_from("a", {"url": f"smtps://{TOKEN}@h.example"}, "test").shown_user == TOKEN


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("from", "name@163.com", "must be a list"), ("from", 5, "must be a list"), ("from", [5], "must be a list"),
     ("rewrite_from", "ture", "true or false"), ("sender_must_equal_login", "nein", "true or false"), ("dkim", "x", "true or false"),
     ("cc", 2, "true or false"), ("sticky", "", "true or false"), ("chunking", [], "true or false"), ("ca_file", 5, "must be text"),
     ("ciphers", ["DEFAULT"], "must be text"), ("quotas", 5, "must be a list"), ("preset", ["163"], "there is no"),
     ("weight", 10**400, "must not be more"), ("warm_connections", 6, "which is 5")],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_with_its_key_and_taken_for_nothing_else(
    key: str, value: Any, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^relays\.a: {key}: .*{words}"):
        relay_from("a", {"url": "smtps://u:s@h.example", key: value}, "relays.a")


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "on"])
def test_a_url_says_true_and_false_in_the_usual_ways(text: str) -> None:
    assert relay_from("a", {"url": f"smtps://u:s@h.example?sticky={text}"}, "a").sticky
    no = {"true": "false", "True": "False", "1": "0", "yes": "no", "on": "off"}[text]
    assert not relay_from("a", {"url": f"smtps://u:s@h.example?cc={no}"}, "a").limits.cc
