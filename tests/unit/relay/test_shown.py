"""A relay or preset as TOML: read again it is the same relay, no secret is in it, and guesses are marked."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from service.relay.config import RelayConfig, relay_from
from service.relay.presets import load_presets
from service.relay.shown import shown_preset, shown_relay, toml

# what is made anew for each relay, and what shows no value of its own
APART = {"policy", "secret", "tokens"}


def values(config: RelayConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__slots__ if name not in APART}


def read_again(text: str, tmp_path: Path) -> RelayConfig:
    (tmp_path / "secret").write_text("CODE")
    ((name, table),) = tomllib.loads(text)["relays"].items()
    if "secret_file" in table:
        table["secret_file"] = str(tmp_path / "secret")
    return relay_from(name, table, "again")


@pytest.mark.parametrize("name", load_presets())
def test_a_preset_can_be_put_into_a_relays_file_and_changes_nothing(name: str, tmp_path: Path) -> None:
    text = shown_preset(load_presets()[name])
    config = read_again(text, tmp_path)
    table = tomllib.loads(text)["relays"][name]
    plain = {"preset": name, "url": table["url"]} | {key: table[key] for key in ("token_command",) if key in table}
    assert values(config) == values(relay_from(name, plain, "plain"))
    assert table["auth"] == list(load_presets()[name].auth)


@pytest.mark.parametrize("name", load_presets())
def test_every_guess_of_a_preset_is_marked_and_nothing_else_is(name: str) -> None:
    preset = load_presets()[name]
    lines = shown_preset(preset).splitlines()
    marked = {line.partition(" =")[0] for line in lines if line.endswith("# guess")}
    keys = {"max_bytes" if guess == "max_mib" else guess for guess in preset.guesses}
    ports = {guess for guess in keys if guess.split()[0] in ("implicit", "starttls")}
    assert marked == keys - ports
    assert sum(line.count("(guess)") for line in lines) == sum(
        1 if " " in guess else len(getattr(preset, guess)) for guess in ports
    )


def test_guesses_name_keys_that_the_preset_has() -> None:
    import service.relay

    data = tomllib.loads((Path(service.relay.__file__).parent / "presets.toml").read_text())
    for name, preset in data.items():
        for guess in preset.get("guesses", ()):
            key, _, port = guess.partition(" ")
            assert key in preset, (name, guess)
            assert not port or int(port) in preset[key], (name, guess)


@pytest.mark.parametrize(
    "table",
    [
        {"url": "smtps://me%40a.example:HIDDEN@h.example:4650"},
        {"url": "smtp://me:HIDDEN@[::1]:2525?plaintext=allow&max_connections=7&sticky=yes&headroom=0.5"},
        {"url": "smtp://127.0.0.1:2525?plaintext=allow"},
        {"url": "smtps://me%40163.com:HIDDEN@smtp.163.com", "quotas": ["5/m"], "from": ["me@163.com", "a.example"], "priority": 3, "weight": 2},
        {"url": "smtps://u:HIDDEN@h.example", "account": "news", "recipient_quotas": ["1/h"], "domain_quotas": ["2/h"], "max_bytes": 1000, "cc": False,
         "forbidden_extensions": [".exe"], "pipelining": "off", "chunking": False, "dkim": False, "timezone": "Asia/Shanghai"},
        {"url": "smtps://u:HIDDEN@h.example", "tls_min": "1.3", "ciphers": "DEFAULT", "ca_file": 'a "quoted" \\ path', "rewrite_from": True,
         "sender_must_equal_login": True, "auth": ["LOGIN"]},
        {"url": "smtps://u@smtp.gmail.com", "token_command": ["/bin/token", 'an "argument"']},
        {"url": "smtps://u:HIDDEN@h.example", "rules": [{"name": "busy", "codes": ["451"], "text": r"back at \d\d", "scope": "relay", "action": "RATE", "pause": ["10m"]}]},
    ],
)  # fmt: skip
def test_a_relay_that_is_shown_can_be_read_again_and_is_the_same(table: dict[str, Any], tmp_path: Path) -> None:
    config = relay_from("own", table, "test")
    text = shown_relay(config, table)
    assert "HIDDEN" not in text
    again = read_again(text, tmp_path)
    assert values(again) == values(config)
    assert again.tokens == config.tokens
    assert [rule.name for rule in again.policy.rules] == [rule.name for rule in config.policy.rules]


def test_the_secrets_of_an_oauth2_client_are_named_and_not_shown() -> None:
    client = {
        "token_url": "https://h.example/t",
        "client_id": "id",
        "client_secret": "HIDDEN",
        "refresh_token_file": "/r",
    }
    table = {"url": "smtps://u@h.example", "oauth2": client | {"grant": "refresh_token"}}
    text = shown_relay(relay_from("own", table, "test"), table)
    assert "HIDDEN" not in text
    assert "# client_secret is not shown" in text
    assert tomllib.loads(text)["relays"]["own"]["oauth2"]["refresh_token_file"] == "/r"


def test_a_value_of_ones_own_is_no_guess() -> None:
    table = {"url": "smtps://me%40163.com:x@smtp.163.com", "max_connections": 2}
    lines = shown_relay(relay_from("own", table, "test"), table).splitlines()
    assert "max_connections = 2" in lines
    assert "max_messages_per_connection = 10  # guess" in lines


@pytest.mark.parametrize(
    "value", ["", 'a"b\\c', "line\nline\ttab", "授权码", "\x7f\x00", True, False, 3, 0.1, ["a", "b"], []]
)
def test_values_are_written_as_toml_reads_them(value: Any) -> None:
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value
