"""Quotas as rows of SQLite: store/quotas.py decides, here they are read when they are met and written once, in the
caller's one transaction.
"""

import json
from collections.abc import Callable
from typing import Any

from service.mail.quota import Quota
from service.store import quotas
from service.store.limiter import Takes
from service.store.quotas import Quotas
from service.store.sqlite.transaction import Transaction
from service.store.values import QuotaUse


def quotas_of(transaction: Transaction, now: int) -> Quotas:
    """The quotas that a claim in this transaction meets."""
    return Quotas(lambda bucket: _state(transaction.one, bucket), now)


def write_quotas(transaction: Transaction, met: Quotas) -> None:
    """Put down what was taken."""
    for bucket, takes in met.changed():
        _write(transaction, bucket, takes)


def close_taken(transaction: Transaction, taken: str, now: int, *, spent: bool) -> None:
    """What an attempt took counts from `now` on, or is given back."""
    for bucket, cost in json.loads(taken):
        if (state := _state(transaction.one, bucket)) is not None:
            takes = Takes.unpack(state)
            takes.close(cost, now, spent=spent)
            _write(transaction, bucket, takes)


def _state(one: Callable[[str, Any], Any], bucket: str) -> bytes | None:
    row = one("accept: find limit", {"bucket": bucket})
    return row[1] if row else None


def _write(transaction: Transaction, bucket: str, takes: Takes) -> None:
    transaction.run("accept: limit", {"bucket": bucket, "state": takes.pack(), "idle_after": takes.idle_after})


def use_of(quota: Quota, one: Callable[[str, Any], Any], now: int) -> QuotaUse:
    """How much of it is taken. `one` runs a named statement and answers its first row."""
    return quotas.use_of(quota, _state(one, quota.bucket()), now)
