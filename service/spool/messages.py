"""What can be asked of, and done to, messages that were accepted: look, wait, move, cancel, retry, erase."""

import asyncio
from collections.abc import Sequence

from service.clock import Clock
from service.errors import ContentPurged, NotCancelable, NotFound, NotReschedulable, NotRetryable
from service.mail.compose import redate
from service.mail.lifecycle import OPEN, PENDING, message_status
from service.relay.port import Relays
from service.settings import Settings
from service.spool.signals import Signals
from service.spool.waiting import Look, look
from service.store.port import Store
from service.store.shown import EventView, MessageFilter, MessageView

_CANCEL_LIMIT = 1000  # messages in one transaction of a cancel by filter
_POLL = 0.5  # seconds; a sender in another process gives no hint


class Messages:
    """Use cases on accepted messages. All take the account first: another account's id is not found."""

    def __init__(self, settings: Settings, clock: Clock, store: Store, relays: Relays, signals: Signals) -> None:
        self._settings, self._clock, self._store = settings, clock, store
        self._relays, self._signals = relays, signals

    async def get(self, account: str, id: str) -> MessageView:
        """Raises NotFound."""
        view = await self._store.get_message(account, id)
        if view is None:
            raise NotFound
        return view

    def status(self, view: MessageView) -> str:
        """The computed status of a message (mail/lifecycle)."""
        later = view.scheduled_at is not None and view.scheduled_at > self._clock.now()
        return message_status((each.state for each in view.recipients), due_later=later)

    async def look(self, views: Sequence[MessageView]) -> Look:
        """What holds the waiting recipients of these messages back (spool/waiting)."""
        return await look(self._store, self._relays, self._clock.now(), views)

    async def list(
        self, account: str, where: MessageFilter, limit: int, after: str | None
    ) -> tuple[Sequence[MessageView], str | None]:
        """One page, newest first, and the cursor of the next one if there is more."""
        found = await self._store.list_messages(account, where, limit + 1, after)
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    async def events(self, account: str, id: str) -> Sequence[EventView]:
        """The delivery log, oldest first."""
        await self.get(account, id)
        return await self._store.list_events(account, id)

    async def raw(self, account: str, id: str) -> bytes:
        """The composed bytes. Raises ContentPurged when they are gone."""
        return b"".join(await self._content(account, id))

    async def _content(self, account: str, id: str) -> tuple[bytes, ...]:
        await self.get(account, id)
        content = await self._store.get_content(account, id)
        if content is None:
            raise ContentPurged
        return content

    async def reschedule(self, account: str, id: str, at: int) -> MessageView:
        """Move a message that is still scheduled; its Date header moves with it."""
        view = await self.get(account, id)
        if self.status(view) != "scheduled":
            raise NotReschedulable
        content = redate(await self._content(account, id), at)
        if not await self._store.reschedule(account, id, at, content, self._clock.now()):
            raise NotReschedulable
        for recipient in view.recipients:
            if recipient.state in PENDING:
                self._signals.queued(view.route, view.priority, at)
                break
        return await self.get(account, id)

    async def cancel(self, account: str, id: str) -> MessageView:
        """Cancel what waits. Raises NotCancelable when nothing does."""
        await self.get(account, id)
        if not await self._store.cancel(account, id, self._clock.now()):
            raise NotCancelable
        self._signals.moved(id)
        return await self.get(account, id)

    async def cancel_where(self, account: str, where: MessageFilter) -> Sequence[str]:
        """Cancel all that matches and waits, in transactions of 1,000; the ids that were changed."""
        canceled: list[str] = []
        while batch := await self._store.cancel_where(account, where, self._clock.now(), _CANCEL_LIMIT):
            canceled += batch
            for id in batch:
                self._signals.moved(id)
            if len(batch) < _CANCEL_LIMIT:
                break
        return canceled

    async def retry(self, account: str, id: str) -> MessageView:
        """Queue again what ended badly, with a fresh ttl; not before its schedule. Raises NotRetryable, ContentPurged."""
        view = await self.get(account, id)
        await self._content(account, id)
        now = self._clock.now()
        ttl = view.expires_at - max(view.created_at, view.scheduled_at or 0)
        due = max(now, view.scheduled_at or 0)  # its Date is the schedule's
        until = max(self._clock.told(), due) + ttl
        if not await self._store.retry(account, id, now, due, until):
            raise NotRetryable
        self._signals.queued(view.route, view.priority, due)
        return await self.get(account, id)

    async def erase(self, account: str, id: str) -> None:
        """Cancel what waits and erase the content; the delivery log stays."""
        if not await self._store.erase(account, id, self._clock.now()):
            raise NotFound
        self._signals.moved(id)

    async def wait(self, account: str, id: str, seconds: float) -> MessageView:
        """The message once no recipient is open any more, or as it is after `seconds`, or when the process stops."""
        deadline = self._clock.monotonic() + min(seconds, self._settings.max_wait)
        event = self._signals.watch(id)
        try:
            while True:
                event.clear()
                view = await self.get(account, id)
                left = deadline - self._clock.monotonic()
                over = left <= 0 or self._signals.stopping
                if over or not any(each.state in OPEN for each in view.recipients):
                    return view
                await _set_within(event, min(left, _POLL))
        finally:
            self._signals.unwatch(id, event)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
