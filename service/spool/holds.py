"""Which relays have used up a quota, and until when: the dispatcher's memory of what claims answered.

It only saves questions to the store, which alone counts: a relay is not asked before its time, however much mail waits
for it, and mail of priority high may go where the other must wait. A hold that was learnt at a time that is yet to come
is over: the clock was set back since, and only the store knows what that leaves of the quota.
"""

from collections.abc import Iterable

from service.store.values import Held


class Holds:
    """By relay: since and until when (ms) nothing may go, or nothing but priority high."""

    def __init__(self) -> None:
        self._spans: dict[str, dict[int, tuple[int, int]]] = {}

    def learn(self, held: Iterable[Held], now: int) -> None:
        """What a claim said, which was made until `now` (ms)."""
        for hold in held:
            self._spans.setdefault(hold.relay, {})[hold.priority] = now, hold.until

    def held(self, relay: str, priority: int, now: int) -> bool:
        """Whether mail of this priority waits for a quota of the relay."""
        spans = self._spans.get(relay, {}).items()
        return any(since <= now < until and priority >= least for least, (since, until) in spans)

    def next_end(self, now: int) -> int | None:
        """When the first hold ends (ms); what is over is forgotten."""
        self._spans = {
            relay: left
            for relay, holds in self._spans.items()
            if (left := {least: span for least, span in holds.items() if span[0] <= now < span[1]})
        }
        return min((until for holds in self._spans.values() for _, until in holds.values()), default=None)

    def forget(self, relay: str) -> None:
        """Something of its quotas was given back."""
        self._spans.pop(relay, None)
