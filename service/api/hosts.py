"""Under which names the service answers: the door that DNS rebinding would come through.

A page of evil.example whose name is pointed at 127.0.0.1 afterwards is of the same origin for the browser; only the Host
field tells that it is not ours. Where keys are asked for, the page has none, so any name is taken unless names are set.
Who sends no Host is no browser. Who may do what is auth's.
"""

from collections.abc import Sequence

from starlette.types import Scope

from service.errors import MisdirectedRequest
from service.relay.url import is_loopback
from service.settings import Settings

_LOCAL = ("localhost", "*.localhost", "127.0.0.1", "[::1]")
_FREE = {"/healthz", "/readyz", "/metrics"}  # orchestrators and monitors ask by address; no mail is in the answers
_LONGEST = 100  # octets of a name that are told


class Hosts:
    """The names that are taken. `*.` before one takes every name below it."""

    def __init__(self, names: Sequence[str]) -> None:
        bare = [name.lower().strip("[]") for name in names]
        self._names = {name for name in bare if not name.startswith("*")}
        self._below = tuple(name[1:] for name in bare if name.startswith("*."))

    def refusal(self, scope: Scope) -> MisdirectedRequest | None:
        """RFC 9110 section 15.5.20; None: the request may go on."""
        for name, value in scope["headers"]:
            if name == b"host" and not self._has(_without_port(value.decode("latin-1"))):
                return None if scope["path"] in _FREE else MisdirectedRequest(_told(value))
        return None

    def _has(self, host: str) -> bool:
        return host in self._names or host.endswith(self._below)


def hosts_of(settings: Settings) -> Hosts | None:
    """None: any. By default loopback's names where no key is asked for and the service listens there, else any."""
    if settings.allowed_hosts:
        return None if "*" in settings.allowed_hosts else Hosts(settings.allowed_hosts)
    closed = settings.auth == "none" and is_loopback(settings.host)
    return Hosts((*_LOCAL, settings.host)) if closed else None


def _without_port(host: str) -> str:
    """In any case, with or without the dot of the root."""
    if host.startswith("["):
        return host.partition("]")[0][1:].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def _told(host: bytes) -> str:
    shown = host[:_LONGEST].decode("ascii", "replace")
    return f"The service does not answer to the Host {shown!r}; POSTROOM_ALLOWED_HOSTS names those it answers to."
