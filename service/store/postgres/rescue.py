"""What happens without a sender: orphaned attempts are closed as in doubt, and what waited too long expires.

Safe in several processes at once: what one holds, the others pass over.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service import failpoints
from service.errors import PostroomError
from service.mail.lifecycle import Event, State
from service.store.orphans import Orphan, settle_orphan
from service.store.postgres.session import sentence
from service.store.postgres.settle import end_waiting, settle_all
from service.store.postgres.statements import statement
from service.store.postgres.transaction import Transaction
from service.store.values import RescuePolicy
from service.store.views import SPAN
from service.telemetry import Log, get_logger

log = get_logger()


@dataclass(slots=True)
class Rescue:
    """A look for orphans. `leased_at`: the moment that leases are compared with; None is the server's own clock.
    `spare_living`: only what the dead held.

    One that can't be closed, by a fault of ours, must not keep the others from it: then each is closed alone.
    """

    write: Callable[[Callable[[Transaction], Awaitable[int]]], Awaitable[int]]
    now: int
    leased_at: int | None
    policy: RescuePolicy
    spare_living: bool
    ahead: int  # see Closing

    async def run(self) -> int:
        """Close a few hundred at most; how many. Raises StorageUnavailable."""
        found: list[int] = []
        try:
            return await self.write(lambda transaction: _close(transaction, self, None, found))
        except PostroomError:
            raise
        except Exception as error:
            log.warning(Log.LOOP_FAILED, during="rescue", detail=sentence(error))
            return sum([await self._alone(attempt) for attempt in found])

    async def _alone(self, attempt: int) -> int:
        try:
            return await self.write(lambda transaction: _close(transaction, self, attempt, []))
        except PostroomError:
            raise
        except Exception as own:
            log.error(Log.ATTEMPT_FAULT, attempt=attempt, during="rescue", exc_info=own)
            return 0


async def _close(transaction: Transaction, look: Rescue, only: int | None, found: list[int]) -> int:
    """Close the orphans, or one of them; how many. `found`: their attempts are written there. Commits."""
    given = {"leased_at": look.leased_at, "spare": look.spare_living, "own": look.policy.holder, "only": only}
    rows = await transaction.ask("rescue: orphans", given)
    orphans = _counted([Orphan(*row) for row in rows])
    found[:] = [each.attempt for each in orphans]
    if not orphans:
        return 0
    held, _ = await transaction.run(
        statement("rescue: recipients", {"messages": [each.message for each in orphans], "attempts": found}),
        statement("rescue: kill", {"seqs": [each.message for each in orphans if each.may_have_killed]}),
    )
    failpoints.passed("rescue.within")
    of: dict[int, list[tuple[int, int]]] = {}
    for rid, attempt, in_doubt in held:
        of.setdefault(attempt, []).append((rid % SPAN, in_doubt))
    settlements = [settle_orphan(each, of.get(each.attempt, []), look.now, look.policy) for each in orphans]
    await settle_all(transaction, settlements, look.ahead)
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
