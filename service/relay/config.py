"""What a relay is: from a URL or from the relays file, over its provider's preset.

TLS is decided by the scheme and must agree with the port; it is never opportunistic. Every fault is a
ConfigurationError that names the relay and the key, and no secret is ever part of a sentence.
"""

import ipaddress
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import SecretStr

from service.errors import ConfigurationError, PostroomError
from service.mail.address import make_mailbox, parse_domain
from service.mail.outcome import Policy, Rule
from service.mail.quota import Per, Quota, parse_quota
from service.mail.seal import SenderRule
from service.relay.policy import parse_rules, policy_for
from service.relay.port import Pipelining
from service.relay.presets import Preset, load_presets, preset_for
from service.settings import Settings


class Tls(StrEnum):
    """How a session is secured."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    NONE = "none"  # loopback only


_SCHEMES = {"smtps": Tls.IMPLICIT, "smtp+starttls": Tls.STARTTLS, "smtp": Tls.NONE}
_DEFAULT_PORT = {Tls.IMPLICIT: 465, Tls.STARTTLS: 587, Tls.NONE: 25}
_IMPLICIT_PORTS = {465, 994, 2465}
_STARTTLS_PORTS = {25, 587, 2525, 2587}
_KEYS = {
    "preset",
    "url",
    "secret_file",
    "from",
    "priority",
    "weight",
    "max_connections",
    "max_messages_per_connection",
    "quotas",
    "recipient_quotas",
    "domain_quotas",
    "headroom",
    "rewrite_from",
    "sender_must_equal_login",
    "ca_file",
    "auth",
    "max_bytes",
    "pipelining",
    "dkim",
    "timezone",
    "rules",
}

_NOT_IN_URL = {
    "url",
    "secret_file",
    "preset",
    "from",
    "quotas",
    "recipient_quotas",
    "domain_quotas",
    "auth",
    "rules",
}


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """One relay, complete. `secret` is shown nowhere."""

    name: str
    host: str
    port: int
    tls: Tls
    user: str
    secret: SecretStr
    preset: Preset
    rule: SenderRule
    senders: tuple[str, ...] = ()  # addresses or domains it may carry; empty = what its sender rule says
    priority: int = 1
    weight: int = 1
    max_connections: int = 5
    max_messages_per_connection: int = 100
    quotas: tuple[Quota, ...] = ()  # of the whole account, of each recipient, of each recipient's domain
    max_bytes: int | None = None
    auth: tuple[str, ...] = ()
    ca_file: str | None = None
    pipelining: Pipelining = Pipelining.FULL
    timezone: str = ""  # at whose midnight its quotas begin anew
    policy: Policy = field(default_factory=lambda: policy_for(""))


def load_relays(settings: Settings, extra_url: str | None = None) -> list[RelayConfig]:
    """All configured relays, best first. Raises ConfigurationError; an empty list means that none is set."""
    if settings.relays_file is not None:
        return _from_file(settings.relays_file, settings)
    url = extra_url
    if settings.relay_url is not None:
        url = settings.relay_url.get_secret_value()
    elif settings.relay_url_file is not None:
        url = _read(settings.relay_url_file, "POSTROOM_RELAY_URL_FILE")
    return [] if url is None else [relay_from("default", {"url": url}, "POSTROOM_RELAY_URL", (), settings)]


def _from_file(file: Path, settings: Settings) -> list[RelayConfig]:
    text = _read(file, "POSTROOM_RELAYS_FILE")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"POSTROOM_RELAYS_FILE: {file}: {error}") from None
    tables, where = data.get("relays"), f"POSTROOM_RELAYS_FILE: {file}"
    if not isinstance(tables, dict) or not tables or set(data) - {"relays", "rules"}:
        raise ConfigurationError(f"{where}: must hold tables named [relays.NAME], perhaps [[rules]], and only these")
    rules = parse_rules(data.get("rules", []), where)
    return [relay_from(name, values, f"{where}: relays.{name}", rules, settings) for name, values in tables.items()]


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{what}: {file}: {error.strerror}") from None


def relay_from(
    name: str, values: Mapping[str, Any], where: str, rules: Sequence[Rule] = (), settings: Settings | None = None
) -> RelayConfig:
    """One relay from its table. `where` begins each sentence of complaint; `rules` hold for all relays of the user."""
    if not isinstance(values, Mapping) or "url" not in values:
        raise ConfigurationError(f"{where}: needs `url`")
    if unknown := set(values) - _KEYS:
        raise ConfigurationError(
            f"{where}: unknown key {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KEYS))}"
        )
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ConfigurationError(f"{where}: a relay's name is made of letters, digits, - and _")
    url = _Url.parse(str(values["url"]), where)
    preset = _preset(values, url.host, where)
    url.check_port(preset, where)
    options = {**url.options, **values}
    secret = _read(Path(values["secret_file"]), f"{where}: secret_file") if "secret_file" in values else url.secret
    must_equal = bool(options.get("sender_must_equal_login", preset.sender_is_login))
    senders = tuple(_sender(each, where) for each in options.get("from", ()))
    return RelayConfig(
        name=name,
        host=url.host,
        port=url.port,
        tls=url.tls,
        user=url.user,
        secret=SecretStr(secret),
        preset=preset,
        rule=SenderRule(
            name,
            url.user,
            must_equal,
            _flag(options.get("rewrite_from", False)),
            dkim=_flag(options.get("dkim", True)),
            rewritten_fields=preset.rewritten_fields,
        ),
        senders=senders,
        priority=_integer(options, "priority", 1, where, least=0),
        weight=_integer(options, "weight", 1, where),
        max_connections=_integer(options, "max_connections", preset.max_connections, where),
        max_messages_per_connection=_integer(
            options, "max_messages_per_connection", preset.max_messages_per_connection, where
        ),
        quotas=_quotas(options, preset, url, where, settings or Settings.model_construct()),
        max_bytes=_integer(options, "max_bytes", preset.max_bytes, where)
        if "max_bytes" in options
        else preset.max_bytes,
        auth=tuple(options.get("auth", preset.auth)),
        ca_file=options.get("ca_file"),
        pipelining=_pipelining(options.get("pipelining", "full"), where),
        timezone=_zone(options.get("timezone", preset.timezone), where),
        policy=policy_for(preset.name, (*parse_rules(values.get("rules", []), where), *rules)),
    )


def _preset(values: Mapping[str, Any], host: str, where: str) -> Preset:
    if "preset" not in values:
        return preset_for(host)
    presets = load_presets()
    if values["preset"] not in presets:
        raise ConfigurationError(f"{where}: preset: there is no {values['preset']!r}; known are {', '.join(presets)}")
    return presets[values["preset"]]


def _sender(value: object, where: str) -> str:
    text = str(value)
    try:
        return (
            make_mailbox(text, "", "from").email if "@" in text.lstrip("@") else parse_domain(text.lstrip("@"), "from")
        )
    except PostroomError as error:
        raise ConfigurationError(f"{where}: from: {text!r}: {error.errors[0].detail}") from None


def _integer(options: Mapping[str, Any], key: str, default: int | None, where: str, least: int = 1) -> int:
    value = options.get(key, default)
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise ConfigurationError(f"{where}: {key}: must be a whole number from {least} up")
    return number


def _quotas(
    options: Mapping[str, Any], preset: Preset, url: "_Url", where: str, settings: Settings
) -> tuple[Quota, ...]:
    zone = _zone(options.get("timezone", preset.timezone), where)
    headroom = _share(options.get("headroom", settings.quota_headroom), where)
    account = f"{url.user}@{url.host}" if url.user else f"{url.host}:{url.port}"
    quotas: list[Quota] = []
    for key, per in (("quotas", Per.RELAY), ("recipient_quotas", Per.RECIPIENT), ("domain_quotas", Per.DOMAIN)):
        texts = options.get(key, getattr(preset, key))
        if isinstance(texts, str):
            raise ConfigurationError(f'{where}: {key}: must be a list, such as ["{texts}"]')
        for text in texts:
            try:
                quotas.append(parse_quota(str(text), per, zone, settings.quota_guard, headroom, account))
            except ValueError as error:
                raise ConfigurationError(f"{where}: {key}: {text!r} {error}") from None
    return tuple(quotas)


def _share(value: object, where: str) -> float:
    try:
        share = float(str(value))
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ConfigurationError(f"{where}: headroom: must be a share from 0 up to less than 1, such as 0.1")
    return share


def _pipelining(value: object, where: str) -> Pipelining:
    try:
        return Pipelining[str(value).upper()]
    except KeyError:
        raise ConfigurationError(f"{where}: pipelining: must be full, envelope or off") from None


def _zone(value: object, where: str) -> str:
    try:
        if value != "":
            ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigurationError(f"{where}: timezone: {value!r} is no time zone, such as Asia/Shanghai") from None
    return str(value)


def _flag(value: object) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True)
class _Url:
    tls: Tls
    host: str
    port: int
    user: str
    secret: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str, where: str) -> "_Url":
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"{where}: url: the port must be a number") from None
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ConfigurationError(
                f"{where}: url: must begin with smtps://, smtp+starttls:// or smtp:// and name a host"
            )
        if parts.path not in ("", "/") or parts.fragment:
            raise ConfigurationError(f"{where}: url: has a path; a / or # in user or secret is written %2F or %23")
        tls = _SCHEMES[parts.scheme]
        options = {key: given[-1] for key, given in parse_qs(parts.query, keep_blank_values=True).items()}
        plaintext = options.pop("plaintext", "")
        if unknown := set(options) - (_KEYS - _NOT_IN_URL):
            raise ConfigurationError(f"{where}: url: unknown option {', '.join(sorted(unknown))}")
        if tls is Tls.NONE and not (is_loopback(parts.hostname) and plaintext == "allow"):
            raise ConfigurationError(
                f"{where}: url: smtp:// sends in clear: only to loopback, and with ?plaintext=allow;"
                " use smtps:// or smtp+starttls://"
            )
        user, secret = unquote(parts.username or ""), unquote(parts.password or "")
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


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its name or address alone; nothing is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
