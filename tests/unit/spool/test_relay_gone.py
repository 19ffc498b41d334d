"""A relay that is gone, or is another one, between the claim of a delivery and its start: it is given back, uncharged."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.errors import RelayNotFound
from service.mail.seal import SenderRule
from service.relay.port import Outgoing, Report
from service.spool import dispatch
from service.spool.waiting import quotas_of
from service.store.shown import MessageView
from service.store.values import Claimed, NewMessage
from tests.support.clock import EPOCH, SteppedClock
from tests.support.sending import ModelRelay, ModelRelays, Sending, quota, sending, until
from tests.support.store_data import new_message
from tests.support.virtual import VirtualClock, virtually

HEAD = (
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nFrom: news@example.com\r\nTo: ada@example.org\r\n"
    b"Message-ID: <1@example.com>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\n"
)


def message(size: int) -> NewMessage:
    """Of about so many octets."""
    content = (HEAD, b"hello, hello!\r\n" * (size // 15))
    return new_message(1, created_at=EPOCH, due_at=EPOCH, size=sum(map(len, content)), content=content)


class Changing(ModelRelays):
    """Relays that come and go."""

    def put(self, *relays: ModelRelay) -> None:
        self._relays = {relay.name: relay for relay in relays}

    def get(self, name: str) -> ModelRelay:
        if name not in self._relays:
            raise RelayNotFound(f"There is no relay {name!r}")
        return self._relays[name]

    def candidates(self, sender: str, pinned: str | None, needs: Sequence[str] = ()) -> tuple[ModelRelay, ...]:
        return tuple(self._relays.values())


def after_first_claim(made: Sending, change: Callable[[], None]) -> None:
    claim = made.store.claim

    async def changing(*asked: Any) -> Claimed:
        claimed = await claim(*asked)
        if claimed.deliveries:
            made.store.claim = claim  # type: ignore[method-assign]
            change()
        return claimed

    made.store.claim = changing  # type: ignore[method-assign]


async def sent_by(made: Sending) -> tuple[MessageView, list[tuple[str, Any]]]:
    """The message, and each attempt's kind of end with its relay."""
    view = await made.store.get_message("acme", new_message(1).id)
    assert view is not None
    events = await made.store.list_events("acme", view.id)
    return view, [(event.type, event.data.get("relay")) for event in events if event.data.get("relay")]


@pytest.mark.parametrize("size", [100, 600_000, 1_200_000])
def test_a_delivery_whose_relay_is_gone_goes_by_another_and_is_charged_once(tmp_path: Path, size: int) -> None:
    """Small content is sealed at once, larger in a thread, the largest is read first."""

    async def main(clock: VirtualClock) -> None:
        gone, other = ModelRelay("a", clock), ModelRelay("b", clock)
        relays = Changing(gone)
        async with sending(tmp_path, clock, relays) as made:
            other.on_capacity(made.dispatcher.wake)
            after_first_claim(made, lambda: relays.put(other))
            await made.accept(message(size))
            await until(clock, lambda: bool(other.started), at_most=10)
            await until(clock, lambda: other.free(0) == 5, at_most=10)
            await made.dispatcher.settle_all()
            view, events = await sent_by(made)
        assert gone.started == []
        assert [each.state for each in view.recipients] == ["sent"]
        assert [each.attempts for each in view.recipients] == [1]
        assert events[-1][1] == "b"

    virtually(main)


def test_what_was_sealed_for_a_relay_that_is_another_by_now_is_sealed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(clock: VirtualClock) -> None:
        before, after = ModelRelay("a", clock), ModelRelay("a", clock)
        after.rule = SenderRule("a", "me@example.com", must_equal_login=True, rewrite_from=True)
        relays = Changing(before)
        rules: list[str] = []

        def changed_meanwhile(content: Any, *given: Any) -> Any:
            sealed = real(content, *given)
            rules.append(sealed.rule_id)
            relays.put(after)
            return sealed

        real = dispatch.seal
        monkeypatch.setattr(dispatch, "seal", changed_meanwhile)
        async with sending(tmp_path, clock, relays) as made:
            await made.accept(message(600_000))
            await until(clock, lambda: bool(after.started), at_most=10)
            await until(clock, lambda: after.free(0) == 5, at_most=10)
            await made.dispatcher.settle_all()
            view, _ = await sent_by(made)
        assert (len(before.started), len(after.started)) == (0, 1), "only what the new rule made"
        assert len(rules) == len(set(rules)) == 2
        assert [each.attempts for each in view.recipients] == [1]

    virtually(main)


@pytest.mark.parametrize("rewrites", [False, True])
@pytest.mark.parametrize(
    ("size", "while_sealed"), [(100, False), (600_000, False), (600_000, True), (1_200_000, False)]
)
def test_a_relay_with_another_account_since_the_claim_sends_by_what_that_account_allows_and_as_its_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, while_sealed: bool, rewrites: bool
) -> None:
    """Same name, another login: the claim took from the quotas of the former account, which sends nothing."""

    def as_login(clock: VirtualClock, login: str) -> ModelRelay:
        relay = ModelRelay("a", clock, [quota("60/m", account=f"{login}@r")])
        relay.rule = SenderRule("a", login, must_equal_login=rewrites, rewrite_from=rewrites)
        return relay

    async def main(clock: VirtualClock) -> None:
        before, after = as_login(clock, "one@example.com"), as_login(clock, "other@example.com")
        relays, paths = Changing(before), []

        def start(outgoing: Outgoing, done: Callable[[Report], None]) -> None:
            paths.append(outgoing.envelope.reverse_path)
            real_start(outgoing, done)

        def changed_meanwhile(content: Any, *given: Any) -> Any:
            sealed = real_seal(content, *given)
            relays.put(after)
            return sealed

        real_start, real_seal = after.start, dispatch.seal
        monkeypatch.setattr(after, "start", start)
        if while_sealed:
            monkeypatch.setattr(dispatch, "seal", changed_meanwhile)
        async with sending(tmp_path, clock, relays) as made:
            if not while_sealed:
                after_first_claim(made, lambda: relays.put(after))
            await made.accept(message(size))
            await until(clock, lambda: bool(after.started), at_most=10)
            await until(clock, lambda: after.free(0) == 5, at_most=10)
            await made.dispatcher.settle_all()
            view, _ = await sent_by(made)
            used = await made.store.quota_use([*before.quotas, *after.quotas], clock.now())
        assert [each.attempts for each in view.recipients] == [1]
        assert (len(before.started), [each.used for each in used]) == (0, [0, 1])
        assert paths == ["other@example.com" if rewrites else view.envelope_from]

    virtually(main)


def test_relays_that_go_while_the_store_is_asked_about_them_are_no_fault() -> None:
    clock = SteppedClock()
    relays: Any = Changing(*(ModelRelay(name, clock, [quota("60/m", account=name)]) for name in "ab"))

    class Slow:
        async def quota_use(self, quotas: Any, now: int) -> list[Any]:
            relays.put()
            return []

    store: Any = Slow()
    assert list(asyncio.run(quotas_of(store, relays, EPOCH))) == ["a", "b"]
