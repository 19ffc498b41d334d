"""With many relays only those are asked that due mail may go by."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.support.clock import EPOCH
from tests.support.sending import ModelRelay, ModelRelays, sending, until
from tests.support.store_data import new_message
from tests.support.virtual import VirtualClock, virtually

MESSAGES = 40
CONTENT = (
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nFrom: news@example.com\r\nTo: ada@example.org\r\n"
    b"Message-ID: <%d@example.com>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"
)


class Counted(ModelRelay):
    """Tells how often it was asked for its free slots."""

    asked = 0

    def free(self, now: int) -> int:
        self.asked += 1
        return super().free(now)


class Pinned(ModelRelays):
    """A message goes by the relay that it names."""

    def candidates(self, sender: str, pinned: str | None, needs: Sequence[str] = ()) -> tuple[ModelRelay, ...]:
        return (self.get(pinned or ""),)


def test_a_relay_without_mail_is_not_asked_for_its_free_slots(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        busy, others = Counted("busy", clock), [Counted(f"r{number}", clock) for number in range(30)]
        async with sending(tmp_path, clock, Pinned(busy, *others)) as made:
            for number in range(1, MESSAGES + 1):
                one = new_message(number, created_at=EPOCH, due_at=EPOCH, content=(CONTENT % number,))
                await made.accept(replace(one, route="acme|busy|", relay="busy"))
            await until(clock, lambda: len(busy.started) == MESSAGES, at_most=60)
        assert busy.asked > 0
        # a full relay in front makes the dispatcher look for any that has room, and the first of them is enough
        assert sum(each.asked for each in others) <= busy.asked
        assert all(each.asked == 0 for each in others[1:])

    virtually(main)
