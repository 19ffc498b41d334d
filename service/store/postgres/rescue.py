"""What happens without a sender: orphaned attempts are closed as in doubt, and what waited too long expires.

Safe in several processes at once: what one holds, the others pass over.
"""

from service import failpoints
from service.mail.lifecycle import Event, State
from service.store.orphans import Orphan, settle_orphan
from service.store.postgres.settle import end_waiting, settle_all
from service.store.postgres.statements import statement
from service.store.postgres.transaction import Transaction
from service.store.values import RescuePolicy
from service.store.views import SPAN


async def rescue(transaction: Transaction, now: int, leased_at: int | None, policy: RescuePolicy) -> int:
    """Close orphaned attempts, a few hundred at most; how many. Commits."""
    rows = await transaction.ask("rescue: orphans", {"leased_at": leased_at})
    orphans = _counted([Orphan(*row) for row in rows])
    if not orphans:
        return 0
    messages, attempts = [each.message for each in orphans], [each.attempt for each in orphans]
    held, _ = await transaction.run(
        statement("rescue: recipients", {"messages": messages, "attempts": attempts}),
        statement("rescue: kill", {"seqs": [each.message for each in orphans if each.may_have_killed]}),
    )
    failpoints.passed("rescue.within")
    of: dict[int, list[tuple[int, int]]] = {}
    for rid, attempt, in_doubt in held:
        of.setdefault(attempt, []).append((rid % SPAN, in_doubt))
    await settle_all(transaction, [settle_orphan(each, of.get(each.attempt, []), now, policy) for each in orphans])
    return len(orphans)


def _counted(orphans: list[Orphan]) -> list[Orphan]:
    """Of two attempts at one message each that may have killed is a kill more than the one before."""
    kills: dict[int, int] = {}
    for each in sorted(orphans, key=lambda orphan: orphan.attempt):
        each.kills = kills.get(each.message, each.kills)
        kills[each.message] = each.kills + each.may_have_killed
    return orphans


async def expire(transaction: Transaction, now: int, limit: int) -> int:
    """Expire waiting recipients whose ttl is over; how many. Commits."""
    due = [rid for (rid,) in await transaction.ask("expire: due", {"now": now, "limit": limit})]
    if not due:
        return 0
    rows = await transaction.ask("expire: still due", {"rids": due, "now": now})
    ends = [(rid, State(state), Event.EXPIRE, "ttl is over") for rid, state in rows]
    await transaction.commit(*end_waiting(transaction, ends, now))
    return len(ends)
