"""Limiters and quotas as rows: held in one order until the end of the transaction, decided in memory, written once."""

import json
from collections.abc import Iterable, Mapping, Sequence

from service.store.limiter import Takes
from service.store.postgres.session import Rows
from service.store.postgres.statements import Statement, statement


def hold(buckets: Iterable[str]) -> list[Statement]:
    """Statements that hold these limiters, the new ones included, and tell their states; none for none."""
    ordered = sorted(set(buckets))  # one order for everybody: two that need the same ones can't wait for each other
    if not ordered:
        return []
    return [
        statement("accept: lock limits", {"buckets": ordered}),
        statement("accept: find limits", {"buckets": ordered}),
    ]


def states_of(rows: Rows) -> dict[str, bytes]:
    """What `hold` found; a limiter that was made by holding it has no state yet."""
    return {bucket: state for bucket, state in rows if state}


def write(states: Mapping[str, tuple[bytes, int]]) -> list[Statement]:
    """Statements that write states, each with the moment after which it is idle."""
    if not states:
        return []
    ordered = sorted(states)
    bindings = {
        "buckets": ordered,
        "states": [states[bucket][0] for bucket in ordered],
        "idle_after": [states[bucket][1] for bucket in ordered],
    }
    return [statement("accept: limits", bindings)]


def buckets_of(taken: Iterable[str | None]) -> set[str]:
    """The quotas that closed attempts took something of."""
    return {bucket for text in taken if text for bucket, _ in json.loads(text)}


def close_taken(states: dict[str, bytes], closed: Sequence[tuple[str, int, bool]]) -> set[str]:
    """What attempts took counts from their end on, or is given back. `closed`: taken, end (ms), spent.

    Changes `states`; answers which of them.
    """
    open_now: dict[str, Takes] = {}
    for text, at, spent in closed:
        for bucket, cost in json.loads(text):
            if bucket in states:
                takes = open_now.setdefault(bucket, Takes.unpack(states[bucket]))
                takes.close(cost, at, spent=spent)
    states.update({bucket: takes.pack() for bucket, takes in open_now.items()})
    return set(open_now)


def idle_after(state: bytes) -> int:
    """When a quota's row can go (ms)."""
    return Takes.unpack(state).idle_after
