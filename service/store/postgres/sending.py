"""What a sender's groups do, in one transaction: settlements first, then marks, then at most one claim.

Steps of the three share their round trips: (1) attempts are closed and marked, due messages are held; (2) recipients are
moved, messages are read; (3) quotas of both are held, in one order; (4) everything is written and committed.

A claim whose commit got no answer is given back as soon as there is a connection again (store/unanswered.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from service.store.postgres.claim import Claiming
from service.store.postgres.limits import hold, states_of, write
from service.store.postgres.moments import Moments
from service.store.postgres.session import Judgement, Rows, judge
from service.store.postgres.settle import Closing, settle_apart
from service.store.postgres.statements import Statement, statement
from service.store.postgres.transaction import Transaction
from service.store.quotas import Quotas
from service.store.unanswered import Unanswered
from service.store.values import Settlement, Want
from service.telemetry import Log, get_logger

log = get_logger()


@dataclass(slots=True)
class Mark:
    """The content of a delivery is about to start."""

    attempt: int
    now: int


@dataclass(slots=True)
class Ask:
    """A claim: all callables are asked when its transaction begins."""

    wants: Callable[[], Sequence[Want]]
    holder: str
    now: Callable[[], int]
    lease: float
    told: Callable[[], int]
    _asked: tuple[Sequence[Want], int, int] | None = None

    def asked(self) -> tuple[Sequence[Want], int, int]:
        """Wants and times, asked once: what is wanted must not be wanted twice because a transaction is repeated."""
        if self._asked is None:
            self._asked = self.wants(), self.now(), self.told()
        return self._asked


@dataclass(slots=True)
class Sending:
    """See the module. `lease_clock`: the moment from which a lease counts; None is the server's own clock. Quotas count by
    `moments`.
    """

    lease_clock: Callable[[int], int | None]
    moments: Moments
    _unanswered: Unanswered = field(default_factory=Unanswered)

    async def perform(self, transaction: Transaction, works: Sequence[Any]) -> list[Any]:
        """The result of each, committed. Raises psycopg.Error."""
        settlements = [each for each in works if isinstance(each, Settlement)]
        closing = Closing(transaction, settlements, self.moments.ahead)
        marks = [each for each in works if isinstance(each, Mark)]
        ask = next((each for each in works if isinstance(each, Ask)), None)
        claiming = Claiming.of(transaction, *ask.asked()) if ask is not None else None
        marked = await self._first(transaction, closing, marks, claiming)
        states = await self._decide(transaction, closing, claiming)
        claimed = await self._commit(transaction, closing, claiming, ask, states)
        settled = iter(closing.results())
        return [
            next(settled) if isinstance(each, Settlement) else marked.pop(each.attempt, 0) if isinstance(each, Mark)
            else claimed for each in works
        ]  # fmt: skip

    async def _first(
        self, transaction: Transaction, closing: Closing, marks: Sequence[Mark], claiming: Claiming | None
    ) -> dict[int, int]:
        """Close and mark attempts, hold what is due; the marks that were made."""
        asked = {"closing": closing.attempts(), "marks": _marks(marks), "claim": claiming.look() if claiming else []}
        answers = await _run(transaction, asked)
        if closing.settlements:
            closing.learn_attempts(answers["closing"][1])
        seqs = claiming.learn_lanes(answers["claim"][0]) if claiming and answers["claim"] else []
        asked = {"closing": closing.recipients(), "claim": claiming.read(seqs) if claiming else []}
        marked = {attempt: 1 for rows in answers["marks"] for (attempt,) in rows}
        answers = await _run(transaction, asked)
        if answers["closing"]:
            closing.learn_recipients(answers["closing"][0])
        if claiming and answers["claim"]:
            messages, recipients, numbers = answers["claim"]
            claiming.learn_messages(messages, recipients, numbers)
        return marked

    async def _decide(
        self, transaction: Transaction, closing: Closing, claiming: Claiming | None
    ) -> dict[str, tuple[bytes, int]]:
        """Hold quotas, give back, claim; the states of quotas to write."""
        held = hold(closing.buckets() | (claiming.buckets() if claiming else set()))
        states = states_of((await transaction.run(*held))[1]) if held else {}
        written = closing.give_back(states)
        if claiming is None:
            return written
        claiming.quotas = Quotas(states.get, claiming.now, self.moments.ahead)
        while claiming.decide():
            (rows,) = await transaction.run(*claiming.look())
            if seqs := claiming.learn_lanes(rows):
                messages, recipients, numbers = await transaction.run(*claiming.read(seqs))
                claiming.learn_messages(messages, recipients, numbers)
        return written | claiming.states()

    async def _commit(
        self, transaction: Transaction, closing: Closing, claiming: Claiming | None, ask: Ask | None,
        states: dict[str, tuple[bytes, int]],
    ) -> Any:  # fmt: skip
        statements = [*write(states), *closing.rest()]
        if claiming is None or ask is None:
            await transaction.commit(*statements)
            return None
        now = claiming.now
        statements += claiming.writes(ask.holder, ask.lease, self.lease_clock(claiming.told))
        doubtful = [each.attempt for each in claiming.claimed]
        self._unanswered.add(claiming.claimed, now, ask.holder)
        try:
            rows = await transaction.commit(*statements)
        except Exception as error:
            if not isinstance(error, psycopg.Error) or judge(error) is not Judgement.LOST:
                self._unanswered.forget(doubtful)
            raise
        self._unanswered.forget(doubtful)
        return claiming.result(rows[-1] if rows else [])

    async def recover(self, begin: Callable[[], Transaction]) -> None:
        """Give back what was claimed by a commit without an answer. Raises psycopg.Error when the connection is lost."""
        settlements = [settlement for _, settlement in self._unanswered.given_back()]
        results = await settle_apart(begin, settlements, self.moments.ahead)
        for each, result in zip(settlements, results, strict=True):
            if isinstance(result, Exception):  # a fault of ours with one of them must not keep the store closed
                log.error(Log.ATTEMPT_FAULT, id=each.id, attempt=each.attempt, during="recover", exc_info=result)
        self._unanswered.forget([each.attempt for each in settlements])


async def _run(transaction: Transaction, asked: dict[str, list[Statement]]) -> dict[str, list[Rows]]:
    """The rows of several lists of statements, in one round trip."""
    flat = [each for statements in asked.values() for each in statements]
    rows = iter(await transaction.run(*flat) if flat else [])
    return {name: [next(rows) for _ in statements] for name, statements in asked.items()}


def _marks(marks: Sequence[Mark]) -> list[Statement]:
    times = {each.attempt: each.now for each in marks}
    if not times:
        return []
    ids = sorted(times)
    return [statement("start_content: mark", {"ids": ids, "times": [times[each] for each in ids]})]
