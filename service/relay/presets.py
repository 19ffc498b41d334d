"""Provider presets: data in presets.toml, picked by the relay's host name."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

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
    max_bytes: int | None = None
    rewritten_fields: tuple[str, ...] = ()  # lower-case names of header fields that the provider writes anew
    timezone: str = ""  # at whose midnight its quotas begin anew; empty: not known
    note: str = ""


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
        values["max_mib"] * _MIB if "max_mib" in values else None,
        tuple(values.get("rewritten_fields", ())),
        values.get("timezone", ""),
        values.get("note", ""),
    )


def preset_for(host: str) -> Preset:
    """The preset whose host pattern fits, else a generic one."""
    lowered = host.lower()
    for preset in load_presets().values():
        if any(fnmatchcase(lowered, pattern) for pattern in preset.hosts):
            return preset
    return GENERIC
