"""The values in a relay's table: each parser takes what TOML or a URL gave, and refuses it with a sentence.

Every fault is a ConfigurationError that begins with `where` and names the key. Which keys there are, and what a relay is
made of, is config's.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from service.errors import ConfigurationError, PostroomError
from service.mail.address import make_mailbox, parse_domain
from service.mail.limits import FLAGS, Limits, is_extension
from service.mail.quota import Per, Quota, parse_quota
from service.relay.port import Pipelining
from service.relay.presets import Preset
from service.settings import Settings

_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TLS_VERSIONS = ("1.2", "1.3")
_MOST = 10**15  # of any number here: beyond it nothing is meant, and a float takes it as it is
_FLAGS = {**dict.fromkeys(("true", "1", "yes", "on"), True), **dict.fromkeys(("false", "0", "no", "off"), False)}


_SAID_BY = {  # what others write apart: the key here that says it
    **dict.fromkeys(("host", "port", "user", "username", "login", "secure", "tls", "ssl", "encryption"), "url"),
    **dict.fromkeys(("pass", "password", "password_file", "passwd"), "secret_file"),
}


def unknown_key(where: str, unknown: Collection[str], known: Collection[str]) -> str:
    """What is said of keys that are none: what was perhaps meant, and all there are."""
    first = min(unknown)
    # who writes the beginning of a longer name means that one: `secret` is `secret_file`
    longer = [each for each in sorted(known) if each.startswith(f"{first}_")]
    near = longer or get_close_matches(first, known, 1)
    said_by = _SAID_BY.get(first)
    if said_by in known:
        meant = f"that is said by {said_by}; "
    else:
        meant = f"did you mean {near[0]}? " if near else ""
    return f"{where}: unknown key {', '.join(sorted(unknown))}; {meant}known are {', '.join(sorted(known))}"


def tls_versions_in(options: Mapping[str, Any], preset: Preset, where: str) -> tuple[str, str]:
    """The least and the greatest version; "" is the newest."""
    least, most = str(options.get("tls_min", "1.2")), str(options.get("tls_max", preset.tls_max))
    for key, value in (("tls_min", least), ("tls_max", most or "1.3")):
        if value not in _TLS_VERSIONS:
            raise ConfigurationError(f"{where}: {key}: must be one of {', '.join(_TLS_VERSIONS)}")
    if most and most < least:
        raise ConfigurationError(f"{where}: tls_max: {most} is less than tls_min, which is {least}")
    return least, most


def as_account(value: object, where: str) -> str:
    """A name that stands for no login and no host:port; "" where none is given."""
    if value is None:
        return ""
    if isinstance(value, str) and _ACCOUNT.fullmatch(value):
        return value
    raise ConfigurationError(f"{where}: account: must be a name of 1 to 64 letters, digits, - and _")


def senders_in(options: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Addresses and domains; none where nothing is said of them."""
    given = options.get("from", [])
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ConfigurationError(f'{where}: from: must be a list, such as ["news@example.com", "example.org"]')
    return tuple(_sender(each, where) for each in given)


def _sender(text: str, where: str) -> str:
    """An address or a domain that a relay may carry; `@example.com` is a domain too."""
    try:
        return (
            make_mailbox(text, "", "from").email if "@" in text.lstrip("@") else parse_domain(text.lstrip("@"), "from")
        )
    except PostroomError as error:
        raise ConfigurationError(f"{where}: from: {text!r}: {error.errors[0].detail}") from None


def warm_in(options: Mapping[str, Any], most: int, where: str) -> int:
    """Connections that stay open; no more than there may be."""
    number = integer_in(options, "warm_connections", 0, where, least=0)
    if number > most:
        raise ConfigurationError(f"{where}: warm_connections: must not be more than max_connections, which is {most}")
    return number


def integer_in(options: Mapping[str, Any], key: str, default: int | None, where: str, least: int = 1) -> int:
    """A whole number; a URL gives it as text."""
    value = options.get(key, default)
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if number < least:
        raise ConfigurationError(f"{where}: {key}: must be a whole number from {least} up")
    if number > _MOST:
        raise ConfigurationError(f"{where}: {key}: must not be more than {_MOST}")
    return number


def limits_in(options: Mapping[str, Any], preset: Preset, where: str) -> Limits:
    """The preset's, as far as the table gives no others; `max_recipients = 0` and its like take a bound away."""
    known = preset.limits
    given: dict[str, Any] = {flag: flag_in(options, flag, True, where) for flag in FLAGS if flag in options}
    for key in ("max_bytes", "max_recipients", "max_message_recipients"):
        if key in options:
            given[key] = integer_in(options, key, None, where, least=0) or None
    if "forbidden_extensions" in options:
        given["forbidden_extensions"] = _extensions(options["forbidden_extensions"], where)
    return replace(known, **given)


def _extensions(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and is_extension(each.lower()) for each in value):
        raise ConfigurationError(f'{where}: forbidden_extensions: must be a list such as [".exe", ".js"]')
    return tuple(each.lower() for each in value)


def quotas_in(
    options: Mapping[str, Any], preset: Preset, account: str, where: str, settings: Settings
) -> tuple[Quota, ...]:
    """Of the whole account, of each recipient, of each domain, in this order."""
    zone = as_zone(options.get("timezone", preset.timezone), where)
    headroom = _share(options.get("headroom", settings.quota_headroom), where)
    quotas: list[Quota] = []
    for key, per in (("quotas", Per.RELAY), ("recipient_quotas", Per.RECIPIENT), ("domain_quotas", Per.DOMAIN)):
        texts = options.get(key, getattr(preset, key))
        if not isinstance(texts, list | tuple):
            example = texts if isinstance(texts, str) else "30/15m"
            raise ConfigurationError(f'{where}: {key}: must be a list, such as ["{example}"]')
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


def as_pipelining(value: object, where: str) -> Pipelining:
    """By its name, in any case."""
    try:
        return Pipelining[str(value).upper()]
    except KeyError:
        raise ConfigurationError(f"{where}: pipelining: must be full, envelope or off") from None


def as_zone(value: object, where: str) -> str:
    """A time zone that this machine knows; "": none."""
    try:
        if value != "":
            ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigurationError(f"{where}: timezone: {value!r} is no time zone, such as Asia/Shanghai") from None
    return str(value)


def flag_in(options: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    """True or false; a URL gives it as text."""
    flag = _FLAGS.get(str(options.get(key, default)).lower())
    if flag is None:
        raise ConfigurationError(f"{where}: {key}: must be true or false")
    return flag


def text_in(options: Mapping[str, Any], key: str, default: str, where: str) -> str:
    """A string."""
    value = options.get(key, default)
    if not isinstance(value, str):
        raise ConfigurationError(f"{where}: {key}: must be text")
    return value
