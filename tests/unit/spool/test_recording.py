"""What comes back from relays is made durable whatever goes wrong in our own code, once, and in a log that stays small."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.errors import StorageUnavailable
from service.mail.lifecycle import State
from service.mail.outcome import Failure, Phase, Policy
from service.mail.reply import Reply, make_reply
from service.mail.seal import seal
from service.relay.port import MayNotStart, Outgoing, RecipientResult, Report
from service.store.values import NewMessage, RescuePolicy
from tests.support.clock import EPOCH
from tests.support.sending import THANKS, ModelRelay, ModelRelays, Sending, sending, until
from tests.support.store_data import HOUR, new_message
from tests.support.virtual import VirtualClock, virtually

CONTENT = (
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nFrom: news@example.com\r\nTo: ada@example.org\r\n"
    b"Message-ID: <%d@example.com>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"
)
RESCUE = RescuePolicy(in_doubt_delay=900, max_in_doubt=2, max_kills=3)


def message(number: int, to: Sequence[str] = ("ada@example.org",), **given: object) -> NewMessage:
    """Due at once."""
    content = (CONTENT % number,)
    return new_message(number, tuple(to), created_at=EPOCH, due_at=EPOCH, content=content, **given)


class ScriptedRelay(ModelRelay):
    """Gives each delivery the next of these results, for all its recipients; then 250."""

    def __init__(self, clock: VirtualClock, *results: RecipientResult, **given: Any) -> None:
        super().__init__("r", clock, **given)
        self._results = list(results)
        self.outgoing: list[Outgoing] = []

    def start(self, outgoing: Outgoing, done: Callable[[Report], None]) -> None:
        if outgoing not in self.outgoing:
            self.outgoing.append(outgoing)
        super().start(outgoing, done)

    def _end(self, outgoing: Outgoing, reply: Reply, done: Callable[[Report], None]) -> None:
        result = self._results.pop(0) if self._results else RecipientResult(Phase.DOT, THANKS)

        def told(report: Report) -> None:
            started = result.phase is Phase.DOT
            done(Report([result] * len(report.results), result.phase is not Phase.CONNECT, started))

        super()._end(outgoing, reply, told)


class RaisingPolicy(Policy):
    """A fault of ours, whatever the relay says."""

    def rule_for(self, phase: Phase, reply: Reply) -> Any:
        raise ZeroDivisionError


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


async def state(made: Sending, id: str) -> tuple[State, int, int]:
    """A message's only recipient: state, charged attempts, attempts in doubt."""
    view = await made.store.get_message("acme", id)
    assert view is not None
    (recipient,) = view.recipients
    return recipient.state, recipient.attempts, recipient.in_doubt


async def until_moved(made: Sending, id: str, at_most: float = 10) -> None:
    """Until no attempt holds any recipient of it; seconds of the clock that jumps."""
    async with asyncio.timeout(at_most):
        while True:
            view = await made.store.get_message("acme", id)
            assert view is not None
            if not {each.state for each in view.recipients} & {State.QUEUED, State.SENDING}:
                return
            await asyncio.sleep(0.1)


LATER = make_reply(451, ["4.3.0 later"])


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (RecipientResult(Phase.RCPT, LATER), (State.DEFERRED, 1, 0)),
        (RecipientResult(Phase.DOT, LATER), (State.DEFERRED, 1, 0)),  # refused for now: in no doubt
        (RecipientResult(Phase.DOT, make_reply(554, ["5.7.1 spam"])), (State.DEFERRED, 1, 0)),
    ],
)
def test_a_policy_that_fails_leaves_no_attempt_open_and_the_sender_alive(
    tmp_path: Path, result: RecipientResult, expected: tuple[State, int, int]
) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock, result, connections=1)
        relay.policy = RaisingPolicy(())
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            with capture_logs() as lines:
                await made.accept(first := message(1))
                await until_moved(made, first.id)
                assert await state(made, first.id) == expected
                await made.accept(second := message(2))
                await until_moved(made, second.id)
            assert (await state(made, second.id))[0] is State.SENT, "the next one goes on"
            faults = [line for line in lines if line["event"] == "delivery.fault"]
            assert [(line["id"], line["during"]) for line in faults] == [(first.id, "judge")]

    virtually(main)


@pytest.mark.parametrize(
    ("result", "delivery", "expected"),
    [
        (RecipientResult(Phase.DOT, THANKS), "at_least_once", (State.SENT, 1, 0)),
        (RecipientResult(Phase.DOT, failure=Failure.LOST), "at_least_once", (State.DEFERRED, 1, 1)),
        (RecipientResult(Phase.DOT, failure=Failure.LOST), "at_most_once", (State.UNKNOWN, 1, 1)),
        (RecipientResult(Phase.DOT, failure=Failure.SHUTDOWN), "at_most_once", (State.UNKNOWN, 1, 1)),
        (RecipientResult(Phase.MAIL, failure=Failure.LOST), "at_most_once", (State.DEFERRED, 1, 0)),
        (RecipientResult(Phase.CONNECT, failure=Failure.REFUSED), "at_least_once", (State.DEFERRED, 1, 0)),
    ],
)
@pytest.mark.parametrize("fails", ["judged", "settle"])
def test_what_is_surely_known_decides_when_judging_or_settling_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
    result: RecipientResult,
    delivery: str,
    expected: tuple[State, int, int],
) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock, result)
        if fails == "judged":
            relay.judged = broken  # type: ignore[method-assign]
        else:
            monkeypatch.setattr("service.spool.settling.Settler.settle", broken)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(each := message(1, delivery=delivery))
            await until_moved(made, each.id)
            assert await state(made, each.id) == expected
            view = await made.store.get_message("acme", each.id)
            assert view is not None
            due = view.recipients[0].due_at
            if expected[0] is State.DEFERRED:
                assert due is not None
                assert due >= clock.now() + (890_000 if expected[2] else 4_000), "not again at once"

    virtually(main)


