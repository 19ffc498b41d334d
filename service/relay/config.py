"""What a relay is: from a URL or from the relays file, over its provider's preset.

TLS is decided by the scheme and must agree with the port; it is never opportunistic. Every fault is a
ConfigurationError that names the relay and the key, and no secret is ever part of a sentence.
"""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import SecretStr

from service.clock import SYSTEM
from service.errors import ConfigurationError, PostroomError
from service.mail.address import make_mailbox, parse_domain
from service.mail.limits import FLAGS, Limits, is_extension
from service.mail.outcome import Policy, Rule
from service.mail.quota import Per, Quota, parse_quota
from service.mail.seal import SenderRule
from service.relay.credentials import mechanisms, token_source
from service.relay.oauth import TokenLimits, Tokens
from service.relay.policy import parse_rules, policy_for
from service.relay.port import Pipelining
from service.relay.presets import Preset, load_presets, preset_for
from service.relay.url import RelayUrl, Tls
from service.settings import Settings

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
    "max_recipients",
    "max_message_recipients",
    *FLAGS,
    "forbidden_extensions",
    "sticky",
    "warm_connections",
    "pipelining",
    "chunking",
    "dkim",
    "timezone",
    "rules",
    "tls_min",
    "tls_max",
    "ciphers",
    "token_command",
    "token_file",
    "oauth2",
}

_NOT_IN_URL = {
    "forbidden_extensions",
    "url",
    "secret_file",
    "preset",
    "from",
    "quotas",
    "recipient_quotas",
    "domain_quotas",
    "auth",
    "rules",
    "token_command",
    "token_file",
    "oauth2",
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
    limits: Limits = field(default_factory=Limits)
    warm_connections: int = 0  # open and logged in though there is no mail for them
    sticky: bool = False  # one sender keeps to one of several equal relays
    auth: tuple[str, ...] = ()
    ca_file: str | None = None
    ca_mark: str = ""  # hash of what stands in ca_file: with another, it is another relay
    token_mark: str = field(default="", repr=False)  # of what its tokens are made of, files included
    pipelining: Pipelining = Pipelining.FULL
    chunking: bool = True
    tls_min: str = "1.2"
    tls_max: str = ""  # empty: the newest
    ciphers: str = ""  # as OpenSSL writes them; empty: Python's choice
    tokens: Tokens | None = field(default=None, repr=False)  # it logs in by these instead of `secret`
    timezone: str = ""  # at whose midnight its quotas begin anew
    policy: Policy = field(default_factory=lambda: policy_for(""))

    @property
    def max_bytes(self) -> int | None:
        """Octets of a message; None: not known."""
        return self.limits.max_bytes

    @property
    def account(self) -> str:
        """Whose quotas and troubles these are: `user@host`, or `host:port` without a login. Relays may share one."""
        return account_of(self.user, self.host, self.port)

    @property
    def secret_mark(self) -> str:
        """32 bits of a hash: enough to see that the secret is another one, too few to tell which."""
        text = f"{self.account}\0{self.secret.get_secret_value()}{self.token_mark}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def account_of(user: str, host: str, port: int) -> str:
    """How an account is known to the store."""
    return f"{user}@{host}" if user else f"{host}:{port}"


def load_relays(settings: Settings, extra_url: str | None = None) -> list[RelayConfig]:
    """All configured relays. Raises ConfigurationError; an empty list means that none is set."""
    tables, rules = relay_tables(settings, extra_url)
    return [relay_from(name, values, where, rules, settings) for name, (where, values) in tables.items()]


def relay_tables(
    settings: Settings, extra_url: str | None = None
) -> tuple[dict[str, tuple[str, Any]], tuple[Rule, ...]]:
    """Each relay as it is written: where that is, and its table; and the rules for all. Raises ConfigurationError."""
    if settings.relays_file is not None:
        return _from_file(settings.relays_file)
    url = extra_url
    if settings.relay_url is not None:
        url = settings.relay_url.get_secret_value()
    elif settings.relay_url_file is not None:
        url = _read(settings.relay_url_file, "POSTROOM_RELAY_URL_FILE")
    return ({} if url is None else {"default": ("POSTROOM_RELAY_URL", {"url": url})}), ()


def _from_file(file: Path) -> tuple[dict[str, tuple[str, Any]], tuple[Rule, ...]]:
    text = _read(file, "POSTROOM_RELAYS_FILE")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"POSTROOM_RELAYS_FILE: {file}: {error}") from None
    tables, where = data.get("relays"), f"POSTROOM_RELAYS_FILE: {file}"
    if not isinstance(tables, dict) or not tables or set(data) - {"relays", "rules"}:
        raise ConfigurationError(f"{where}: must hold tables named [relays.NAME], perhaps [[rules]], and only these")
    found = {name: (f"{where}: relays.{name}", values) for name, values in tables.items()}
    return found, tuple(parse_rules(data.get("rules", []), where))


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{what}: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{what}: {file}: is no text in UTF-8") from None


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
    url = RelayUrl.parse(str(values["url"]), _KEYS - _NOT_IN_URL, where)
    preset = _preset(values, url.host, where)
    url.check_port(preset, where)
    options = {**url.options, **values}
    secret = _secret(values, url, where, settings)
    tokens = _tokens(name, values, secret, url, where, settings or Settings.model_construct())
    tls_min, tls_max = _tls_versions(options, preset, where)
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
        limits=_limits(options, preset, where),
        warm_connections=_warm(options, where),
        sticky=_flag(options.get("sticky", preset.sticky)),
        auth=mechanisms(options.get("auth"), preset, bool(url.user), tokens is not None, where),
        ca_file=options.get("ca_file"),
        ca_mark=_mark(options.get("ca_file")),
        token_mark=_token_mark(values),
        pipelining=_pipelining(options.get("pipelining", "full"), where),
        chunking=_flag(options.get("chunking", True)),
        tls_min=tls_min,
        tls_max=tls_max,
        ciphers=str(options.get("ciphers", preset.ciphers)),
        tokens=tokens,
        timezone=_zone(options.get("timezone", preset.timezone), where),
        policy=policy_for(preset.name, (*parse_rules(values.get("rules", []), where), *rules)),
    )


