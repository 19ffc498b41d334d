"""Provider presets: data in presets.toml, picked by the relay's host name."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from service.mail.limits import FLAGS, Limits

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a provider. Empty tuples and None mean that nothing is known."""

    name: str
    hosts: tuple[str, ...] = ()
    implicit: tuple[int, ...] = ()
    starttls: tuple[int, ...] = ()
    auth: tuple[str, ...] = ("PLAIN", "LOGIN", "CRAM-MD5")
    sender_is_login: bool = False
    max_connections: int = 5
    max_messages_per_connection: int = 100
    quotas: tuple[str, ...] = ()
    recipient_quotas: tuple[str, ...] = ()
    domain_quotas: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    sticky: bool = False  # one sender keeps to one of several equal relays
    rewritten_fields: tuple[str, ...] = ()  # lower-case names of header fields that the provider writes anew
    timezone: str = ""  # at whose midnight its quotas begin anew; empty: not known
    note: str = ""
    ciphers: str = ""  # as OpenSSL writes them; empty: Python's choice
    tls_max: str = ""
    user_is_secret: bool = False  # it is no name, but a token that logs in
    guesses: tuple[str, ...] = ()  # the keys of presets.toml whose values nobody publishes


GENERIC = Preset("")


@cache
def load_presets() -> Mapping[str, Preset]:
    """All presets by name."""
    data = tomllib.loads(files("service.relay").joinpath("presets.toml").read_text(encoding="utf-8"))
    return {name: _preset(name, values) for name, values in data.items()}


def _preset(name: str, values: Mapping[str, Any]) -> Preset:
    return Preset(
        name,
        tuple(values["hosts"]),
        tuple(values.get("implicit", ())),
        tuple(values.get("starttls", ())),
        tuple(values.get("auth", GENERIC.auth)),
        values.get("sender") == "login",
        values.get("max_connections", GENERIC.max_connections),
        values.get("max_messages_per_connection", GENERIC.max_messages_per_connection),
        tuple(values.get("quotas", ())),
        tuple(values.get("recipient_quotas", ())),
        tuple(values.get("domain_quotas", ())),
        _limits(values),
        values.get("sticky", False),
        tuple(values.get("rewritten_fields", ())),
        values.get("timezone", ""),
        values.get("note", ""),
        values.get("ciphers", ""),
        values.get("tls_max", ""),
        values.get("user_is_secret", False),
        tuple(values.get("guesses", ())),
    )


def _limits(values: Mapping[str, Any]) -> Limits:
    return Limits(
        values["max_mib"] * _MIB if "max_mib" in values else None,
        values.get("max_recipients"),
        values.get("max_message_recipients"),
        **{flag: values.get(flag, True) for flag in FLAGS},
        forbidden_extensions=tuple(values.get("forbidden_extensions", ())),
    )


@cache
def risky_extensions() -> frozenset[str]:
    """What any provider forbids."""
    return frozenset(each for preset in load_presets().values() for each in preset.limits.forbidden_extensions)


def preset_for(host: str) -> Preset:
    """The preset whose host pattern fits, else a generic one."""
    lowered = host.lower()
    for preset in load_presets().values():
        if any(fnmatchcase(lowered, pattern) for pattern in preset.hosts):
            return preset
    return GENERIC
