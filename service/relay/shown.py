"""A relay or a preset as TOML: every key with the value that holds, fit to be put into a relays file. No secret is shown.

What nobody publishes about a provider is marked as a guess. Reading it again gives the same relay.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from service.mail.limits import FLAGS
from service.mail.quota import Per
from service.relay.config import RelayConfig, relay_from
from service.relay.presets import Preset
from service.relay.url import Tls

_HIDDEN = ("client_secret", "refresh_token")
_GUESS_OF = {"max_bytes": "max_mib"}  # how presets.toml calls a key
_SCHEME = {Tls.IMPLICIT: "smtps", Tls.STARTTLS: "smtp+starttls", Tls.NONE: "smtp"}
_HIDDEN_USER = "USER"
_USER = {"sendgrid": "apikey"}  # what a user is called where a preset says so


def shown_relay(config: RelayConfig, table: Mapping[str, Any]) -> str:
    """A configured relay; `table` is what stands in the file, or its URL alone."""
    given = {**_options(str(table["url"])), **table}
    head = [f"# Relay {config.name}: what is configured, and what its preset adds."]
    login = [f"{key} = {toml(table[key])}" for key in ("secret_file", "token_command", "token_file") if key in table]
    if config.secret.get_secret_value() and "secret_file" not in table:
        login = ["# The secret stands in the url and is not shown: give it there, or by `secret_file`."]
    if config.hides_user:
        login = ["# The user is a secret too and is not shown: give it in the place of USER.", *login]
    return "\n".join([*head, *_about(config.preset), *_lines(config, given, login), *_tables(config.name, table), ""])


def shown_preset(preset: Preset) -> str:
    """What is known of a provider, as a relay that uses it would have it."""
    tls = Tls.IMPLICIT if preset.implicit else Tls.STARTTLS
    host = preset.hosts[0].replace("*", "REGION")
    port = (preset.implicit or preset.starttls)[0]
    user = _USER.get(preset.name, "USER%40example.com" if preset.sender_is_login else "USER")
    table: dict[str, Any] = {"preset": preset.name, "url": f"{_SCHEME[tls]}://{user}@{host}:{port}"}
    by_token = not {"PLAIN", "LOGIN", "CRAM-MD5"} & set(preset.auth)
    if by_token:
        table["token_command"] = ["/usr/local/bin/access-token"]
        login = [f"token_command = {toml(table['token_command'])}  # or token_file, or a table oauth2"]
    else:
        login = [f'secret_file = "/run/secrets/{preset.name}"  # or the secret in the url']
    # all mechanisms that it has, whichever a login would use
    config = replace(relay_from(preset.name, table, f"preset {preset.name}"), auth=preset.auth)
    head = [f"# Preset {preset.name}."]
    return "\n".join([*head, *_about(preset), *_lines(config, {}, login), ""])


def _about(preset: Preset) -> Iterator[str]:
    if not preset.name:
        yield "# No preset knows this host: the values are general ones."
        return
    yield f"# Hosts: {', '.join(preset.hosts)}"
    for key, scheme, ports in (("implicit", "smtps", preset.implicit), ("starttls", "smtp+starttls", preset.starttls)):
        if ports:
            words = [f"{port} (guess)" if _guessed(preset, key, port) else str(port) for port in ports]
            yield f"# Ports for {scheme}://: {', '.join(words)}"
    if preset.rewritten_fields:
        yield f"# It writes these header fields anew: {', '.join(preset.rewritten_fields)}"
    if preset.note:
        yield f"# {preset.note}"
    if preset.guesses:
        yield "# `guess`: no provider publishes this value; it is a cautious default."


def _guessed(preset: Preset, key: str, port: int) -> bool:
    return key in preset.guesses or f"{key} {port}" in preset.guesses


def _lines(config: RelayConfig, given: Mapping[str, Any], login: list[str]) -> Iterator[str]:
    """The table itself; a value that the relay does not give itself is marked when the preset only guesses it."""
    yield ""
    yield f"[relays.{config.name}]"
    if config.preset.name:
        yield f"preset = {toml(config.preset.name)}"
    yield f"url = {toml(_url(config))}"
    yield from login
    for key, value in _values(config):
        guess = key not in given and _GUESS_OF.get(key, key) in config.preset.guesses
        yield f"{key} = {toml(value)}{'  # guess' if guess else ''}"
    if config.ca_file:
        yield f"ca_file = {toml(config.ca_file)}"
    if "headroom" in given:
        yield f"headroom = {toml(given['headroom'])}"


def _url(config: RelayConfig) -> str:
    user = f"{_HIDDEN_USER if config.hides_user else quote(config.user, safe='')}@" if config.user else ""
    host = f"[{config.host}]" if ":" in config.host else config.host
    in_clear = "?plaintext=allow" if config.tls is Tls.NONE else ""
    return f"{_SCHEME[config.tls]}://{user}{host}:{config.port}{in_clear}"


def _values(config: RelayConfig) -> Iterator[tuple[str, Any]]:
    """Every key with the value that holds; what is not known and what is not bounded is left out."""
    if config.own_account:
        yield "account", config.own_account
    if config.senders:
        yield "from", list(config.senders)
    yield "priority", config.priority
    yield "weight", config.weight
    yield "sticky", config.sticky
    if config.auth:
        yield "auth", list(config.auth)
    yield "sender_must_equal_login", config.rule.must_equal_login
    yield "rewrite_from", config.rule.rewrite_from
    yield "dkim", config.rule.dkim
    yield "max_connections", config.max_connections
    yield "max_messages_per_connection", config.max_messages_per_connection
    for key, per in (("quotas", Per.RELAY), ("recipient_quotas", Per.RECIPIENT), ("domain_quotas", Per.DOMAIN)):
        yield key, [quota.text for quota in config.quotas if quota.per is per]
    for key in ("max_bytes", "max_recipients", "max_message_recipients"):
        if (most := getattr(config.limits, key)) is not None:
            yield key, most
    for flag in FLAGS:
        yield flag, getattr(config.limits, flag)
    yield "forbidden_extensions", list(config.limits.forbidden_extensions)
    yield "pipelining", config.pipelining.name.lower()
    yield "chunking", config.chunking
    yield "timezone", config.timezone
    yield "tls_min", config.tls_min
    if config.tls_max:
        yield "tls_max", config.tls_max
    if config.ciphers:
        yield "ciphers", config.ciphers


def _tables(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    """What stands in tables of its own: oauth2 without its secrets, and the rules as they are."""
    if (client := table.get("oauth2")) is not None:
        yield f"\n[relays.{name}.oauth2]"
        for key, value in client.items():
            yield f"# {key} is not shown" if key in _HIDDEN else f"{key} = {toml(value)}"
    for rule in table.get("rules", ()):
        yield f"\n[[relays.{name}.rules]]"
        yield from (f"{key} = {toml(value)}" for key, value in rule.items())


def _options(url: str) -> Mapping[str, Any]:
    """The keys in a URL's query, which was checked before."""
    return {key: values[-1] for key, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


def toml(value: object) -> str:
    """A value of the relays file: text, number, flag, list."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    # TOML's basic strings take JSON's escapes; DEL must be one too
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
