"""Relays that lately ended a fresh session before its first message was taken: for a while others are asked first.

A relay that is at fault for sure rests; its pool sees to that. This is about one that says 421 to each MAIL or drops
each connection: the verdict is on the connection, nothing rests, and the next connection ends in the same way. A
message that may go by another relay need not pay for finding that out. Where there is no other nothing changes.
"""

from collections.abc import Sequence

from service.mail.lifecycle import Event
from service.mail.outcome import Scope, Verdict
from service.relay.port import Report


class Avoided:
    """By relay, until when (ms) it is asked last. lasts: seconds; by then its trouble may be over, and one message is
    enough to see.
    """

    def __init__(self, lasts: float) -> None:
        self._lasts = int(lasts * 1000)
        self._until: dict[str, int] = {}

    def learn(self, relay: str, report: Report, verdicts: Sequence[Verdict], now: int) -> None:
        """What a transaction says of it. An older session says nothing: those are ended for their age."""
        if any(verdict.event is Event.ACCEPTED for verdict in verdicts):
            self._until.pop(relay, None)
        elif report.served == 1 and any(verdict.scope is Scope.CONNECTION for verdict in verdicts):
            self._until[relay] = now + self._lasts

    def last(self, relays: Sequence[str], now: int) -> Sequence[str]:
        """The same relays in the same order, but those to be avoided behind the others."""
        if not self._until:
            return relays
        # an end that is further away than any was told by a clock that was ahead
        return sorted(relays, key=lambda name: now < self._until.get(name, now) <= now + self._lasts)
