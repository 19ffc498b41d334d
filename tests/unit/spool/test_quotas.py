"""The dispatcher and quotas, on a clock that jumps: never too much, never much later than possible, never busy."""

import random
from math import ceil
from pathlib import Path

import pytest

from service.mail.quota import Per
from service.spool.waiting import look
from service.store.shown import MessageFilter
from service.store.values import NewMessage
from tests.support.clock import EPOCH
from tests.support.sending import ModelRelay, ModelRelays, Provider, Sending, quota, sending, until
from tests.support.store_data import HOUR, new_message
from tests.support.virtual import VirtualClock, virtually

CONTENT = (
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nFrom: news@example.com\r\nTo: ada@example.org\r\n"
    b"Message-ID: <%d@example.com>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"
)


def messages(count: int, first: int = 1, **given: object) -> list[NewMessage]:
    """Due at once."""
    return [
        new_message(first + n, created_at=EPOCH, due_at=EPOCH, content=(CONTENT % (first + n),), **given)
        for n in range(count)
    ]


async def sent(made: Sending) -> int:
    counts = (await made.store.stats(EPOCH)).counts
    return sum(count for state, count in counts.items() if state == "sent")


@pytest.mark.parametrize("count", [1000, 1080])
@pytest.mark.parametrize(("slowest", "late"), [(0.3, 1.05), (3.0, 1.10)])
def test_three_accounts_of_sixty_a_minute_send_a_thousand_in_time_and_never_provoke_a_refusal(
    count: int, slowest: float, late: float, tmp_path: Path
) -> None:
    """What can't be beaten: 60 from each account at once (the burst), and 60 more only a minute after the last 60.

    A transaction may have been counted at any moment of it, so its length is added to each window: slow ones are late.
    """
    ideal = 60.0 * (ceil(count / 180) - 1)
    generator = random.Random(20261125)

    async def main(clock: VirtualClock) -> None:
        relays = [
            ModelRelay(
                name,
                clock,
                [quota("60/m", headroom=0, account=name)],
                Provider(60, 60),
                connections=10,
                takes=lambda: generator.uniform(0.05, slowest),
            )
            for name in ("a", "b", "c")
        ]
        async with sending(tmp_path, clock, ModelRelays(*relays, turns=True)) as made:
            await made.accept(*messages(count))
            took = await until(clock, lambda: sum(len(each.started) for each in relays) >= count, at_most=500)
            assert sum(each.provider.refused for each in relays) == 0
            assert took <= ideal * late, (took, ideal)

    virtually(main)


def test_a_relay_that_has_used_up_its_quota_is_not_asked_before_its_time(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, [quota("5/m", headroom=0)])
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(12))
            await until(clock, lambda: len(relay.started) == 5, at_most=5)
            await until(clock, lambda: clock.now() >= EPOCH + 2000, at_most=5)
            asked = made.claims["r"]
            await until(clock, lambda: clock.now() >= EPOCH + 50_000, at_most=70)
            assert made.claims["r"] == asked
            await made.accept(*messages(3, first=50))
            assert made.claims["r"] == asked, "more mail is no reason to ask"
            await until(clock, lambda: len(relay.started) == 10, at_most=15)
            first, second = relay.started[0][0], relay.started[5][0]
            assert 60_000 < second - first < 62_000

    virtually(main)


