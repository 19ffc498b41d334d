"""Hints between the loops of one process: mail was queued, a message moved. Only hints: polling stays correct."""

import asyncio
from collections.abc import Callable


class Signals:
    """Who queues tells the dispatcher; who settles wakes whoever waits for that message."""

    def __init__(self) -> None:
        self._queued: list[Callable[[str, int, int, str], None]] = []
        self._coming: list[Callable[[str, int, int], None]] = []
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self.stopping = False

    def on_queued(self, callback: Callable[[str, int, int, str], None]) -> None:
        """`callback(route, priority, due_at, id)` is called for each message that is queued."""
        self._queued.append(callback)

    def queued(self, route: str, priority: int, due_at: int, id: str = "") -> None:
        """A recipient waits on `route`, due at `due_at` (ms). `id`: of its message, where `coming` was told before."""
        for callback in self._queued:
            callback(route, priority, due_at, id)

    def on_coming(self, callback: Callable[[str, int, int], None]) -> None:
        """`callback(route, priority, due_at)` is called for each message that is about to be stored."""
        self._coming.append(callback)

    def coming(self, route: str, priority: int, due_at: int) -> None:
        """Who asks the store now is served behind what is being stored, perhaps in the same commit."""
        for callback in self._coming:
            callback(route, priority, due_at)

    def moved(self, id: str) -> None:
        """Some recipient of message `id` changed its state."""
        if self._waiting:
            for event in self._waiting.get(id, ()):
                event.set()

    def stop(self) -> None:
        """Nothing that waits is sent by this process any more: who waits for it is told what is known, and at once."""
        self.stopping = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    def watch(self, id: str) -> asyncio.Event:
        """An event that is set whenever message `id` moves; give it back with `unwatch`."""
        event = asyncio.Event()
        self._waiting.setdefault(id, []).append(event)
        return event

    def unwatch(self, id: str, event: asyncio.Event) -> None:
        """End a watch."""
        left = [other for other in self._waiting.get(id, ()) if other is not event]
        if left:
            self._waiting[id] = left
        else:
            self._waiting.pop(id, None)
