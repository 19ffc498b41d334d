"""What happens without a sender: orphaned attempts are closed as in doubt, and what waited too long expires."""

from collections.abc import Callable, Sequence

from service import failpoints
from service.mail.lifecycle import Event, State
from service.store.orphans import Orphan, settle_orphan
from service.store.sqlite.settle import close, end_waiting, settle
from service.store.sqlite.transaction import BROKEN, Steps, Transaction
from service.store.values import RescuePolicy
from service.store.views import SPAN
from service.telemetry import Log, get_logger

log = get_logger()


def rescue(
    transaction: Transaction,
    now: int,
    told: int,
    policy: RescuePolicy,
    dead: Callable[[Sequence[str]], set[str]],
    *,
    spare_living: bool,
) -> Steps[int]:
    """See Store.rescue. `dead` tells which holders are known to have died, others are left alone if `spare_living`."""
    holders = [holder for (holder,) in transaction.run("rescue: holders") if holder != policy.holder]
    gone = dead(holders)
    rescued = 0
    for holder in holders:
        before = 2**62 if holder in gone else 0 if spare_living else told
        for orphan in transaction.run("rescue: orphans", (holder, before)).fetchall():
            rescued += _rescue_alone(transaction, Orphan(*orphan), now, policy)
            yield 1
    return rescued


def _rescue_alone(transaction: Transaction, orphan: Orphan, now: int, policy: RescuePolicy) -> int:
    """1, or 0 for one that can't be closed by a fault of ours: it must not keep the others from it."""
    try:
        with transaction.apart():
            _rescue_attempt(transaction, orphan, now, policy)
    except BROKEN:
        raise
    except Exception as error:
        log.error(Log.ATTEMPT_FAULT, id=orphan.id, attempt=orphan.attempt, during="rescue", exc_info=error)
        return 0
    return 1


def _rescue_attempt(transaction: Transaction, orphan: Orphan, now: int, policy: RescuePolicy) -> None:
    if orphan.may_have_killed:
        transaction.run("rescue: kill", (orphan.message,))
    failpoints.passed("rescue.within")
    rows = transaction.run("rescue: recipients", {"first": orphan.message * SPAN, "attempt": orphan.attempt}).fetchall()
    held = [(rid % SPAN, in_doubt) for rid, in_doubt, _ in rows]
    settle(transaction, settle_orphan(orphan, held, now, policy))


def expire(transaction: Transaction, now: int, limit: int) -> Steps[int]:
    """See Store.expire."""
    rows = transaction.run("expire: due", (now, limit)).fetchall()
    for rid, state in rows:
        end_waiting(transaction, rid, State(state), Event.EXPIRE, "ttl is over", now)
        close(transaction, rid // SPAN, now)
        yield 1
    return len(rows)
