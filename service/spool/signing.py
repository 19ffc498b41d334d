"""The DKIM keys of a process, read once from POSTROOM_DKIM_FILE and again when told to.

[domains."example.com"]
subdomains = true            # sign for news.example.com too
keys = [
  { selector = "pr2026", file = "/run/secrets/dkim/pr2026.pem" },
  { selector = "pr2027", file = "pr2027.pem", since = 2027-01-01T00:00:00Z },
]

Relative paths start at the file's folder. A fault names domain and selector, never the key.
"""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from service.errors import ConfigurationError, PostroomError
from service.mail.address import MAX_DOMAIN, parse_domain
from service.mail.dkim_keys import DkimKey, DkimRing, is_selector, load_private

_DOMAIN_KEYS = {"keys", "subdomains"}
_KEY_KEYS = {"selector", "file", "since", "until"}


class Signing:
    """The ring in use. A reload that fails leaves it as it was."""

    def __init__(self, file: Path | None) -> None:
        """Raises ConfigurationError naming domain and selector."""
        self._file = file
        self.ring = load_ring(file)

    def reload(self) -> None:
        """Read the file and every key again. Raises ConfigurationError."""
        self.ring = load_ring(self._file)


def load_ring(file: Path | None) -> DkimRing:
    """The keys of a file; without a file none. Raises ConfigurationError."""
    if file is None:
        return DkimRing()
    where = f"POSTROOM_DKIM_FILE: {file}"
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ConfigurationError(f"{where}: is nested too deeply") from None
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror}") from None
    except ValueError as error:  # TOML, or not UTF-8
        raise ConfigurationError(f"{where}: {error}") from None
    domains = data.get("domains")
    if set(data) != {"domains"} or not isinstance(domains, dict) or not domains:
        raise ConfigurationError(f'{where}: must hold tables named [domains."example.com"], and only these')
    keys: list[DkimKey] = []
    wide: list[str] = []
    for given, values in domains.items():
        table = _table(values, _DOMAIN_KEYS, f"{where}: domains.{given}")
        domain = _domain(given, where)
        keys += _keys(domain, table.get("keys"), file.parent, f"{where}: domains.{given}")
        if _flag(table.get("subdomains", False), f"{where}: domains.{given}: subdomains"):
            wide.append(domain)
    _check_names(keys, where)
    return DkimRing(keys, wide)


def _check_names(keys: Sequence[DkimKey], where: str) -> None:
    """Each key has a DNS name of its own, that DNS can hold."""
    seen: set[str] = set()
    for key in keys:
        if len(key.host) > MAX_DOMAIN:
            raise ConfigurationError(f"{where}: {key.host[:60]}...: a DNS name has at most {MAX_DOMAIN} octets")
        if (name := key.host.lower()) in seen:
            raise ConfigurationError(f"{where}: {name} stands twice; a new key gets a new selector")
        seen.add(name)


def _domain(given: str, where: str) -> str:
    try:
        return parse_domain(given, "domain")
    except PostroomError as error:
        raise ConfigurationError(f"{where}: domains.{given}: {error.errors[0].detail}") from None


def _keys(domain: str, given: object, folder: Path, where: str) -> list[DkimKey]:
    if not isinstance(given, list) or not given:
        raise ConfigurationError(f"{where}: keys: must be a list of at least one {{ selector, file }}")
    return [_key(domain, values, folder, f"{where}: keys[{index}]") for index, values in enumerate(given)]


def _key(domain: str, values: object, folder: Path, where: str) -> DkimKey:
    table = _table(values, _KEY_KEYS, where)
    selector = table.get("selector")
    if not isinstance(selector, str) or not is_selector(selector):
        raise ConfigurationError(f"{where}: selector: must be a name such as `pr2026` (RFC 6376 3.1)")
    path = table.get("file")
    if not isinstance(path, str):
        raise ConfigurationError(f"{where}: file: must be the path of a private key in PEM")
    try:
        private = load_private((folder / path).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{where}: file: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{where}: file: {path}: {error}") from None
    since, until = _moment(table, "since", where), _moment(table, "until", where)
    if since is not None and until is not None and since >= until:
        raise ConfigurationError(f"{where}: until: must be later than since")
    return DkimKey(domain, selector, private, since, until)


def _table(values: object, known: set[str], where: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where}: must be a table")
    if any(isinstance(value, dict) for value in values.values()):
        raise ConfigurationError(f'{where}: a domain stands in quotes: [domains."example.com"]')
    if unknown := sorted(set(values) - known):
        raise ConfigurationError(f"{where}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}")
    return values


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{where}: must be true or false")
    return value


def _moment(table: Mapping[str, Any], key: str, where: str) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigurationError(f"{where}: {key}: must be a time with an offset, such as 2027-01-01T00:00:00Z")
    return int(value.timestamp() * 1000)
