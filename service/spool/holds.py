"""Which relays have used up a quota, and until when: the dispatcher's memory of what claims answered.

It only saves questions to the store, which alone counts: a relay is not asked before its time, however much mail waits
for it, and mail of priority high may go where the other must wait.
"""

from collections.abc import Iterable

from service.store.values import Held


class Holds:
    """By relay: until when (ms) nothing may go, and until when nothing but priority high."""

    def __init__(self) -> None:
        self._until: dict[str, dict[int, int]] = {}

    def learn(self, held: Iterable[Held]) -> None:
        """What a claim said."""
        for hold in held:
            self._until.setdefault(hold.relay, {})[hold.priority] = hold.until

    def held(self, relay: str, priority: int, now: int) -> bool:
        """Whether mail of this priority waits for a quota of the relay."""
        return any(until > now and priority >= least for least, until in self._until.get(relay, {}).items())

    def next_end(self, now: int) -> int | None:
        """When the first hold ends (ms); what is over is forgotten."""
        self._until = {
            relay: left
            for relay, holds in self._until.items()
            if (left := {least: until for least, until in holds.items() if until > now})
        }
        return min((until for holds in self._until.values() for until in holds.values()), default=None)

    def forget(self, relay: str) -> None:
        """Something of its quotas was given back."""
        self._until.pop(relay, None)
