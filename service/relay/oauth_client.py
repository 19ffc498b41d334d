"""Access tokens from an OAuth2 server (RFC 6749): the grants refresh_token and client_credentials.

A server may give a new refresh token with each access token (RFC 6749 6); it is used from then on, and kept in the file
that the old one came from. How the form travels is token_request's; what a token looks like is oauth's.
"""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote_plus

from pydantic import SecretStr

from service.relay.failure import Cause, SessionFailure
from service.relay.files import replace_secret
from service.relay.hidden import Hidden
from service.relay.oauth import Fetched, hash_of, members_of, no_token, parse_token
from service.relay.token_request import Unanswered, post_form
from service.relay.token_sources import read_within
from service.telemetry import Log, get_logger

log = get_logger()


@dataclass(frozen=True, slots=True)
class Given:
    """A secret: itself, or the file that holds it."""

    secret: SecretStr = field(default_factory=lambda: SecretStr(""))
    file: Path | None = None

    async def read(self, key: str, timeout: float) -> str:
        """Its text now. Raises SessionFailure that names the key."""
        if self.file is None:
            return self.secret.get_secret_value()
        content = await read_within(self.file, timeout, key)
        try:
            return content.decode().strip()
        except UnicodeDecodeError:
            raise no_token(Cause.TOKEN_FILE, f"{key}: {self.file}: not UTF-8") from None


@dataclass(slots=True)
class Client:
    """`[relays.NAME.oauth2]`: an OAuth2 client (RFC 6749). Files are read at each fetch."""

    url: str
    client_id: str
    client_secret: Given
    refresh_token: Given  # nothing for the grant client_credentials
    scope: str = ""
    _rotated: tuple[str, str] | None = field(
        default=None, init=False, repr=False, compare=False
    )  # what was given, and what took its place

    async def fetch(self, timeout: float) -> Fetched:
        """See Source."""
        now = asyncio.get_running_loop().time
        ends = now() + timeout
        secret, given = await self._read(timeout)
        refresh = self._newest(given)
        form = {"client_id": self.client_id, "client_secret": secret, "scope": self.scope}
        if refresh:
            form |= {"grant_type": "refresh_token", "refresh_token": refresh}  # RFC 6749 6
        else:
            form |= {"grant_type": "client_credentials"}  # RFC 6749 4.4.2
        try:
            status, body = await post_form(self.url, {name: text for name, text in form.items() if text}, ends - now())
        except TimeoutError:
            raise no_token(Cause.TOKEN_UNREACHABLE, f"token_url: no answer within {timeout:.3g} s") from None
        except Unanswered as error:
            raise no_token(Cause.TOKEN_UNREACHABLE, f"token_url: {error}") from None
        if status != 200:
            raise _refused(status, _told(body, secret, refresh))
        fetched = parse_token(body, "token_url")
        new = str(members_of(body).get("refresh_token") or "")
        if refresh and new and new != refresh:
            self._rotated = given, new
            await self._keep(given, new, timeout)
        return replace(fetched, basis=hash_of(secret, self._newest(given)))

    async def basis(self, timeout: float) -> str:
        """See Source. A refresh token that the server gave, and that was put into the file, is no other one."""
        secret, given = await self._read(timeout)
        return hash_of(secret, self._newest(given))

    async def _read(self, timeout: float) -> tuple[str, str]:
        """The client's secret, and the refresh token that was given. Raises SessionFailure."""
        now = asyncio.get_running_loop().time
        ends = now() + timeout
        secret = await self.client_secret.read("client_secret_file", timeout)
        return secret, await self.refresh_token.read("refresh_token_file", ends - now())

    def _newest(self, given: str) -> str:
        """RFC 6749 6: a server may give a new refresh token, which then takes the place of the old one."""
        return self._rotated[1] if self._rotated is not None and self._rotated[0] == given else given

    async def _keep(self, given: str, new: str, timeout: float) -> None:
        """In its file, for the next start. Where that can't be done it holds as long as this process."""
        file = self.refresh_token.file
        if file is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await asyncio.to_thread(replace_secret, file, given, new)
        except OSError as error:  # a TimeoutError is one too, and has no words
            detail = error.strerror or f"not written within {timeout:.3g} s"
            log.warning(Log.REFRESH_TOKEN_NOT_KEPT, file=str(file), detail=detail)


def _told(body: bytes, *secrets: str) -> str:
    """`error` and its description (RFC 6749 5.2), as far as they are there, without what was sent."""
    hidden = Hidden()
    hidden.add(*secrets, *map(quote_plus, secrets))
    members = members_of(body)
    words = ": ".join(str(members[key]) for key in ("error", "error_description") if members.get(key))
    return hidden.take_out("".join(each if each.isprintable() else " " for each in words))[:300]


def _refused(status: int, words: str) -> SessionFailure:
    if 300 <= status < 400:
        return no_token(Cause.TOKEN_ANSWER, f"token_url: answered {status}, and redirects are not followed")
    # RFC 6749 5.2: 400 and 401; what is not about the request is about the server
    cause = Cause.TOKEN_REFUSED if 400 <= status < 500 and status != 429 else Cause.TOKEN_UNREACHABLE
    return no_token(cause, f"token_url: answered {status} {words}".strip())
