"""API keys: 256 random bits shown once, stored as SHA-256, looked up by prefix, compared in constant time."""

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache

from service.clock import Clock
from service.durations import parse_rate
from service.errors import ConfigurationError, FieldProblem, InvalidApiKey, ValidationFailed
from service.mail.address import make_mailbox, parse_domain
from service.spool.values import SCOPES, Caller
from service.store.port import Store
from service.store.shown import ApiKey

MARK = "pr_"
_PREFIX = 12  # characters of the token after the mark that find its row; 72 of its 256 bits
_NOBODY = hashlib.sha256(b"no such key").digest()


def _digest(token: str) -> bytes:
    # a fast hash is right here: 256 random bits can't be guessed, unlike a password
    return hashlib.sha256(token.encode()).digest()


@lru_cache(maxsize=1024)
def _caller_of(key: ApiKey) -> Caller:
    rate = parse_rate(key.rate) if key.rate else None
    return Caller(key.account, key.id, frozenset(key.scopes), key.from_allowed, rate)


def _sender(text: str, pointer: str) -> str:
    """An address or a domain in the form in which senders are compared with it."""
    if "@" in text.lstrip("@"):
        return make_mailbox(text, "", pointer).email
    return parse_domain(text.lstrip("@"), pointer)


def _check_rate(rate: str) -> None:
    try:
        parse_rate(rate)
    except ValueError as error:
        raise ValidationFailed(errors=[FieldProblem("#/rate", "invalid_rate", str(error))]) from None


class Keys:
    """Make, check and revoke API keys."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self._clock, self._store = clock, store

    async def authenticate(self, token: str) -> Caller:
        """Who holds this token. Raises InvalidApiKey, after the same work whether or not the key exists."""
        found = None
        if token.startswith(MARK) and token.isascii() and 20 <= len(token) <= 100:
            found = await self._store.find_key(token[: len(MARK) + _PREFIX])
        same = hmac.compare_digest(_digest(token), found.digest if found else _NOBODY)
        if found is None or not same or not self._valid(found):
            raise InvalidApiKey
        try:
            return _caller_of(found)
        except ValueError:  # of a key that was made when any rate was taken
            raise InvalidApiKey("The rate of this key is none; ask an operator for a new key.") from None

    def _valid(self, key: ApiKey) -> bool:
        return key.revoked_at is None and (key.expires_at is None or key.expires_at > self._clock.told())

    async def create(
        self,
        account: str,
        name: str,
        scopes: Sequence[str] = SCOPES,
        from_allowed: Sequence[str] = (),
        rate: str | None = None,
        expires_at: int | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its token, which is shown this once and never stored. Raises ValidationFailed."""
        token = self.generate()
        allowed = [_sender(text, f"#/from_allowed/{index}") for index, text in enumerate(from_allowed)]
        if rate is not None:
            _check_rate(rate)
        if expires_at is not None and expires_at <= self._clock.now():
            raise ValidationFailed(errors=[FieldProblem("#/expires_at", "in_the_past", "lies in the past")])
        key = self._key(token, account, name, scopes, allowed, rate, expires_at)
        await self._store.add_key(key)
        return key, token

    def _key(
        self,
        token: str,
        account: str,
        name: str,
        scopes: Sequence[str],
        from_allowed: Sequence[str],
        rate: str | None,
        expires_at: int | None,
    ) -> ApiKey:
        return ApiKey(
            id=self._clock.new_id("key_"),
            prefix=token[: len(MARK) + _PREFIX],
            digest=_digest(token),
            account=account,
            name=name,
            scopes=tuple(scopes),
            from_allowed=tuple(from_allowed),
            rate=rate,
            created_at=self._clock.now(),
            expires_at=expires_at,
            revoked_at=None,
        )

    async def bootstrap(self, token: str) -> bool:
        """Store `token` as the first admin key, if the store has no key at all. Raises ConfigurationError."""
        if not token.startswith(MARK) or not 43 <= len(token) <= 100 or not token.isascii():
            raise ConfigurationError(
                "POSTROOM_BOOTSTRAP_KEY_FILE: must hold `pr_` and 40 or more random characters;"
                " `postroom keys generate` prints one"
            )
        key = self._key(token, "default", "bootstrap", SCOPES, (), None, None)
        return await self._store.add_key(key, only_if_none=True)

    def generate(self) -> str:
        """A fresh token that is stored nowhere."""
        return MARK + self._clock.token()

    async def list(self, account: str | None) -> Sequence[ApiKey]:
        """All keys of an account (of all accounts for None), revoked ones too."""
        return await self._store.list_keys(account)

    async def revoke(self, account: str | None, id: str) -> bool:
        """End a key at once. False when there is no such key."""
        return await self._store.revoke_key(account, id, self._clock.now())
