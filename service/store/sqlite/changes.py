"""What people do to messages: reschedule, cancel, retry, erase; and what retention does."""

from collections.abc import Sequence

from service import failpoints
from service.errors import ContentPurged
from service.mail.lifecycle import Event, State, apply
from service.store.sqlite.contents import forget_content, insert_contents
from service.store.sqlite.settle import close, end_waiting, log_event
from service.store.sqlite.transaction import Steps, Transaction
from service.store.views import SPAN

_LOOK_AGAIN = 3_600_000  # ms: how long a key past its time is left alone while its message is open


def find(transaction: Transaction, account: str, id: str) -> int | None:
    """The row number of an account's message."""
    row = transaction.one("list_messages: cursor", (id, account))
    return row[0] if row else None


def reschedule(transaction: Transaction, account: str, id: str, at: int, content: tuple[bytes, ...], now: int) -> int:
    """See Store.reschedule."""
    if (seq := find(transaction, account, id)) is None:
        return 0
    span = {"first": seq * SPAN}
    waiting, all_open = transaction.one("reschedule: unattempted", {**span, "now": now})
    if not waiting or waiting != all_open:
        return 0
    size = sum(map(len, content))
    (expires_at,) = transaction.one("reschedule: message", {"at": at, "size": size, "seq": seq})
    transaction.run("reschedule: recipients", {**span, "at": at, "expires_at": expires_at, "now": now})
    forget_content(transaction, seq)
    insert_contents(transaction, [(seq, content)])
    log_event(transaction, seq, None, now, "rescheduled", None, {"scheduled_at": at})
    transaction.queued = True
    return int(waiting)


def cancel(transaction: Transaction, seq: int, now: int) -> int:
    """Cancel what waits of one message."""
    waiting = transaction.run("cancel: waiting", {"first": seq * SPAN}).fetchall()
    for rid, state in waiting:
        end_waiting(transaction, rid, State(state), Event.CANCEL, "canceled by request", now)
    if waiting:
        close(transaction, seq, now)
    return len(waiting)


def retry(transaction: Transaction, account: str, id: str, now: int, due_at: int, expires_at: int) -> int:
    """See Store.retry."""
    if (seq := find(transaction, account, id)) is None:
        return 0
    ended = transaction.run("retry: ended", {"first": seq * SPAN}).fetchall()
    if not ended:
        return 0
    if transaction.one("delivery_content: by seq", (seq,)) is None:
        raise ContentPurged
    for rid, state in ended:
        after = apply(State(state), Event.RETRY)
        transaction.run("retry: recipient", (after.value, due_at, expires_at, now, rid))
        transaction.move(State(state), after)
        log_event(transaction, seq, rid % SPAN, now, Event.RETRY.value, None, None)
    transaction.run("retry: message", (expires_at, seq))
    transaction.queued = True
    return len(ended)


def erase(transaction: Transaction, account: str, id: str, now: int) -> bool:
    """See Store.erase."""
    if (seq := find(transaction, account, id)) is None:
        return False
    cancel(transaction, seq, now)
    transaction.run("erase: message", (now, seq))
    forget_content(transaction, seq)
    log_event(transaction, seq, None, now, "erased", None, None)
    return True


def purge_content(transaction: Transaction, now: int, older_than: int, limit: int) -> Steps[int]:
    """See Store.purge_content."""
    closed = transaction.run("purge_content: closed", (older_than, limit)).fetchall()
    for (seq,) in closed:
        forget_content(transaction, seq)
        failpoints.passed("purge.within")
        transaction.run("purge_content: mark", (now, seq))
        yield 1
    return len(closed)


def purge_log(transaction: Transaction, older_than: int, limit: int) -> Steps[int]:
    """See Store.purge_log."""
    closed = transaction.run("purge_log: closed", (older_than, limit)).fetchall()
    for (seq,) in closed:
        _forget(transaction, seq)
        yield 1
    return len(closed)


def _forget(transaction: Transaction, seq: int) -> None:
    span = {"first": seq * SPAN}
    for state, count in transaction.run("purge_log: states", span).fetchall():
        transaction.move(State(state), None, count)
    forget_content(transaction, seq)
    transaction.run("purge_log: recipients", span)
    for table in ("attempts", "events", "tags", "metadata", "message"):
        transaction.run(f"purge_log: {table}", (seq,))


def purge_keys(transaction: Transaction, now: int, closed_before: int, limit: int) -> tuple[int, int]:
    """See Store.purge_keys: (keys that are still needed, rows deleted)."""
    span = {"now": now, "limit": limit}
    transaction.run("purge_keys: postpone", {**span, "closed_before": closed_before, "look_again": now + _LOOK_AGAIN})
    postponed = transaction.changes()
    transaction.run("purge_keys: requests", {**span, "closed_before": closed_before})
    keys = transaction.changes()
    transaction.run("purge_keys: limits", span)
    return postponed, max(keys, transaction.changes())


def cancel_all(transaction: Transaction, seqs: Sequence[int], now: int) -> Steps[list[int]]:
    """Cancel several messages; those that changed."""
    changed: list[int] = []
    for seq in seqs:
        if cancel(transaction, seq, now):
            changed.append(seq)
        yield 1
    return changed
