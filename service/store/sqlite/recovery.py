"""What is put right after the file was reopened, before anything else is written: claims whose commit was refused.

A commit that was refused may stand in the file nevertheless, as when the file was gone for a moment and came back. Its
attempts carry our name, so heartbeats would renew them, and nobody sends them. Numbers of attempts that were not committed
are given to others; so an attempt is closed only if it is open and its holder is the one who claimed it.
"""

from collections.abc import Callable, Sequence
from functools import partial

from service.store.sqlite.settle import settle
from service.store.sqlite.transaction import Transaction
from service.store.unanswered import Unanswered
from service.store.values import Settlement


class Recovery:
    """Implements writer.Recovery."""

    def __init__(self, unanswered: Unanswered) -> None:
        self._unanswered = unanswered

    def works(self) -> Sequence[Callable[[Transaction], int]]:
        """One for each claim that is not known to have happened or not."""
        return [partial(_give_back, holder, settlement) for holder, settlement in self._unanswered.given_back()]

    def done(self) -> None:
        """They are committed: nothing is unknown any more."""
        self._unanswered.forget([settlement.attempt for _, settlement in self._unanswered.given_back()])


def _give_back(holder: str, settlement: Settlement, transaction: Transaction) -> int:
    if transaction.one("claim: of holder", (settlement.attempt, holder)) is None:
        return 0
    return settle(transaction, settlement)
