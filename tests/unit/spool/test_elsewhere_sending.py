"""The dispatcher with a relay that can't carry a message: the next one has it at once, and each log line names the verdict."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply
from service.mail.route import unfit_for
from service.relay.port import Outgoing, RecipientResult, Report
from service.spool.elsewhere import Elsewhere
from service.store.shown import MessageView
from service.store.values import NewMessage
from tests.support.clock import EPOCH
from tests.support.sending import ModelRelay, ModelRelays, sending
from tests.support.store_data import new_message
from tests.support.virtual import VirtualClock, virtually


class Lacking(ModelRelay):
    """It does not offer what any message needs."""

    asked = 0

    def _end(self, outgoing: Outgoing, reply: Reply, done: Callable[[Report], None]) -> None:
        def told(report: Report) -> None:
            self.asked += 1
            results = [
                RecipientResult(Phase.MAIL, failure=Failure.CAPABILITY, detail="no SMTPUTF8") for _ in report.results
            ]
            done(Report(results, mail_started=False, content_started=False))

        super()._end(outgoing, reply, told)


class Remembered(ModelRelays):
    """Those that were found unable are not asked again."""

    def candidates(self, sender: str, pinned: str | None, needs: Sequence[str] = ()) -> tuple[ModelRelay, ...]:
        return tuple(each for each in self._relays.values() if not unfit_for(needs, each.name))


CONTENT = (
    b"Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nFrom: news@example.com\r\nTo: ada@example.org\r\n"
    b"Message-ID: <1@example.com>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"
)


def message() -> NewMessage:
    return new_message(1, created_at=EPOCH, due_at=EPOCH, size=len(CONTENT), content=(CONTENT,))


async def ended(folder: Path, clock: VirtualClock, *relays: ModelRelay) -> tuple[MessageView, float]:
    """The message at its end, and how many seconds that took."""
    async with sending(folder, clock, Remembered(*relays)) as made:
        began = clock.monotonic()
        await made.accept(message())
        while (view := await made.store.get_message("acme", message().id)) is None or view.closed_at is None:
            assert clock.monotonic() - began < 30, "it takes too long"
            await asyncio.sleep(0.01)  # of the clock that jumps
        return view, clock.monotonic() - began


def test_the_next_relay_has_it_before_the_next_look_at_the_queue(tmp_path: Path) -> None:
    asked: list[int] = []

    async def main(clock: VirtualClock) -> tuple[MessageView, float]:
        first = Lacking("a", clock, takes=lambda: 0.01)
        found = await ended(tmp_path, clock, first, ModelRelay("b", clock, takes=lambda: 0.01))
        asked.append(first.asked)
        return found

    with capture_logs() as lines:
        view, took = virtually(main)
    assert [(each.state, each.relay, each.attempts) for each in view.recipients] == [("sent", "b", 1)]
    assert asked == [1]
    assert took < 0.5, "the queue is looked at once a second"
    (line,) = [line for line in lines if line["event"] == "delivery.elsewhere"]
    assert {key: line[key] for key in ("relay", "kind", "scope", "action", "detail")} == {
        "relay": "a", "kind": "not-offered", "scope": "message", "action": "ELSEWHERE", "detail": "no SMTPUTF8",
    }  # fmt: skip


def test_the_end_of_it_is_an_alert_that_names_class_scope_and_action(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> tuple[MessageView, float]:
        return await ended(tmp_path, clock, Lacking("a", clock), Lacking("b", clock))

    with capture_logs() as lines:
        view, _ = virtually(main)
    (recipient,) = view.recipients
    assert (recipient.state, recipient.last_kind) == ("failed", "no-relay")
    assert recipient.last_text == "no relay can carry this message: a: no SMTPUTF8; b: no SMTPUTF8"
    (line,) = [line for line in lines if line["event"] == "alert.reply"]
    assert (line["relay"], line["kind"], line["scope"], line["action"]) == ("b", "no-relay", "message", "FAILED")


def test_it_ends_though_the_reasons_can_not_be_told(tmp_path: Path, monkeypatch: Any) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def main(clock: VirtualClock) -> tuple[MessageView, float]:
        return await ended(tmp_path, clock, Lacking("a", clock))

    monkeypatch.setattr(Elsewhere, "told", broken)
    view, _ = virtually(main)
    assert [(each.state, each.last_text) for each in view.recipients] == [("failed", "no SMTPUTF8")]