def test_another_relay_takes_over_at_once_what_a_quota_holds(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        first, second = ModelRelay("a", clock, [quota("5/h", headroom=0)]), ModelRelay("b", clock)
        async with sending(tmp_path, clock, ModelRelays(first, second)) as made:
            await made.accept(*messages(40))
            await until(clock, lambda: len(first.started) + len(second.started) == 40, at_most=1.8)
            assert (len(first.started), len(second.started)) == (5, 35)

    virtually(main)


def test_another_relay_takes_over_what_a_quota_of_its_recipient_holds(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        first = ModelRelay("a", clock, [quota("3/h", Per.RECIPIENT, headroom=0)])
        second = ModelRelay("b", clock)
        async with sending(tmp_path, clock, ModelRelays(first, second)) as made:
            await made.accept(*messages(20))
            await until(clock, lambda: len(first.started) + len(second.started) == 20, at_most=30)
            assert len(first.started) == 3

    virtually(main)


def test_mail_behind_a_recipient_that_is_held_goes_on(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, [quota("2/h", Per.RECIPIENT, headroom=0)])
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            flood = messages(600, to=("flood@example.org",))
            others = messages(20, first=1000)
            await made.accept(*flood, *others)
            await until(clock, lambda: len(relay.started) == 4, at_most=3)
            asked = made.claims["r"]
            await until(clock, lambda: clock.now() >= EPOCH + 3_000_000, at_most=3100)
            assert made.claims["r"] - asked < 5, "what is put off is left alone"

    virtually(main)


def test_high_priority_passes_while_normal_waits(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, [quota("10/h", headroom=0.2)])
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(20))
            await until(clock, lambda: clock.now() >= EPOCH + 5000, at_most=10)
            assert len(relay.started) == 8
            await made.accept(*messages(3, first=100, priority=0))
            await until(clock, lambda: len(relay.started) == 10, at_most=1)
            assert [priority for _, priority in relay.started[8:]] == [0, 0]
            await until(clock, lambda: clock.now() >= EPOCH + 60_000, at_most=100)
            assert len(relay.started) == 10, "that is the whole quota"
            # freed by the first ones: first for the one of priority high, then for normal mail
            await until(clock, lambda: len(relay.started) == 18, at_most=3700)
            assert 0 in [priority for _, priority in relay.started[10:13]]

    virtually(main)


def test_a_queue_that_a_quota_holds_says_so_and_until_when(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        limits = [quota("4/h"), quota("2/h", Per.RECIPIENT, headroom=0)]
        relay = ModelRelay("netease", clock, limits)
        relays = ModelRelays(relay)
        async with sending(tmp_path, clock, relays) as made:
            await made.accept(*messages(3, to=("a@example.org",)), *messages(2, first=10, to=("b@example.org",)))
            await until(clock, lambda: len(relay.started) == 3, at_most=3)
            await until(clock, lambda: clock.now() >= EPOCH + 3000, at_most=10)
            views = await made.store.list_messages("acme", MessageFilter(status="queued"), 10, None)
            given: object = relays
            seen = await look(made.store, given, clock.now(), views)  # type: ignore[arg-type]
            held = {each.recipients[0].email: seen.held_by(each, each.recipients[0]) for each in views}
            of_recipient, of_relay = held["a@example.org"], held["b@example.org"]
            assert of_recipient is not None
            assert of_relay is not None
            assert (of_recipient.reason, of_recipient.relay) == ("quota", "netease")
            assert of_recipient.quota == "2/h per recipient"
            assert (of_relay.reason, of_relay.quota) == ("quota", "4/h")
            for each in (of_recipient, of_relay):
                assert each.until is not None
                assert EPOCH + HOUR < each.until < EPOCH + HOUR + 4000
            await until(clock, lambda: len(relay.started) == 5, at_most=3610)
            assert relay.started[3][0] >= min(of_relay.until or 0, of_recipient.until or 0)

    virtually(main)


def test_what_is_given_back_before_mail_from_does_not_count(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        limits = [quota("2/h", headroom=0)]
        relay = ModelRelay("r", clock, limits, connections=1, takes=lambda: 20.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(3))
            await until(clock, lambda: clock.now() >= EPOCH + 1000, at_most=5)
            (use,) = await made.store.quota_use(limits, clock.now())
            assert (use.used, use.in_flight) == (2, 2), "one on the connection, one ahead of it"
            relay.give_back_waiting()
            await until(clock, lambda: len(relay.started) == 2, at_most=60)
            await until(clock, lambda: clock.now() >= EPOCH + 300_000, at_most=400)
            assert await sent(made) == 2

    virtually(main)


def test_what_is_given_back_ends_the_hold(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, [quota("3/h", headroom=0)], connections=2, takes=lambda: 20.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(6))
            await until(clock, lambda: clock.now() >= EPOCH + 1000, at_most=5)
            relay.give_back_waiting()
            await until(clock, lambda: len(relay.started) == 3, at_most=60)

    virtually(main)


class CreepingClock(VirtualClock):
    """Time passes between any two looks at it."""

    def now(self) -> int:
        self.step(0.0004)
        return super().now()


def test_what_a_quota_lets_go_between_two_looks_at_the_clock_does_not_wait_for_the_next_poll(tmp_path: Path) -> None:
    count, a_second = 200, 5
    ideal = count / a_second - 1

    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, [quota(f"{a_second}/s", guard=0, headroom=0)], takes=lambda: 0.001)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(count))
            await until(clock, lambda: len(relay.started) == count, at_most=3 * ideal)
            took = (relay.started[-1][0] - relay.started[0][0]) / 1000
            assert took < 1.1 * ideal

    virtually(main, CreepingClock())
