"""Access tokens for XOAUTH2 and OAUTHBEARER: kept while they are good, and what counts as one.

One fetch is in flight at a time, and whoever needs a token meanwhile waits for it. A token is fetched anew shortly
before it expires. Where it comes from is token_sources' and oauth_client's. It decides nothing about logins: the
session says which token was refused.
"""

import asyncio
import hashlib
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
    """An access token. `kept`: it was not fetched for this login, so it may be stale. `basis`: see Source."""

    value: str = field(repr=False)
    kept: bool
    basis: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A new token and for how many seconds it is good; None: it does not say."""

    value: str = field(repr=False)
    lifetime: float | None = None
    basis: str = field(default="", repr=False, compare=False)  # see Source


class Source(Protocol):
    """Where tokens come from."""

    async def fetch(self, timeout: float) -> Fetched:
        """A token within `timeout` seconds. Raises SessionFailure."""

    async def basis(self, timeout: float) -> str:
        """A hash of what a token would be made of now; another one when a file of it was renewed. Raises SessionFailure."""


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
        self._flight: asyncio.Task[Fetched] | None = None

    def __eq__(self, other: object) -> bool:
        """Tokens of one source are the same, however old they are."""
        return isinstance(other, Tokens) and (self._source, self._limits) == (other._source, other._limits)

    def __hash__(self) -> int:
        return hash(type(self._source))

    async def current(self) -> Token:
        """A token that should be good. Raises SessionFailure."""
        if self._kept and self._monotonic() < self._good_until:
            return Token(self._kept, kept=True)
        fetched = await self._fetched()
        return Token(fetched.value, kept=False, basis=fetched.basis)

    async def other_than(self, refused: Token) -> bool:
        """Whether there is another one than the relay refused, fetched now. Raises SessionFailure.

        One that had been kept may be stale; one that was fetched for its login is as good as the next, unless what it was
        made of was renewed meanwhile.
        """
        self.forget(refused)
        if not refused.kept and not await self._renewed_since(refused):
            return False
        return (await self.current()).value != refused.value

    async def _renewed_since(self, refused: Token) -> bool:
        try:
            return await self._source.basis(self._limits.timeout) != refused.basis
        except SessionFailure:  # the refusal is told, and the next fetch tells of this
            return False

    def forget(self, refused: Token) -> None:
        """Never give this one out again."""
        if self._kept == refused.value:
            self._kept = ""

    async def _fetched(self) -> Fetched:
        """Of a fetch that all who wait share; one of them that is cancelled does not end it."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fetch())
            self._flight.add_done_callback(_seen)
        return await asyncio.shield(self._flight)

    async def _fetch(self) -> Fetched:
        began = self._monotonic()
        fetched = await self._source.fetch(self._limits.timeout)
        lifetime = self._limits.lifetime if fetched.lifetime is None else fetched.lifetime
        self._kept = fetched.value
        self._good_until = began + max(lifetime - self._limits.margin, lifetime / 2)
        return fetched


def _seen(flight: "asyncio.Task[Fetched]") -> None:
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


def hash_of(*parts: str | bytes) -> str:
    """What a token is made of, so that it can be compared and not be told."""
    octets = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    return hashlib.sha256(b"\0".join(octets)).hexdigest()


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