def _secret(values: Mapping[str, Any], url: RelayUrl, where: str, settings: Settings | None) -> str:
    """The secret. A process of role `api` sends nothing, so it may be without the file."""
    if "secret_file" not in values:
        return url.secret
    file = Path(str(values["secret_file"]))
    if settings is not None and settings.role == "api" and not file.exists():
        return ""
    return _read(file, f"{where}: secret_file")


def _tokens(
    name: str, values: Mapping[str, Any], secret: str, url: RelayUrl, where: str, settings: Settings
) -> Tokens | None:
    source = token_source(values, where)
    if source is None:
        return None
    if secret:
        raise ConfigurationError(f"{where}: has both a secret and a source of tokens: give one of them")
    if not url.user:
        raise ConfigurationError(f"{where}: url: needs the user that the tokens are for")
    limits = TokenLimits(settings.token_timeout, settings.token_margin, settings.token_lifetime)
    return Tokens(source, limits, SYSTEM.monotonic)


_TLS_VERSIONS = ("1.2", "1.3")


def _tls_versions(options: Mapping[str, Any], preset: Preset, where: str) -> tuple[str, str]:
    least, most = str(options.get("tls_min", "1.2")), str(options.get("tls_max", preset.tls_max))
    for key, value in (("tls_min", least), ("tls_max", most or "1.3")):
        if value not in _TLS_VERSIONS:
            raise ConfigurationError(f"{where}: {key}: must be one of {', '.join(_TLS_VERSIONS)}")
    if most and most < least:
        raise ConfigurationError(f"{where}: tls_max: {most} is less than tls_min, which is {least}")
    return least, most


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


def _warm(options: Mapping[str, Any], where: str) -> int:
    number = _integer(options, "warm_connections", 0, where, least=0)
    if number > _integer(options, "max_connections", number, where, least=0):
        raise ConfigurationError(f"{where}: warm_connections: must not be more than max_connections")
    return number


def _integer(options: Mapping[str, Any], key: str, default: int | None, where: str, least: int = 1) -> int:
    value = options.get(key, default)
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise ConfigurationError(f"{where}: {key}: must be a whole number from {least} up")
    return number


def _limits(options: Mapping[str, Any], preset: Preset, where: str) -> Limits:
    """The preset's, as far as the table gives no others; `max_recipients = 0` and its like take a bound away."""
    known = preset.limits
    given: dict[str, Any] = {flag: _flag(options[flag]) for flag in FLAGS if flag in options}
    for key in ("max_bytes", "max_recipients", "max_message_recipients"):
        if key in options:
            given[key] = _integer(options, key, None, where, least=0) or None
    if "forbidden_extensions" in options:
        given["forbidden_extensions"] = _extensions(options["forbidden_extensions"], where)
    return replace(known, **given)


def _extensions(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and is_extension(each.lower()) for each in value):
        raise ConfigurationError(f'{where}: forbidden_extensions: must be a list such as [".exe", ".js"]')
    return tuple(each.lower() for each in value)


def _mark(file: object) -> str:
    """A hash of its content. A file that can't be read has none: whoever needs it says so."""
    try:
        return hashlib.sha256(Path(str(file)).read_bytes()).hexdigest() if file else ""
    except OSError:
        return ""


def _token_mark(values: Mapping[str, Any]) -> str:
    """A hash of all that a source of tokens is given; empty where there is none."""
    oauth2 = values.get("oauth2")
    given = {f"oauth2.{key}": value for key, value in oauth2.items()} if isinstance(oauth2, Mapping) else {}
    given |= {key: values[key] for key in ("token_command", "token_file") if key in values}
    if not given:
        return ""
    parts = [f"{key}={_mark(value) if key.endswith('_file') else value}" for key, value in sorted(given.items())]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _quotas(
    options: Mapping[str, Any], preset: Preset, url: RelayUrl, where: str, settings: Settings
) -> tuple[Quota, ...]:
    zone = _zone(options.get("timezone", preset.timezone), where)
    headroom = _share(options.get("headroom", settings.quota_headroom), where)
    account = account_of(url.user, url.host, url.port)
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
