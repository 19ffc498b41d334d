"""How a login is configured: one source of secrets, mechanisms that fit it, and no secret in any sentence."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from service.errors import ConfigurationError
from service.relay.config import relay_from
from service.relay.oauth_client import Client
from service.relay.token_sources import Command, File

URL = "smtps://me%40a.example@h.example"
CLIENT = {"token_url": "https://login.example/token", "client_id": "id"}


def one(url: str = URL, **keys: Any) -> Any:
    return relay_from("r", {"url": url, **keys}, "test")


@pytest.mark.parametrize(
    ("keys", "auth"),
    [
        ({}, ("PLAIN", "LOGIN", "CRAM-MD5")),
        ({"auth": ["login"]}, ("LOGIN",)),
        ({"token_file": "/t"}, ("XOAUTH2", "OAUTHBEARER")),
        ({"token_file": "/t", "auth": ["PLAIN", "OAUTHBEARER"]}, ("OAUTHBEARER",)),
        ({"preset": "gmail"}, ("PLAIN",)),
        ({"preset": "gmail", "token_file": "/t"}, ("XOAUTH2",)),
        ({"preset": "163", "token_file": "/t"}, ("XOAUTH2", "OAUTHBEARER")),
        ({"preset": "outlook", "token_file": "/t"}, ("XOAUTH2",)),
    ],
)
def test_a_relay_with_tokens_logs_in_by_tokens_only_and_no_other_does(
    keys: dict[str, Any], auth: tuple[str, ...]
) -> None:
    assert one(**keys).auth == auth


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"auth": "PLAIN"}, "auth: must be a list"),
        ({"auth": []}, "auth: must be a list"),
        ({"auth": ["PLAIN", "NTLM"]}, "auth: unknown NTLM; known are PLAIN"),
        ({"auth": ["PLAIN"], "token_file": "/t"}, "auth: tokens need one of XOAUTH2"),
        ({"auth": ["XOAUTH2"]}, "auth: XOAUTH2 takes access tokens: give one of token_command"),
        ({"preset": "outlook"}, "auth: XOAUTH2 takes access tokens"),
        ({"token_file": "/t", "token_command": ["x"]}, "token_command and token_file exclude each other"),
        ({"token_file": "/t", "secret_file": "SECRET_FILE"}, "secret_file and token_file exclude each other"),
        ({"url": "smtps://me:HIDDEN@h.example", "token_file": "/t"}, "both a secret and a source of tokens"),
        ({"url": "smtps://h.example", "token_file": "/t"}, "url: needs the user"),
        ({"token_file": 3}, "token_file: must be text"),
        ({"token_command": "prog arg"}, "token_command: must be a list of words"),
        ({"token_command": []}, "token_command: must be a list of words"),
        ({"token_command": ["prog", 3]}, "token_command: must be a list of words"),
        ({"oauth2": "x"}, "oauth2: must be a table"),
        ({"secret": "HIDDEN"}, "unknown key secret; did you mean secret_file\\? known are "),
        ({"max_conections": 2}, "did you mean max_connections"),
        ({"password": "HIDDEN"}, "unknown key password; that is said by secret_file; known are "),
        ({"host": "smtp.qq.com"}, "unknown key host; that is said by url; known are "),
        ({"oauth2": {**CLIENT, "colour": "red"}}, "oauth2: unknown key colour"),
        ({"oauth2": {"client_id": "id"}}, "oauth2: needs `token_url`"),
        ({"oauth2": {"token_url": "https://h/t"}}, "oauth2: needs `client_id`"),
        ({"oauth2": CLIENT}, "client_credentials needs `client_secret`"),
        ({"oauth2": {**CLIENT, "grant": "refresh_token"}}, "refresh_token needs `refresh_token`"),
        ({"oauth2": {**CLIENT, "grant": "password"}}, "grant: must be one of refresh_token"),
        ({"oauth2": {**CLIENT, "refresh_token": "HIDDEN", "grant": "client_credentials"}}, "has no use for `refresh_token`"),
        ({"oauth2": {**CLIENT, "client_secret": "HIDDEN", "client_secret_file": "/f"}}, "exclude each other"),
        ({"oauth2": {**CLIENT, "client_secret": "HIDDEN", "token_url": "http://h.example/t"}}, "token_url: must be https"),
        ({"oauth2": {**CLIENT, "client_secret": "HIDDEN", "token_url": "https://u:HIDDEN@h.example/t"}}, "token_url: must name a host"),
        ({"oauth2": {**CLIENT, "client_secret": "HIDDEN", "token_url": "https://h.example:x/t"}}, "token_url: is no URL"),
        ({"oauth2": {**CLIENT, "client_secret": ["HIDDEN"]}}, "client_secret: must be text"),
        ({"tls_min": "1.1"}, "tls_min: must be one of 1.2, 1.3"),
        ({"tls_max": "1.4"}, "tls_max: must be one of 1.2, 1.3"),
        ({"tls_min": "1.3", "tls_max": "1.2"}, "tls_max: 1.2 is less than tls_min"),
    ],
)  # fmt: skip
def test_a_fault_is_a_sentence_that_names_relay_and_key(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    if "secret_file" in keys:
        (tmp_path / "secret").write_text("HIDDEN")
        keys = {**keys, "secret_file": str(tmp_path / "secret")}
    with pytest.raises(ConfigurationError, match=words) as caught:
        one(**keys)
    assert caught.value.detail.startswith("test: ")
    assert "HIDDEN" not in caught.value.detail


def test_a_source_of_tokens_may_not_stand_in_the_url() -> None:
    with pytest.raises(ConfigurationError, match="unknown option token_file"):
        one(URL + "?token_file=/t")


def test_each_source_is_read_as_it_is_written() -> None:
    assert one(token_command=["prog", "a b"]).tokens._source == Command(("prog", "a b"))
    assert one(token_file="/t").tokens._source == File(Path("/t"))
    client = one(
        oauth2={**CLIENT, "refresh_token": "HIDDEN", "client_secret_file": "/f", "scope": "mail"}
    ).tokens._source
    assert isinstance(client, Client)
    assert (client.url, client.client_id, client.scope) == ("https://login.example/token", "id", "mail")
    assert client.client_secret.file == Path("/f")
    assert client.refresh_token.secret.get_secret_value() == "HIDDEN"


def test_no_secret_is_in_what_a_relay_shows_of_itself() -> None:
    for keys in ({"oauth2": {**CLIENT, "client_secret": "HIDDEN"}}, {"oauth2": {**CLIENT, "refresh_token": "HIDDEN"}}):
        config = one(**keys)
        assert "HIDDEN" not in repr(config)
        assert "HIDDEN" not in repr(config.tokens._source)


def test_relays_with_another_source_are_others_and_those_with_the_same_are_the_same() -> None:
    assert one(token_file="/t").tokens == one(token_file="/t").tokens
    assert one(token_file="/t").tokens != one(token_file="/other").tokens
    first, second = ({**CLIENT, "client_secret": secret} for secret in "ab")
    assert one(oauth2=first).tokens == one(oauth2=dict(first)).tokens
    assert one(oauth2=first).tokens != one(oauth2=second).tokens


def test_the_presets_tls_can_be_overridden() -> None:
    known = one(preset="tencentses")
    assert (known.tls_min, known.tls_max, known.ciphers) == ("1.2", "1.2", "DEFAULT")
    other = one(preset="tencentses", tls_max="1.3", ciphers="")
    assert (other.tls_max, other.ciphers) == ("1.3", "")
    assert one(URL + "?tls_min=1.3").tls_min == "1.3"


def test_the_examples_of_the_page_can_be_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "relays.md").read_text(encoding="utf-8")
    logins = page.partition("## Logins")[2].partition("## TLS")[0]
    (example,) = re.findall(r"```toml\n(.*?)```", logins, re.S)
    tables = tomllib.loads(example)["relays"]
    sources = {name: type(relay_from(name, table, "docs").tokens._source) for name, table in tables.items()}  # type: ignore[union-attr]
    assert sources == {"workspace": Client, "microsoft": Client, "other": Command}
