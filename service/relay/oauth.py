"""Access tokens for XOAUTH2 and OAUTHBEARER: from a command, a file or an OAuth2 server, kept while they are good.

One fetch is in flight at a time, and whoever needs a token meanwhile waits for it. A token is fetched anew shortly
before it expires. It decides nothing about logins: the session says which token was refused.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr

from service.mail.outcome import Failure, Phase
from service.relay.failure import Cause, SessionFailure
from service.relay.logins import without_secrets
from service.relay.token_request import Unanswered, post_form

_MAX_OUTPUT = 64 * 1024  # octets of a command's output or a file
_REAP = 1.0  # seconds for a killed command to be gone
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


@dataclass(frozen=True, slots=True)
class Command:
    """`token_command`: a program that prints a token, or JSON with access_token and expires_in."""

    words: Sequence[str]

    async def fetch(self, timeout: float) -> Fetched:
        """See Source. What it writes to stderr is dropped: it may hold what must not be in a log."""
        name = self.words[0]
        quiet = asyncio.subprocess.DEVNULL
        try:
            transport, running = await asyncio.get_running_loop().subprocess_exec(
                _Running, *self.words, stdin=quiet, stderr=quiet, start_new_session=True
            )
        except OSError as error:
            raise _none(Cause.TOKEN_COMMAND, f"token_command: {name}: {error.strerror}") from None
        try:
            async with asyncio.timeout(timeout):
                await running.over.wait()
        except TimeoutError:
            raise _none(Cause.TOKEN_COMMAND, f"token_command: {name}: not done within {timeout:g} s") from None
        finally:
            status = transport.get_returncode()
            await _end(transport, running)
        if status:
            raise _none(Cause.TOKEN_COMMAND, f"token_command: {name}: exit status {status}")
        return parse_token(bytes(running.output), "token_command")


class _Running(asyncio.SubprocessProtocol):
    """What a command wrote, until it has ended and closed its output, or has written too much."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.exited, self.closed, self.over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Of stdout, the only pipe."""
        if len(self.output) <= _MAX_OUTPUT:
            self.output += data
        else:
            self.over.set()

    def process_exited(self) -> None:
        """Its output may still be open: a child of it may hold it."""
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has exited, and its output is closed."""
        self.closed.set()
        self.over.set()


async def _end(transport: asyncio.SubprocessTransport, running: _Running) -> None:
    """Kill what is still there, with whatever it started."""
    if not running.closed.is_set():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP):
                await running.exited.wait()
    transport.close()


@dataclass(frozen=True, slots=True)
class File:
    """`token_file`: read at each login, so that whoever renews it needs to tell nobody."""

    path: Path

    async def fetch(self, timeout: float) -> Fetched:
        """See Source."""
        try:
            with self.path.open("rb") as stream:
                content = stream.read(_MAX_OUTPUT + 1)
        except OSError as error:
            raise _none(Cause.TOKEN_FILE, f"token_file: {self.path}: {error.strerror}") from None
        return Fetched(parse_token(content, "token_file").value, 0)


@dataclass(slots=True)
class Client:
    """`[relays.NAME.oauth2]`: an OAuth2 client (RFC 6749). Files are read at each fetch."""

    url: str
    client_id: str
    client_secret: "Given"
    refresh_token: "Given"  # nothing for the grant client_credentials
    scope: str = ""
    _rotated: tuple[str, str] | None = field(
        default=None, init=False, repr=False, compare=False
    )  # what was given, and what took its place

    async def fetch(self, timeout: float) -> Fetched:
        """See Source."""
        secret, given = self.client_secret.read("client_secret_file"), self.refresh_token.read("refresh_token_file")
        # RFC 6749 6: a server may give a new refresh token, which then takes the place of the old one
        refresh = self._rotated[1] if self._rotated is not None and self._rotated[0] == given else given
        form = {"client_id": self.client_id, "client_secret": secret, "scope": self.scope}
        if refresh:
            form |= {"grant_type": "refresh_token", "refresh_token": refresh}  # RFC 6749 6
        else:
            form |= {"grant_type": "client_credentials"}  # RFC 6749 4.4.2
        try:
            status, body = await post_form(self.url, {name: value for name, value in form.items() if value}, timeout)
        except Unanswered as error:
            raise _none(Cause.TOKEN_UNREACHABLE, f"token_url: {error}") from None
        if status != 200:
            raise _refused(status, without_secrets(_told(body), (secret, refresh)))
        fetched = parse_token(body, "token_url")
        if (new := _members(body).get("refresh_token")) and refresh:
            self._rotated = given, str(new)
        return fetched


@dataclass(frozen=True, slots=True)
class Given:
    """A secret: itself, or the file that holds it."""

    secret: SecretStr = field(default_factory=lambda: SecretStr(""))
    file: Path | None = None

    def read(self, key: str) -> str:
        """Its text now. Raises SessionFailure that names the key."""
        if self.file is None:
            return self.secret.get_secret_value()
        try:
            return self.file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            words = getattr(error, "strerror", None) or "not UTF-8"
            raise _none(Cause.TOKEN_FILE, f"{key}: {self.file}: {words}") from None


def parse_token(raw: bytes, where: str) -> Fetched:
    """A token from JSON as in RFC 6749 5.1 or, but from no OAuth2 server, from bare text.

    `where` is the key that it comes from. Raises SessionFailure, which tells no part of `raw`.
    """
    members = _members(raw)
    bare = raw.decode("ascii", "replace").strip() if where != "token_url" else None
    token: Any = members.get("access_token") if members else bare
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _none(Cause.TOKEN_ANSWER, f"{where}: no token, nor JSON with access_token")
    if str(members.get("token_type", "Bearer")).lower() != "bearer":
        raise _none(Cause.TOKEN_ANSWER, f"{where}: token_type is not Bearer")
    try:
        lifetime = float(members["expires_in"]) if members.get("expires_in") is not None else None
    except (TypeError, ValueError):
        lifetime = None
    if lifetime is not None and not 0 < lifetime < float("inf"):
        lifetime = 0.0 if lifetime <= 0 else None  # one that is over already is not kept
    return Fetched(token, lifetime)


def _members(raw: bytes) -> dict[str, Any]:
    if not raw.lstrip().startswith(b"{"):
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _told(body: bytes) -> str:
    """`error` and its description (RFC 6749 5.2), as far as they are there."""
    members = _members(body)
    words = ": ".join(str(members[key]) for key in ("error", "error_description") if members.get(key))
    return "".join(each if each.isprintable() else " " for each in words)[:300]


def _refused(status: int, words: str) -> SessionFailure:
    if 300 <= status < 400:
        return _none(Cause.TOKEN_ANSWER, f"token_url: answered {status}, and redirects are not followed")
    # RFC 6749 5.2: 400 and 401; what is not about the request is about the server
    cause = Cause.TOKEN_REFUSED if 400 <= status < 500 and status != 429 else Cause.TOKEN_UNREACHABLE
    return _none(cause, f"token_url: answered {status} {words}".strip())


def _none(cause: Cause, detail: str) -> SessionFailure:
    return SessionFailure(Phase.AUTH, failure=Failure.TOKEN, detail=detail, cause=cause)
