"""A relay's URL: `smtps://`, `smtp+starttls://` or, on loopback only, `smtp://`. The scheme decides TLS, never the port."""

import ipaddress
import re
import unicodedata
from collections.abc import Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from service.errors import ConfigurationError
from service.relay.presets import Preset


class Tls(StrEnum):
    """How a session is secured."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    NONE = "none"  # loopback only


_SCHEMES = {"smtps": Tls.IMPLICIT, "smtp+starttls": Tls.STARTTLS, "smtp": Tls.NONE}
_DEFAULT_PORT = {Tls.IMPLICIT: 465, Tls.STARTTLS: 587, Tls.NONE: 25}
_IMPLICIT_PORTS = {465, 994, 2465}
_STARTTLS_PORTS = {25, 587, 2525, 2587}


@dataclass(frozen=True, slots=True)
class RelayUrl:
    """The parts of a relay's URL. `options` are the keys of its query; the secret is shown nowhere."""

    tls: Tls
    host: str
    port: int
    user: str
    secret: str = field(repr=False)
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str, keys: Set[str], where: str) -> "RelayUrl":
        """Read one; the query may hold `keys`. `where` begins each ConfigurationError."""
        try:
            parts = urlsplit(text)
            _check_login(parts, where)
            port = parts.port
        except ValueError:
            host = text.rpartition("@")[2]
            if host.count("[") != host.count("]"):
                raise ConfigurationError(f"{where}: url: an IPv6 address stands in [ and ]") from None
            raise ConfigurationError(f"{where}: url: the port must be a number from 1 to 65535") from None
        if port == 0:
            raise ConfigurationError(f"{where}: url: the port must be a number from 1 to 65535")
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ConfigurationError(
                f"{where}: url: must begin with smtps://, smtp+starttls:// or smtp:// and name a host"
            )
        if parts.path not in ("", "/") or parts.fragment:
            raise ConfigurationError(f"{where}: url: has a path; a / or # in user or secret is written %2F or %23")
        tls = _SCHEMES[parts.scheme]
        options = {key: given[-1] for key, given in parse_qs(parts.query, keep_blank_values=True).items()}
        plaintext = options.pop("plaintext", "")
        if unknown := set(options) - keys:
            raise ConfigurationError(f"{where}: url: unknown option {', '.join(sorted(unknown))}")
        if tls is Tls.NONE and not (is_loopback(parts.hostname) and plaintext == "allow"):
            raise ConfigurationError(
                f"{where}: url: smtp:// sends in clear: only to loopback, and with ?plaintext=allow;"
                " use smtps:// or smtp+starttls://"
            )
        if not _names_a_host(parts.hostname):
            raise ConfigurationError(f"{where}: url: the host is neither a name nor an address")
        user, secret = _decoded(parts.username, where), _decoded(parts.password, where)
        if secret and not user:
            raise ConfigurationError(f"{where}: url: has a secret and no user")
        if any(unicodedata.category(each) in ("Cc", "Cs") for each in user + secret):
            # NUL and ^A end what is said in a login (RFC 4616 2, RFC 7628 3.1)
            raise ConfigurationError(f"{where}: url: user or secret holds a control character")
        return cls(tls, parts.hostname, port or _DEFAULT_PORT[tls], user, secret, options)

    def check_port(self, preset: Preset, where: str) -> None:
        """Refuse a scheme that the port contradicts."""
        implicit = _IMPLICIT_PORTS | set(preset.implicit)
        starttls = (_STARTTLS_PORTS | set(preset.starttls)) - set(preset.implicit)
        if self.tls is Tls.IMPLICIT and self.port in starttls:
            raise ConfigurationError(
                f"{where}: url: port {self.port} begins in clear: use smtp+starttls:// or port 465"
            )
        if self.tls is Tls.STARTTLS and self.port in implicit:
            raise ConfigurationError(f"{where}: url: port {self.port} is TLS from the start: use smtps://")


def _check_login(parts: SplitResult, where: str) -> None:
    """An @ behind the host is one behind a login that was cut short: no part of that may stand in a sentence."""
    if "@" in parts.path + parts.query + parts.fragment:
        raise ConfigurationError(f"{where}: url: a /, ? or # in user or secret is written %2F, %3F or %23")


def _names_a_host(host: str) -> bool:
    """Whether a resolver can be asked for `host`; underscores are let through, which private names have. An IPv6 address has colons,
    and stood in brackets.
    """
    try:
        host.encode("idna")  # labels that are empty or too long
    except UnicodeError:
        return False
    return ":" in host or re.fullmatch(r"[\w.-]+", host) is not None


def _decoded(text: str | None, where: str) -> str:
    """A part of the login. What is not UTF-8 would become another secret, with which a login is refused."""
    try:
        return unquote(text or "", errors="strict")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{where}: url: user or secret holds octets that are not UTF-8; a % in it is written %25"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its name or address alone; nothing is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
