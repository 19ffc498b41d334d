"""Mail of priority high needs no place in the line: it is the next to start, however much waits."""

from pathlib import Path

from service.mail.quota import HIGH
from service.store.values import NewMessage
from tests.support.clock import EPOCH
from tests.support.sending import ModelRelay, ModelRelays, quota, sending, until
from tests.support.store_data import new_message
from tests.support.virtual import VirtualClock, virtually

NORMAL, CONNECTIONS = 1, 2
CONTENT = (
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nFrom: news@example.com\r\nTo: ada@example.org\r\n"
    b"Message-ID: <%d@example.com>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"
)


def messages(first: int, count: int, priority: int = NORMAL) -> list[NewMessage]:
    """Due at once."""
    return [
        new_message(n, created_at=EPOCH, due_at=EPOCH, content=(CONTENT % n,), priority=priority)
        for n in range(first, first + count)
    ]


def test_an_urgent_message_is_the_next_to_start_though_every_place_is_taken(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, connections=CONNECTIONS, takes=lambda: 10.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(1, 50))
            await until(clock, lambda: (relay.free(0), relay.ahead(0)) == (0, 0), at_most=5)
            await made.accept(*messages(60, 1, HIGH))
            await until(clock, lambda: len(relay.started) >= 2 * CONNECTIONS, at_most=30)
            order = [priority for _, priority in relay.started]
            assert order[:CONNECTIONS] == [NORMAL] * CONNECTIONS
            assert HIGH in order[CONNECTIONS : 2 * CONNECTIONS]

    virtually(main)


def test_a_second_urgent_message_waits_until_the_first_has_gone(tmp_path: Path) -> None:
    """One place is kept, so that urgent mail in masses is leased no earlier than it can start."""

    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, connections=CONNECTIONS, takes=lambda: 10.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(1, 50))
            await until(clock, lambda: (relay.free(0), relay.ahead(0)) == (0, 0), at_most=5)
            await made.accept(*messages(60, 10, HIGH))
            await until(clock, lambda: not relay.spare(0), at_most=5)
            counts = (await made.store.stats(EPOCH)).counts
            assert counts["sending"] == 2 * CONNECTIONS + 1

    virtually(main)


def test_a_quota_holds_urgent_mail_too_and_nothing_is_asked_in_a_circle(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, [quota("4/m", headroom=0)], connections=CONNECTIONS, takes=lambda: 10.0)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            await made.accept(*messages(1, 20))
            await until(clock, lambda: (relay.free(0), relay.ahead(0)) == (0, 0), at_most=5)
            asked = made.claims["r"]
            await made.accept(*messages(60, 1, HIGH))
            await until(clock, lambda: len(relay.started) >= 5, at_most=120)
            assert relay.started[4][1] == HIGH
            assert made.claims["r"] - asked < 10

    virtually(main)
