"""Claims whose commit got no answer: it may have happened, and nobody works on their attempts.

Heartbeats would keep such attempts alive for as long as their process lives. What was to be claimed is known, so it is given
back, uncharged, once the store can write again and before anything else is claimed. What was not claimed after all is
not there to be given back. Pure: which store writes it, and how, is not known here.
"""

from collections.abc import Iterable, Sequence

from service.mail.lifecycle import Event
from service.store.values import Delivery, RecipientSettlement, Settlement


class Unanswered:
    """The claims of one process about which the store has not said what became of them."""

    def __init__(self) -> None:
        self._claims: dict[int, tuple[Delivery, int, str]] = {}  # by attempt: what, when (ms), by which holder

    def add(self, deliveries: Iterable[Delivery], now: int, holder: str) -> None:
        """They are about to be committed. now: ms."""
        for each in deliveries:
            self._claims[each.attempt] = each, now, holder

    def forget(self, attempts: Iterable[int]) -> None:
        """It is known what became of these attempts."""
        for attempt in attempts:
            self._claims.pop(attempt, None)

    def given_back(self) -> Sequence[tuple[str, Settlement]]:
        """What closes each, with the holder who was to have it."""
        return [(holder, _given_back(delivery, now)) for delivery, now, holder in self._claims.values()]


def _given_back(delivery: Delivery, now: int) -> Settlement:
    text = "the database did not say whether it was claimed"
    results = [
        RecipientSettlement(each.n, Event.NOT_STARTED, "not-started", "claim", False, now, text=text)
        for each in delivery.recipients
    ]
    return Settlement(
        delivery.attempt, delivery.id, delivery.account, now, "not_started", results, detail="lost claim", unspent=True
    )
