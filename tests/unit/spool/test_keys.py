"""API keys: shown once, stored as a digest, refused alike whether they exist or not."""

import hmac
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.errors import ConfigurationError, InvalidApiKey
from service.spool.keys import Keys
from service.store import open_store
from service.store.port import Store
from tests.support.clock import EPOCH, SteppedClock


@pytest.fixture
async def store(tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Store]:
    made = open_store(f"sqlite:///{tmp_path}/post.db", clock, holder="me")
    await made.open()
    yield made
    await made.close()


def files(folder: Path) -> list[bytes]:
    """What is on disk of the store."""
    return [path.read_bytes() for path in folder.glob("post.db*") if path.is_file()]


async def test_a_key_says_who_calls_and_its_secret_is_not_stored(
    store: Store, clock: SteppedClock, tmp_path: Path
) -> None:
    keys = Keys(clock, store)
    key, token = await keys.create("acme", "shop", ("send",), ("x.example",), "5/s")
    caller = await keys.authenticate(token)
    assert (caller.account, caller.key_id, caller.scopes, caller.from_allowed) == (
        "acme",
        key.id,
        frozenset({"send"}),
        ("x.example",),
    )
    assert all(token.encode() not in stored for stored in files(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1] + "x",
        lambda token: "pr_" + "x" * 43,
        lambda token: token[3:],
        lambda token: "",
        lambda token: "pr_" + "é" * 43,
    ],
)
async def test_anything_else_is_refused_after_one_comparison(
    store: Store, clock: SteppedClock, change, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    keys = Keys(clock, store)
    _, token = await keys.create("acme", "shop")
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(change(token))
    assert compared == [(32, 32)], "the same work whether or not there is such a key"


async def test_a_key_ends_when_it_expires_or_is_revoked(store: Store, clock: SteppedClock) -> None:
    keys = Keys(clock, store)
    _, short = await keys.create("acme", "short", expires_at=EPOCH + 1000)
    key, other = await keys.create("acme", "other")
    await keys.authenticate(short)
    clock.step(1)
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(short)
    assert await keys.revoke("acme", key.id)
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(other)


async def test_the_first_key_is_taken_only_into_an_empty_store(store: Store, clock: SteppedClock) -> None:
    keys = Keys(clock, store)
    with pytest.raises(ConfigurationError, match="POSTROOM_BOOTSTRAP_KEY_FILE"):
        await keys.bootstrap("short")
    first = "pr_" + "A" * 43
    assert await keys.bootstrap(first)
    assert not await keys.bootstrap("pr_" + "B" * 43)
    assert "admin" in (await keys.authenticate(first)).scopes
