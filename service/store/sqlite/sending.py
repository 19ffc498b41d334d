"""What a sender writes down while it sends: results, and marks that a content is about to start; many in one call.

Results come first: what was asked for later is not durable before them, and a mark is for a delivery of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.store.sqlite.settle import settle_all
from service.store.sqlite.transaction import Transaction
from service.store.values import Settlement


@dataclass(slots=True)
class Mark:
    """The content of a delivery is about to start."""

    attempt: int
    now: int  # ms


def write_down(transaction: Transaction, works: Sequence[Settlement | Mark]) -> list[int]:
    """See Store.settle and Store.start_content: the rows that each changed."""
    settlements = [each for each in works if isinstance(each, Settlement)]
    settled = iter(settle_all(transaction, settlements) if settlements else [])
    marks = [(each.now, each.attempt) for each in works if isinstance(each, Mark)]
    marked = {attempt for (attempt,) in transaction.each("start_content: mark", marks)} if marks else set()
    return [next(settled) if isinstance(each, Settlement) else int(each.attempt in marked) for each in works]
