"""What happens without a sender: orphaned attempts are closed as in doubt, and what waited too long expires."""

from collections.abc import Callable, Sequence
from typing import Any

from service.mail.lifecycle import Event, State
from service.mail.outcome import Action, Scope
from service.store.port import RecipientSettlement, RescuePolicy, Settlement
from service.store.sqlite.accept import SPAN
from service.store.sqlite.settle import close, end_waiting, settle
from service.store.sqlite.writer import Steps, Transaction


def rescue(
    transaction: Transaction, now: int, policy: RescuePolicy, dead: Callable[[Sequence[str]], set[str]]
) -> Steps[int]:
    """See Store.rescue. `dead` tells which holders are known to have died."""
    holders = [holder for (holder,) in transaction.run("rescue: holders")]
    gone = dead(holders)
    rescued = 0
    for holder in holders:
        before = 2**62 if holder in gone else now
        for orphan in transaction.run("rescue: orphans", (holder, before)).fetchall():
            _rescue_attempt(transaction, orphan, now, policy)
            rescued += 1
            yield
    return rescued


def _rescue_attempt(transaction: Transaction, orphan: tuple[Any, ...], now: int, policy: RescuePolicy) -> None:
    attempt, seq, content_started_at, ahead, id, account, delivery, kills, expires_at = orphan
    transaction.run("rescue: kill", (seq,))
    untouched = (delivery == "at_most_once" or ahead) and content_started_at is None
    poison = kills + 1 >= policy.max_kills
    due_at = min(now + int(policy.in_doubt_delay * 1000), expires_at)
    results: list[RecipientSettlement] = []
    rows = transaction.run("rescue: recipients", {"first": seq * SPAN, "attempt": attempt}).fetchall()
    for rid, in_doubt, _ in rows:
        n, kind, text = rid % SPAN, "in-doubt", "the sender died or lost its lease before the result was recorded"
        if poison:
            event, action, charged, due, doubt = Event.FAULT, Action.FAILED, True, None, not untouched
            kind = "poison"
        elif untouched:
            event, action, charged, due, doubt = Event.NOT_STARTED, Action.BACK, False, now, False
            kind = "not-started"
        elif delivery == "at_most_once" or in_doubt >= policy.max_in_doubt:
            event, action, charged, due, doubt = Event.PARK, Action.DOUBT, True, None, True
        else:
            event, action, charged, due, doubt = Event.IN_DOUBT, Action.DOUBT, True, due_at, True
        whose, done = Scope.MESSAGE.value, action.value
        results.append(
            RecipientSettlement(n, event, kind, "rescue", charged, due, doubt, text=text, scope=whose, action=done)
        )
    result = "not_started" if untouched and not poison else "in_doubt"
    settle(transaction, Settlement(attempt, id, account, now, result, results, detail="rescued"))


def expire(transaction: Transaction, now: int, limit: int) -> Steps[int]:
    """See Store.expire."""
    rows = transaction.run("expire: due", (now, limit)).fetchall()
    for rid, state in rows:
        end_waiting(transaction, rid, State(state), Event.EXPIRE, "ttl is over", now)
        close(transaction, rid // SPAN, now)
        yield
    return len(rows)
