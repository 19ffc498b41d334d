"""What people do to messages: reschedule, cancel, retry, erase; and what retention does.

Each is a transaction that holds the messages first, so that no sender and no other replica moves their recipients.
"""

from collections.abc import Sequence

from service import failpoints
from service.errors import ContentPurged
from service.mail.lifecycle import Event, State, apply
from service.store.layout import lay_out
from service.store.log import event_text
from service.store.postgres.contents import forget_contents, keep_blobs, keep_contents
from service.store.postgres.settle import end_waiting, event_row, log_events
from service.store.postgres.statements import Statement, statement
from service.store.postgres.transaction import Transaction
from service.store.views import SPAN

_LOOK_AGAIN = 3_600_000  # ms: how long a key past its time is left alone while its message is open
_SILENCE = 2 * 86_400_000  # ms: after which a process that holds nothing is forgotten
_PURGED_TOGETHER = 100  # messages of one transaction


async def hold(transaction: Transaction, account: str, id: str) -> int | None:
    """The row number of an account's message, held."""
    rows = await transaction.ask("reschedule: message of", {"id": id, "account": account})
    return rows[0][0] if rows else None


async def reschedule(
    transaction: Transaction, account: str, id: str, at: int, content: tuple[bytes, ...], now: int
) -> int:
    """See Store.reschedule."""
    if (seq := await hold(transaction, account, id)) is None:
        return 0
    span = {"first": seq * SPAN}
    ((waiting, all_open),) = await transaction.ask("reschedule: unattempted", {**span, "now": now})
    if not waiting or waiting != all_open:
        return 0
    size = sum(map(len, content))
    ((expires_at,),) = await transaction.ask("reschedule: message", {"at": at, "size": size, "seq": seq})
    moved = statement("reschedule: recipients", {**span, "at": at, "expires_at": expires_at, "now": now})
    await forget_contents(transaction, [seq])
    laid = [(seq, lay_out(content))]
    data = event_text({"scheduled_at": at})
    event = log_events([event_row(seq, None, now, "rescheduled", None, data)])
    transaction.queued = True
    await transaction.commit(moved, *keep_blobs(laid), *keep_contents(laid), *event)
    return int(waiting)


async def _cancel(transaction: Transaction, seqs: Sequence[int], now: int) -> tuple[list[Statement], list[int]]:
    """Statements that cancel what waits of messages that are held, and the recipients that they change."""
    rows = await transaction.ask("cancel: waiting", {"seqs": list(seqs)})
    ends = [(rid, State(state), Event.CANCEL, "canceled by request") for rid, state in rows]
    return end_waiting(transaction, ends, now), [rid for rid, _ in rows]


async def cancel(transaction: Transaction, account: str, id: str, now: int) -> int:
    """See Store.cancel."""
    if (seq := await hold(transaction, account, id)) is None:
        return 0
    statements, changed = await _cancel(transaction, [seq], now)
    await transaction.commit(*statements)
    return len(changed)


async def cancel_all(transaction: Transaction, seqs: Sequence[int], now: int) -> set[int]:
    """Cancel several messages; those that changed."""
    await transaction.ask("cancel_where: messages", {"seqs": list(seqs)})
    statements, changed = await _cancel(transaction, seqs, now)
    await transaction.commit(*statements)
    return {rid // SPAN for rid in changed}


async def retry(transaction: Transaction, account: str, id: str, now: int, due_at: int, expires_at: int) -> int:
    """See Store.retry."""
    if (seq := await hold(transaction, account, id)) is None:
        return 0
    ended, bytes_there = await transaction.run(
        statement("retry: ended", {"first": seq * SPAN}), statement("retry: bytes", {"seq": seq})
    )
    if not ended:
        return 0
    if not bytes_there:
        raise ContentPurged
    rows, events = [], []
    for rid, state in ended:
        after = apply(State(state), Event.RETRY)
        transaction.move(State(state), after)
        rows.append({"rid": rid, "state": after.value})
        events.append(event_row(seq, rid % SPAN, now, Event.RETRY.value, None, None))
    transaction.queued = True
    times = {"due_at": due_at, "expires_at": expires_at, "now": now}
    moved = statement("retry: recipient", {"rows": rows, **times})
    opened = statement("retry: message", {"expires_at": expires_at, "seq": seq})
    await transaction.commit(moved, opened, *log_events(events))
    return len(ended)


async def erase(transaction: Transaction, account: str, id: str, now: int) -> bool:
    """See Store.erase."""
    if (seq := await hold(transaction, account, id)) is None:
        return False
    statements, _ = await _cancel(transaction, [seq], now)
    await transaction.run(*statements, statement("erase: message", {"now": now, "seq": seq}))
    await forget_contents(transaction, [seq])
    await transaction.commit(*log_events([event_row(seq, None, now, "erased", None, None)]))
    return True


async def purge_content(transaction: Transaction, now: int, older_than: int, limit: int) -> int:
    """See Store.purge_content, for some of them."""
    given = {"older_than": older_than, "limit": min(limit, _PURGED_TOGETHER)}
    if not (seqs := [seq for (seq,) in await transaction.ask("purge_content: closed", given)]):
        return 0
    await forget_contents(transaction, seqs)
    failpoints.passed("purge.within")
    await transaction.commit(statement("purge_content: mark", {"now": now, "seqs": seqs}))
    return len(seqs)


async def purge_log(transaction: Transaction, older_than: int, limit: int) -> int:
    """See Store.purge_log, for some of them."""
    given = {"older_than": older_than, "limit": min(limit, _PURGED_TOGETHER)}
    if not (seqs := [seq for (seq,) in await transaction.ask("purge_log: closed", given)]):
        return 0
    for state, count in await transaction.ask("purge_log: states", {"seqs": seqs}):
        transaction.move(State(state), None, count)
    await forget_contents(transaction, seqs)
    tables = ("attempts", "events", "tags", "metadata", "message")
    await transaction.commit(*(statement(f"purge_log: {table}", {"seqs": seqs}) for table in tables))
    return len(seqs)


async def purge_keys(transaction: Transaction, now: int, closed_before: int, limit: int) -> tuple[int, int]:
    """See Store.purge_keys: (keys that are still needed, rows deleted)."""
    given = {"now": now, "limit": limit, "closed_before": closed_before, "look_again": now + _LOOK_AGAIN}
    postponed, keys, limits, _ = await transaction.commit(
        statement("purge_keys: postpone", given),
        statement("purge_keys: requests", given),
        statement("purge_keys: limits", given),
        statement("purge_keys: holders", {"silence": _SILENCE}),
    )
    return len(postponed), max(len(keys), len(limits))
