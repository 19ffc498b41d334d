"""How a relay's login is configured: which mechanisms, and where access tokens come from.

Another source of tokens is another secret; another content of a file that it names is not, since programs renew such
files by the hour. Every fault is a ConfigurationError that names the relay and the key; no secret is part of a sentence.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from service.errors import ConfigurationError
from service.relay.logins import BY_SECRET, BY_TOKEN, MECHANISMS
from service.relay.oauth import Source
from service.relay.oauth_client import Client, Given
from service.relay.presets import Preset
from service.relay.table_values import unknown_key
from service.relay.token_sources import Command, File
from service.relay.url import is_loopback

_SOURCES = ("token_command", "token_file", "oauth2")
_OAUTH2 = {
    "token_url",
    "client_id",
    "client_secret",
    "client_secret_file",
    "refresh_token",
    "refresh_token_file",
    "scope",
    "grant",
}
_GRANTS = ("refresh_token", "client_credentials")


def mechanisms(given: object, preset: Preset, user: bool, by_token: bool, where: str) -> tuple[str, ...]:
    """The mechanisms that may be used, in order. A relay with tokens uses those of tokens only, and no other relay does."""
    if given is not None and not (isinstance(given, list | tuple) and given):
        raise ConfigurationError(f'{where}: auth: must be a list of mechanisms, such as ["PLAIN", "LOGIN"]')
    names = preset.auth if given is None else tuple(str(each).upper() for each in given)
    if unknown := [name for name in names if name not in MECHANISMS]:
        raise ConfigurationError(f"{where}: auth: unknown {', '.join(unknown)}; known are {', '.join(MECHANISMS)}")
    usable = tuple(name for name in names if name in (BY_TOKEN if by_token else BY_SECRET))
    if usable or not user:
        return usable
    if by_token and given is None:
        return tuple(BY_TOKEN)
    if by_token:
        raise ConfigurationError(f"{where}: auth: tokens need one of {', '.join(BY_TOKEN)}")
    raise ConfigurationError(
        f"{where}: auth: {', '.join(names)} takes access tokens: give one of {', '.join(_SOURCES)}, or another `auth`"
    )


def token_source(values: Mapping[str, Any], where: str) -> Source | None:
    """Where the relay's tokens come from; None when it logs in by a secret."""
    given = [key for key in _SOURCES if key in values]
    if not given:
        return None
    if len(given) > 1 or "secret_file" in values:
        others = ["secret_file"] if "secret_file" in values else []
        raise ConfigurationError(f"{where}: {' and '.join(others + given)} exclude each other")
    value = values[given[0]]
    if given[0] == "oauth2":
        return _client(value, f"{where}: oauth2")
    if given[0] == "token_file":
        return File(Path(_text(value, f"{where}: token_file")))
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise ConfigurationError(f'{where}: token_command: must be a list of words, such as ["/bin/token", "name"]')
    return Command(tuple(value))


def token_mark(values: Mapping[str, Any]) -> str:
    """A hash of the source as it is written: commands, paths, and what stands in the table; "" where there is none."""
    given = _given_source(values)
    if not given:
        return ""
    parts = [f"{key}={value}" for key, value in sorted(given.items())]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def token_files(values: Mapping[str, Any]) -> Iterator[Path]:
    """The files that the source reads at each fetch."""
    for key, value in _given_source(values).items():
        if key.endswith("_file"):
            yield Path(str(value))


def _given_source(values: Mapping[str, Any]) -> dict[str, Any]:
    oauth2 = values.get("oauth2")
    given = {f"oauth2.{key}": value for key, value in oauth2.items()} if isinstance(oauth2, Mapping) else {}
    return given | {key: values[key] for key in ("token_command", "token_file") if key in values}


def _client(value: object, where: str) -> Client:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: must be a table")
    if unknown := set(value) - _OAUTH2:
        raise ConfigurationError(unknown_key(where, unknown, _OAUTH2))
    for key in ("token_url", "client_id"):
        if key not in value:
            raise ConfigurationError(f"{where}: needs `{key}`")
    secret, refresh = _given(value, "client_secret", where), _given(value, "refresh_token", where)
    grant = value.get("grant", "client_credentials" if refresh is None else "refresh_token")
    if grant not in _GRANTS:
        raise ConfigurationError(f"{where}: grant: must be one of {', '.join(_GRANTS)}")
    if (grant == "refresh_token") != (refresh is not None):
        needs = "needs" if refresh is None else "has no use for"
        raise ConfigurationError(f"{where}: grant: {grant} {needs} `refresh_token` or `refresh_token_file`")
    if grant == "client_credentials" and secret is None:
        raise ConfigurationError(f"{where}: grant: client_credentials needs `client_secret` or `client_secret_file`")
    url = _token_url(_text(value["token_url"], f"{where}: token_url"), where)
    scope = _text(value["scope"], f"{where}: scope") if "scope" in value else ""
    client_id = _text(value["client_id"], f"{where}: client_id")
    return Client(url, client_id, secret or Given(), refresh or Given(), scope)


def _token_url(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(f"{where}: token_url: is no URL") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigurationError(f"{where}: token_url: must be https:// (http:// on loopback only)")
    if not host or "@" in parts.netloc or parts.fragment:
        raise ConfigurationError(f"{where}: token_url: must name a host, and hold no user and no #")
    return url


def _given(value: Mapping[str, Any], key: str, where: str) -> Given | None:
    file_key = f"{key}_file"
    if key in value and file_key in value:
        raise ConfigurationError(f"{where}: {key} and {file_key} exclude each other")
    if key in value:
        return Given(SecretStr(_text(value[key], f"{where}: {key}")))
    return Given(file=Path(_text(value[file_key], f"{where}: {file_key}"))) if file_key in value else None


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{where}: must be text")
    return value
