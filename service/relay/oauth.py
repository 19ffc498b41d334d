"""Access tokens for XOAUTH2 and OAUTHBEARER: kept while they are good, and what counts as one.

One fetch is in flight at a time, and whoever needs a token meanwhile waits for it. A token is fetched anew shortly
before it expires. Where it comes from is token_sources' and oauth_client's. It decides nothing about logins: the
session says which token was refused.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.mail.outcome import Failure, Phase
from service.relay.failure import Cause, SessionFailure

_TOKEN = re.compile(
    r"(?=.{1,8000}$)[A-Za-z0-9._~+/-]+=*"
)  # RFC 6750 2.1; as long as still fits a line of AUTH (RFC 4954 4)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. `kept`: it was not fetched for this login, so it may be stale."""

    value: str = field(repr=False)
    kept: bool


@dataclass(frozen=True, slots=True)
class Fetched:
    """A new token and for how many seconds it is good; None: it does not say."""

    value: str = field(repr=False)
    lifetime: float | None = None


class Source(Protocol):
    """Where tokens come from."""

    async def fetch(self, timeout: float) -> Fetched:
        """A token within `timeout` seconds. Raises SessionFailure."""


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Seconds: for one fetch; fetched anew so long before the expiry; how long one is kept that tells no expiry."""

    timeout: float = 30
    margin: float = 60
    lifetime: float = 300


class Tokens:
    """The tokens of one relay."""

    def __init__(self, source: Source, limits: TokenLimits, monotonic: Callable[[], float]) -> None:
        self._source, self._limits, self._monotonic = source, limits, monotonic
        self._kept = ""
        self._good_until = 0.0
        self._flight: asyncio.Task[str] | None = None

    def __eq__(self, other: object) -> bool:
        """Tokens of one source are the same, however old they are."""
        return isinstance(other, Tokens) and (self._source, self._limits) == (other._source, other._limits)

    def __hash__(self) -> int:
        return hash(type(self._source))

    async def current(self) -> Token:
        """A token that should be good. Raises SessionFailure."""
        if self._kept and self._monotonic() < self._good_until:
            return Token(self._kept, kept=True)
        return Token(await self._fetched(), kept=False)

    async def instead_of(self, refused: Token) -> Token:
        """Another one than the relay refused, where there is one. Raises SessionFailure."""
        self.forget(refused)
        return await self.current()

    def forget(self, refused: Token) -> None:
        """Never give this one out again."""
        if self._kept == refused.value:
            self._kept = ""

    async def _fetched(self) -> str:
        """Of a fetch that all who wait share; one of them that is cancelled does not end it."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fetch())
            self._flight.add_done_callback(_seen)
        return await asyncio.shield(self._flight)

    async def _fetch(self) -> str:
        began = self._monotonic()
        fetched = await self._source.fetch(self._limits.timeout)
        lifetime = self._limits.lifetime if fetched.lifetime is None else fetched.lifetime
        self._kept = fetched.value
        self._good_until = began + max(lifetime - self._limits.margin, lifetime / 2)
        return fetched.value


def _seen(flight: "asyncio.Task[str]") -> None:
    """Whoever waited may be gone; then nobody else looks at the exception."""
    if not flight.cancelled():
        flight.exception()


def parse_token(raw: bytes, where: str) -> Fetched:
    """A token from JSON as in RFC 6749 5.1 or, but from no OAuth2 server, from bare text.

    `where` is the key that it comes from. Raises SessionFailure, which tells no part of `raw`.
    """
    members = members_of(raw)
    bare = raw.decode("ascii", "replace").strip() if where != "token_url" else None
    token: Any = members.get("access_token") if members else bare
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise no_token(Cause.TOKEN_ANSWER, f"{where}: no token, nor JSON with access_token")
    if str(members.get("token_type", "Bearer")).lower() != "bearer":
        raise no_token(Cause.TOKEN_ANSWER, f"{where}: token_type is not Bearer")
    try:
        lifetime = float(members["expires_in"]) if members.get("expires_in") is not None else None
    except (TypeError, ValueError):
        lifetime = None
    if lifetime is not None and not 0 < lifetime < float("inf"):
        lifetime = 0.0 if lifetime <= 0 else None  # one that is over already is not kept
    return Fetched(token, lifetime)


def members_of(raw: bytes) -> dict[str, Any]:
    """Of a JSON object; none where it is no such thing."""
    if not raw.lstrip().startswith(b"{"):
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def no_token(cause: Cause, detail: str) -> SessionFailure:
    """What is told when no token could be had: no login was tried."""
    return SessionFailure(Phase.AUTH, failure=Failure.TOKEN, detail=detail, cause=cause)
