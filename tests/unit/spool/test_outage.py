"""While the store is away the dispatcher rests: it neither asks nor tells without end, and goes on soon after."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from service.errors import StorageUnavailable
from service.store.values import NewMessage
from tests.support.clock import EPOCH
from tests.support.sending import ModelRelay, ModelRelays, Sending, sending, until
from tests.support.store_data import new_message
from tests.support.virtual import VirtualClock, virtually

CONTENT = (
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nFrom: news@example.com\r\nTo: ada@example.org\r\n"
    b"Message-ID: <%d@example.com>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"
)
AWAY = 20  # seconds


def message(number: int) -> NewMessage:
    """Due at once."""
    return new_message(number, created_at=EPOCH, due_at=EPOCH, content=(CONTENT % number,))


class Gone:
    """What a method of the store is meanwhile."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, *_: Any) -> Any:
        self.asked += 1
        assert self.asked < 1000, "it is asked without end"
        raise StorageUnavailable("Nothing was accepted: it is away.")


async def away(made: Sending, method: str, meanwhile: Callable[[], None]) -> tuple[int, list[Any]]:
    """This method of the store fails for a while; how often it was asked, and what was logged. `meanwhile` is called a
    hundred times a second.
    """
    kept, gone = getattr(made.store, method), Gone()
    setattr(made.store, method, gone)
    with capture_logs() as lines:
        for _ in range(AWAY * 100):
            meanwhile()
            await asyncio.sleep(0.01)
    setattr(made.store, method, kept)
    return gone.asked, lines


def told(lines: Sequence[Any]) -> int:
    return sum(line["event"] == "loop.failed" for line in lines)


def test_in_an_outage_under_load_it_asks_at_most_twice_a_second_tells_it_once_and_mail_flows_soon_after(
    tmp_path: Path,
) -> None:
    """Each request that is refused has hinted at mail before; no hint is a reason to ask again."""

    async def main(clock: VirtualClock) -> None:
        relay = ModelRelay("r", clock, connections=1)
        async with sending(tmp_path, clock, ModelRelays(relay)) as made:
            asked, lines = await away(made, "due_routes", lambda: made.signals.coming(message(1).route, 1, EPOCH))
            assert 2 <= asked <= 2 * AWAY
            assert told(lines) == 1
            await made.accept(message(1))
            await until(clock, lambda: len(relay.started) == 1, at_most=2)

    virtually(main)


def test_a_stop_during_an_outage_ends_the_loop_at_once(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        async with sending(tmp_path, clock, ModelRelays(ModelRelay("r", clock))) as made:
            made.store.due_routes = Gone()  # type: ignore[method-assign]
            made.dispatcher.wake()
            await asyncio.sleep(1.1)
            began = clock.monotonic()
            running = asyncio.create_task(made.dispatcher.run())
            await asyncio.sleep(0.1)
            made.dispatcher.stop_claiming()
            await running
            assert clock.monotonic() - began < 0.2

    virtually(main)