def test_a_result_that_the_store_can_not_write_is_written_as_what_is_known(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            settle, tried = made.store.settle, []

            def failing(settlement: Any) -> Any:
                tried.append(settlement)
                if len(tried) == 1:  # an event that no table has a transition for
                    settlement = replace(settlement, recipients=[replace(settlement.recipients[0], event="nonsense")])
                return settle(settlement)

            made.store.settle = failing  # type: ignore[method-assign]
            await made.accept(each := message(1))
            await until_moved(made, each.id)
            assert (await state(made, each.id), len(tried)) == ((State.SENT, 1, 0), 2)

    virtually(main)


def test_a_delivery_that_can_not_be_sealed_ends_neither_the_loop_nor_those_claimed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(content: Any, *rest: Any) -> Any:
        return broken() if b"<2@" in content[0] else seal(content, *rest)

    monkeypatch.setattr("service.spool.dispatch.seal", fragile)

    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            batch = [message(number) for number in range(1, 4)]
            await made.accept(*batch)
            for each in batch:
                await until_moved(made, each.id)
            states = [await state(made, each.id) for each in batch]
            assert states == [(State.SENT, 1, 0), (State.DEFERRED, 1, 0), (State.SENT, 1, 0)]

    virtually(main)


def test_content_that_can_not_be_read_while_the_store_is_away_goes_back_uncharged(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            read, tries = made.store.delivery_content, []

            async def away_once(id: str) -> Any:
                tries.append(id)
                if len(tries) == 1:
                    raise StorageUnavailable("it is being reopened")
                return await read(id)

            made.store.delivery_content = away_once  # type: ignore[method-assign]
            content = (CONTENT % 1 + b"x" * 76 + b"\r\n", *(b"y" * 76 + b"\r\n" for _ in range(20_000)))
            large = replace(message(1), content=content, size=sum(map(len, content)))
            await made.accept(large)
            await until(clock, lambda: len(tries) == 2, at_most=10)
            await until_moved(made, large.id)
            assert await state(made, large.id) == (State.SENT, 1, 0), "one attempt is charged"

    virtually(main)


def test_the_log_of_a_split_message_grows_with_its_recipients_and_not_with_their_square(tmp_path: Path) -> None:
    people = [f"reader-{number}@example.org" for number in range(1000)]

    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock, connections=1)
        relay.max_recipients = 50
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(each := message(1, people))
            await until(clock, lambda: len(relay.outgoing) == 20, at_most=60)
            await until_moved(made, each.id)
            view = await made.store.get_message("acme", each.id)
            assert view is not None
            assert {recipient.state for recipient in view.recipients} == {State.SENT}
            assert {recipient.attempts for recipient in view.recipients} == {1}
            log = await made.store.list_events("acme", each.id)
            assert len(log) == 1 + 1000, "accepted, and one for each recipient"
            told = [line.recipient for line in log if line.type == "sent"]
            assert sorted(told) == sorted(people)

    virtually(main)


def test_what_is_claimed_ahead_is_marked_before_its_content_and_is_in_doubt_only_then(tmp_path: Path) -> None:
    """It waits for a busy session: only the mark tells, after a kill, whether its content may be out."""

    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock, connections=1, takes=lambda: 30.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            first, second = message(1), message(2)
            await made.accept(first, second)
            await until(clock, lambda: len(relay.outgoing) == 2, at_most=10)
            now, ahead = relay.outgoing
            assert now.on_content is None, (
                "an attempt that begins at once is in doubt anyway: nothing is written for it"
            )
            assert ahead.on_content is not None
            await ahead.on_content()
            await made.store.rescue(clock.now() + HOUR, RESCUE)
            assert [await state(made, each.id) for each in (first, second)] == [(State.DEFERRED, 1, 1)] * 2
            await until(clock, lambda: relay.free(0) == 1, at_most=100)

    virtually(main)


def test_a_mark_that_the_storage_does_not_take_is_nobodys_fault(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock, connections=1, takes=lambda: 30.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(message(1), message(2))
            await until(clock, lambda: len(relay.outgoing) == 2, at_most=10)
            _, ahead = relay.outgoing
            assert ahead.on_content is not None

            async def away(*_: object) -> int:
                raise StorageUnavailable("it is being reopened", retry_after=1)

            takes, made.store.start_content = made.store.start_content, away  # type: ignore[method-assign]
            with pytest.raises(MayNotStart, match="reopened"):
                await ahead.on_content()
            made.store.start_content = takes  # type: ignore[method-assign]
            await until(clock, lambda: relay.free(0) == 1, at_most=100)

    virtually(main)


def test_what_was_claimed_ahead_and_not_marked_is_given_back_by_the_rescuer(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ScriptedRelay(clock, connections=1, takes=lambda: 30.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(message(1), second := message(2))
            await until(clock, lambda: len(relay.outgoing) == 2, at_most=10)
            await made.store.rescue(clock.now() + HOUR, RESCUE)
            assert (await state(made, second.id))[1:] == (0, 0)
            await until(clock, lambda: relay.free(0) == 1, at_most=100)

    virtually(main)


def test_what_is_in_flight_when_sending_ends_is_recorded_and_leaves_nothing_to_do(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, connections=1, takes=lambda: 3.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(message(1), message(2))
            await until(clock, lambda: relay.free(clock.now()) == 0, at_most=1)
            assert len(asyncio.all_tasks()) > 1
        await asyncio.sleep(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtually(main)
