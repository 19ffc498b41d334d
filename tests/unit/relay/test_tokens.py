"""Access tokens: kept while they are good, fetched once for all who wait, and never anything but a token."""

import asyncio
import json

import pytest

from service.mail.outcome import Failure, Phase
from service.relay.failure import Cause, SessionFailure
from service.relay.oauth import Fetched, TokenLimits, Tokens, parse_token
from tests.support.clock import SteppedClock


class Scripted:
    """Gives one token after the other; the fetch waits for `go`."""

    def __init__(self, *given: Fetched | SessionFailure) -> None:
        self.given = list(given)
        self.asked = 0
        self.stands_on: str | SessionFailure = ""
        self.go = asyncio.Event()
        self.go.set()

    async def fetch(self, timeout: float) -> Fetched:
        self.asked += 1
        await self.go.wait()
        token = self.given.pop(0)
        if isinstance(token, SessionFailure):
            raise token
        return token

    async def basis(self, timeout: float) -> str:
        if isinstance(self.stands_on, SessionFailure):
            raise self.stands_on
        return self.stands_on


def tokens(source: Scripted, clock: SteppedClock) -> Tokens:
    return Tokens(source, TokenLimits(timeout=5, margin=60, lifetime=300), clock.monotonic)


@pytest.mark.parametrize(
    ("lifetime", "good"), [(3600, 3540), (80, 40), (None, 240), (0, 0)], ids=["an hour", "short", "not told", "a file"]
)
async def test_a_token_is_kept_until_shortly_before_it_expires(
    lifetime: float | None, good: float, clock: SteppedClock
) -> None:
    source = Scripted(Fetched("one", lifetime), Fetched("two", lifetime))
    kept = tokens(source, clock)
    first = await kept.current()
    assert (first.value, first.kept) == ("one", False)
    if good:
        clock.step(good - 1)
        again = await kept.current()
        assert (again.value, again.kept) == ("one", True)
        clock.step(1)
    later = await kept.current()
    assert (later.value, later.kept) == ("two", False)


async def test_whoever_comes_while_one_is_fetched_waits_for_that(clock: SteppedClock) -> None:
    source = Scripted(Fetched("one"))
    source.go.clear()
    kept = tokens(source, clock)
    waiting = [asyncio.create_task(kept.current()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    source.go.set()
    assert [each.value for each in await asyncio.gather(*waiting[1:])] == ["one", "one"]
    assert source.asked == 1


async def test_a_fetch_that_fails_fails_for_all_who_waited_and_the_next_is_a_new_one(clock: SteppedClock) -> None:
    failure = SessionFailure(Phase.AUTH, failure=Failure.TOKEN, detail="down")
    source = Scripted(failure, Fetched("one"))
    kept = tokens(source, clock)
    results = await asyncio.gather(kept.current(), kept.current(), return_exceptions=True)
    assert results == [failure, failure]
    assert (await kept.current()).value == "one"
    assert source.asked == 2


async def test_two_that_were_refused_with_the_same_token_fetch_one_new_one(clock: SteppedClock) -> None:
    source = Scripted(Fetched("one"), Fetched("two"))
    kept = tokens(source, clock)
    stale = await kept.current()
    assert not stale.kept
    source.stands_on = "renewed"
    assert [await kept.other_than(stale) for _ in range(2)] == [True, True]
    assert ((await kept.current()).value, source.asked) == ("two", 2)


async def test_one_that_had_been_kept_is_fetched_anew_whatever_it_was_made_of(clock: SteppedClock) -> None:
    source = Scripted(Fetched("one"), Fetched("two"))
    kept = tokens(source, clock)
    await kept.current()
    assert await kept.other_than(await kept.current())
    assert source.asked == 2


@pytest.mark.parametrize(
    ("now", "other"),
    [("old", False), ("new", True), (SessionFailure(Phase.AUTH, failure=Failure.TOKEN, detail="gone"), False)],
)
async def test_one_that_had_just_been_fetched_is_fetched_anew_only_when_what_it_was_made_of_is_another(
    now: str | SessionFailure, other: bool, clock: SteppedClock
) -> None:
    source = Scripted(Fetched("one", basis="old"), Fetched("two", basis="new"))
    kept = tokens(source, clock)
    refused = await kept.current()
    source.stands_on = now
    assert await kept.other_than(refused) is other
    assert source.asked == 1 + other
    assert "old" not in repr(refused)


async def test_a_renewed_file_with_the_same_token_in_it_has_no_other_one(clock: SteppedClock) -> None:
    source = Scripted(Fetched("one", 0, "old"), Fetched("one", 0, "new"))
    kept = tokens(source, clock)
    refused = await kept.current()
    source.stands_on = "new"
    assert not await kept.other_than(refused)


@pytest.mark.parametrize(
    ("raw", "token", "lifetime"),
    [
        (b"ya29.a0-_~+/=\n", "ya29.a0-_~+/=", None),
        (b'{"access_token":"abc","expires_in":3599,"token_type":"bearer"}', "abc", 3599),
        (b' {"access_token":"abc","expires_in":"3599"}', "abc", 3599),
        (b'{"access_token":"abc"}', "abc", None),
        (b'{"access_token":"abc","expires_in":-1}', "abc", 0),
        (b'{"access_token":"abc","expires_in":0}', "abc", 0),
        (b'{"access_token":"abc","expires_in":"soon"}', "abc", None),
        (b'{"access_token":"abc","expires_in":NaN}', "abc", None),
        (b'{"access_token":"abc","expires_in":[1]}', "abc", None),
    ],
)
def test_bare_text_and_json_are_tokens(raw: bytes, token: str, lifetime: float | None) -> None:
    fetched = parse_token(raw, "here")
    assert (fetched.value, fetched.lifetime) == (token, lifetime)
    assert token not in repr(fetched)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\n", b"two words", b"line\nline", b"{", b"{}", b'{"access_token":3}', b'{"access_token":""}', b'{"access_token":"a\\u0001b"}',
     b"\xff\xfe", "tökén".encode(), b"x" * 8001, b'{"access_token":"abc","token_type":"mac"}', b"[" * 100000, b'{"a":' * 100000],
)  # fmt: skip
def test_whatever_else_comes_is_refused_without_being_shown(raw: bytes) -> None:
    with pytest.raises(SessionFailure) as caught:
        parse_token(raw, "here")
    failure = caught.value
    assert (failure.phase, failure.failure, failure.cause) == (Phase.AUTH, Failure.TOKEN, Cause.TOKEN_ANSWER)
    assert failure.detail in ("here: no token, nor JSON with access_token", "here: token_type is not Bearer")


def test_the_limit_of_a_token_leaves_room_in_the_longest_line_of_auth() -> None:
    """RFC 4954 4: 12288 octets."""
    token = parse_token(json.dumps({"access_token": "x" * 8000}).encode(), "here").value
    assert len("AUTH XOAUTH2 ") + (len(token) + 2 * 254) * 4 / 3 < 12288
