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

from pydantic import SecretStr

from service.clock import SYSTEM
from service.errors import ConfigurationError
from service.mail.limits import FLAGS, Limits
from service.mail.outcome import Policy, Rule
from service.mail.quota import Quota
from service.mail.seal import SenderRule
from service.redaction import REDACTED
from service.relay.credentials import mechanisms, token_files, token_mark, token_source
from service.relay.files import MOST_OF_A_SECRET, read_regular
from service.relay.oauth import TokenLimits, Tokens
from service.relay.policy import parse_rules, policy_for
from service.relay.port import Pipelining
from service.relay.presets import Preset, load_presets, preset_for
from service.relay.table_values import (
    as_account,
    as_pipelining,
    as_zone,
    flag_in,
    integer_in,
    limits_in,
    quotas_in,
    senders_in,
    text_in,
    tls_versions_in,
    unknown_key,
    warm_in,
)
from service.relay.url import RelayUrl, Tls
from service.settings import Settings

_KEYS = {
    "preset",
    "url",
    "secret_file",
    "account",
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
    "account",
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


_SECRETS = ("secret_file", "token_command", "token_file", "oauth2")
"""Where a secret comes from that is not in the URL."""


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
    own_account: str = ""  # a name that tells it from another account with the same login
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
    token_mark: str = field(default="", repr=False)  # of where its tokens come from, not of what its files hold
    tokens_written_at: int = field(default=0, compare=False)  # ms; the newest of those files, 0: there is none
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
        """Whose quotas and troubles these are: as named, else `user@host`, or `host:port` without a login. Relays may
        share one.
        """
        user = _name_for(self.user) if self.hides_user else self.user
        return self.own_account or account_of(user, self.host, self.port)

    @property
    def hides_user(self) -> bool:
        """Whether the user is shown nowhere: it is the secret, or says as much as one."""
        return self.preset.user_is_secret or (bool(self.user) and self.user == self.secret.get_secret_value())

    @property
    def shown_user(self) -> str:
        """The user for people."""
        return REDACTED if self.hides_user and self.user else self.user

    @property
    def secret_mark(self) -> str:
        """32 bits of a hash: enough to see that the secret is another one, too few to tell which."""
        text = f"{self.account}\0{self.secret.get_secret_value()}{self.token_mark}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def account_of(user: str, host: str, port: int) -> str:
    """How an account is known to the store."""
    return f"{user}@{host}" if user else f"{host}:{port}"


def _name_for(user: str) -> str:
    """Of an account whose user must not be told: always the same, and nothing can be made of it."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:12] if user else ""


def load_relays(settings: Settings, extra_url: str | None = None) -> list[RelayConfig]:
    """All configured relays. Raises ConfigurationError; an empty list means that none is set."""
    tables, rules = relay_tables(settings, extra_url)
    relays = [relay_from(name, values, where, rules, settings) for name, (where, values) in tables.items()]
    _check_secrets(relays, tables)
    return relays


def _check_secrets(relays: Sequence[RelayConfig], tables: Mapping[str, tuple[str, Any]]) -> None:
    """Of one account only one secret is proven or refused at a time: with two each would undo what is known of the other.

    A process of role `api` may lack secrets; those that it lacks say nothing. Raises ConfigurationError.
    """
    first: dict[str, RelayConfig] = {}
    for relay in relays:
        if relay.tokens is None and not relay.secret.get_secret_value():
            continue
        other = first.setdefault(relay.account, relay)
        if other.secret_mark != relay.secret_mark:
            where, values = tables[relay.name]
            key = next((each for each in _SECRETS if each in values), "url")
            raise ConfigurationError(
                f"{where}: {key}: is not the secret that relays.{other.name} has for the same account ({relay.account}):"
                " give both the same, or, if these are two accounts, name one of them with `account`"
            )


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


def _read_secret(file: Path, what: str) -> str:
    try:
        return read_regular(file, MOST_OF_A_SECRET).decode().strip()
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
        raise ConfigurationError(unknown_key(where, unknown, _KEYS))
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ConfigurationError(f"{where}: a relay's name is made of letters, digits, - and _")
    url = RelayUrl.parse(str(values["url"]), _KEYS - _NOT_IN_URL, where)
    preset = _preset(values, url.host, where)
    url.check_port(preset, where)
    options = {**url.options, **values}
    known = settings or Settings.model_construct()
    secret = _secret(values, url, where, settings)
    tokens = _tokens(values, secret, url, where, known)
    tls_min, tls_max = tls_versions_in(options, preset, where)
    account = as_account(values.get("account"), where)
    must_equal = flag_in(options, "sender_must_equal_login", preset.sender_is_login, where)
    most_connections = integer_in(options, "max_connections", preset.max_connections, where)
    ca_file = text_in(options, "ca_file", "", where) or None
    made = RelayConfig(
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
            flag_in(options, "rewrite_from", False, where),
            dkim=flag_in(options, "dkim", True, where),
            rewritten_fields=preset.rewritten_fields,
        ),
        own_account=account,
        senders=senders_in(options, where),
        priority=integer_in(options, "priority", 1, where, least=0),
        weight=integer_in(options, "weight", 1, where),
        max_connections=most_connections,
        max_messages_per_connection=integer_in(
            options, "max_messages_per_connection", preset.max_messages_per_connection, where
        ),
        limits=limits_in(options, preset, where),
        warm_connections=warm_in(options, most_connections, where),
        sticky=flag_in(options, "sticky", preset.sticky, where),
        auth=mechanisms(options.get("auth"), preset, bool(url.user), tokens is not None, where),
        ca_file=ca_file,
        ca_mark=_mark(ca_file),
        token_mark=token_mark(values),
        tokens_written_at=max(map(_written_at, token_files(values)), default=0),
        pipelining=as_pipelining(options.get("pipelining", "full"), where),
        chunking=flag_in(options, "chunking", True, where),
        tls_min=tls_min,
        tls_max=tls_max,
        ciphers=text_in(options, "ciphers", preset.ciphers, where),
        tokens=tokens,
        timezone=as_zone(options.get("timezone", preset.timezone), where),
        policy=policy_for(preset.name, (*parse_rules(values.get("rules", []), where), *rules)),
    )
    return replace(made, quotas=quotas_in(options, preset, made.account, where, known))


def _secret(values: Mapping[str, Any], url: RelayUrl, where: str, settings: Settings | None) -> str:
    """The secret. A process of role `api` sends nothing, so it may be without the file."""
    if "secret_file" not in values:
        return url.secret
    file = Path(str(values["secret_file"]))
    if settings is not None and settings.role == "api" and not file.exists():
        return ""
    secret = _read_secret(file, f"{where}: secret_file")
    if not secret and url.user and (settings is None or settings.role != "api"):
        raise ConfigurationError(f"{where}: secret_file: {file}: is empty")
    return secret


def _tokens(values: Mapping[str, Any], secret: str, url: RelayUrl, where: str, settings: Settings) -> Tokens | None:
    source = token_source(values, where)
    if source is None:
        return None
    if secret:
        raise ConfigurationError(f"{where}: has both a secret and a source of tokens: give one of them")
    if not url.user:
        raise ConfigurationError(f"{where}: url: needs the user that the tokens are for")
    limits = TokenLimits(settings.token_timeout, settings.token_margin, settings.token_lifetime)
    return Tokens(source, limits, SYSTEM.monotonic)


def _preset(values: Mapping[str, Any], host: str, where: str) -> Preset:
    if "preset" not in values:
        return preset_for(host)
    presets = load_presets()
    if not isinstance(values["preset"], str) or values["preset"] not in presets:
        raise ConfigurationError(f"{where}: preset: there is no {values['preset']!r}; known are {', '.join(presets)}")
    return presets[values["preset"]]


def _mark(file: str | None) -> str:
    """A hash of its content. A file that can't be read has none: whoever needs it says so."""
    try:
        return hashlib.sha256(read_regular(Path(file))).hexdigest() if file else ""
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return ""


def _written_at(file: Path) -> int:
    """When it was written or put in its place (ms); 0 when that can't be told."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return 0
    return max(found.st_mtime_ns, found.st_ctime_ns) // 1_000_000
