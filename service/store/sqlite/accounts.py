"""Accounts of relays: what processes tell each other, each time a few rows in one short transaction.

mail/trouble has the rules: they are run on the account's rows as they stand within the transaction, and what they
changed is written back. What is known of an account is so little that it is always read whole.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Protocol

from service.mail.trouble import Answer, Login, RelayEvent, Standing, Trouble
from service.store.sqlite.transaction import Transaction
from service.store.values import RelayView

VIEW_LASTS = 15_000  # ms for which what a process saw tells anything
_REMEMBERED = 24 * 3_600_000  # ms after the end of a trouble of which nobody told any more

DeadOf = Callable[[Sequence[str]], Set[str]]


class Rows(Protocol):
    """A reader or a transaction."""

    def run(self, name: str, bindings: Any = ()) -> Any:
        """Run a named statement; the cursor yields its rows."""


# --- reading ------------------------------------------------------------------------------------------------------


def read_all(rows: Rows, dead_of: DeadOf) -> dict[str, Standing]:
    """See Store.relay_accounts."""
    standings: dict[str, Standing] = {}
    for account, *row in rows.run("relay_accounts: troubles").fetchall():
        _add(standings.setdefault(account, Standing()), row)
    for account, *row in rows.run("relay_accounts: logins").fetchall():
        standing = standings.setdefault(account, Standing())
        standing.login = Login(*row)
        if standing.login.prober and _is_dead(standing.login.prober, dead_of):
            standing.release(standing.login.prober)
    return standings


def read(rows: Rows, account: str) -> Standing:
    """How one account stands."""
    standing = Standing()
    for _, *row in rows.run("record_trouble: known", (account,)).fetchall():
        _add(standing, row)
    for _, *row in rows.run("ask_login: right", (account,)).fetchall():
        standing.login = Login(*row)
    return standing


def _add(standing: Standing, row: Sequence[Any]) -> None:
    kind, mark, at, until, reason, probe, login, step, times, length, steps = row
    pauses = tuple(map(float, steps.split()))
    trouble = Trouble(kind, at, until, reason, mark, bool(probe), bool(login), step, times, length, pauses)
    standing.troubles[kind, mark] = trouble


def _is_dead(prober: str, dead_of: DeadOf) -> bool:
    holder = prober.rpartition("/")[0]
    return holder in dead_of([holder])


# --- the right to log in ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants to log in."""

    account: str
    mark: str
    prober: str
    now: int
    until: int
    dead_of: DeadOf
    force: float | None  # seconds

    def answer(self, standing: Standing) -> Answer:
        """What the rules say."""
        is_dead = partial(_is_dead, dead_of=self.dead_of)
        return standing.answer(self.mark, self.prober, self.now, is_dead, self.force)


def ask(transaction: Transaction, asked: Asked) -> Answer:
    """See Store.ask_login."""
    standing = read(transaction, asked.account)
    answer = asked.answer(standing)
    if answer is Answer.GRANTED:
        if standing.grant(asked.mark, asked.prober, asked.until):
            relay = asked.prober.rpartition("/")[2]
            add_event(transaction, RelayEvent(asked.account, relay, asked.now, "secret_changed"))
        _keep_login(transaction, asked.account, standing.login)
    return answer


def prove(transaction: Transaction, mark: str, prober: str, event: RelayEvent) -> bool:
    """See Store.prove_login."""
    account = event.account
    standing = read(transaction, account)
    before = dict(standing.troubles)
    opened = standing.prove(mark, prober, event.at)
    for (kind, of), trouble in before.items():
        if (kind, of) not in standing.troubles:
            transaction.run("forgive_trouble: delete", (account, kind, of))
        elif standing.troubles[kind, of] != trouble:
            _keep_trouble(transaction, account, standing.troubles[kind, of])
    _keep_login(transaction, account, standing.login)
    if opened:
        add_event(transaction, event)
    return opened


def fail(transaction: Transaction, trouble: Trouble, prober: str, event: RelayEvent) -> bool:
    """See Store.fail_login."""
    news = record(transaction, event.account, trouble, event)
    release(transaction, event.account, prober)
    return news


def release(transaction: Transaction, account: str, prober: str) -> bool:
    """See Store.release_login."""
    standing = read(transaction, account)
    if not standing.release(prober):
        return False
    _keep_login(transaction, account, standing.login)
    return True


# --- troubles -----------------------------------------------------------------------------------------------------


def record(transaction: Transaction, account: str, trouble: Trouble, event: RelayEvent | None) -> bool:
    """See Store.record_trouble."""
    standing = read(transaction, account)
    login = standing.login
    news = standing.record(trouble)
    if standing.troubles[trouble.kind, trouble.mark] is trouble:
        _keep_trouble(transaction, account, trouble)
    if standing.login != login:
        _keep_login(transaction, account, standing.login)
    if news and event is not None:
        add_event(transaction, event)
    return news


def forgive(transaction: Transaction, account: str, trouble: Trouble) -> bool:
    """See Store.forgive_trouble."""
    forgiven = read(transaction, account).forgive(trouble)
    if forgiven:
        transaction.run("forgive_trouble: delete", (account, trouble.kind, trouble.mark))
    return forgiven


def cut(transaction: Transaction, names: Sequence[str], now: int) -> None:
    """Cut what lasts for too long of these accounts, for all."""
    for account in names:
        standing = read(transaction, account)
        before = standing.troubles
        standing.cut(now)
        for key, trouble in standing.troubles.items():
            if trouble is not before[key]:
                _keep_trouble(transaction, account, trouble)


def clear(transaction: Transaction, event: RelayEvent) -> int:
    """See Store.clear_troubles."""
    standing = read(transaction, event.account)
    troubles = list(standing.troubles)
    standing.clear()
    for kind, mark in troubles:
        transaction.run("forgive_trouble: delete", (event.account, kind, mark))
    _keep_login(transaction, event.account, standing.login)
    add_event(transaction, event)
    return len(troubles)


def _keep_trouble(transaction: Transaction, account: str, trouble: Trouble) -> None:
    transaction.run(
        "record_trouble: keep",
        (
            account,
            trouble.kind,
            trouble.mark,
            trouble.at,
            trouble.until,
            trouble.reason,
            int(trouble.probe),
            int(trouble.login),
            trouble.step,
            trouble.times,
            float(trouble.length),
            " ".join(repr(float(step)) for step in trouble.steps),
        ),
    )


def _keep_login(transaction: Transaction, account: str, login: Login) -> None:
    transaction.run("ask_login: keep", (account, *astuple(login)))


# --- events, and what processes see -------------------------------------------------------------------------------


def add_event(transaction: Transaction, event: RelayEvent) -> None:
    """See Store.add_relay_event."""
    transaction.run("add_relay_event: insert", astuple(event))
    transaction.run("add_relay_event: trim", {"account": event.account})


def show(transaction: Transaction, views: Sequence[RelayView]) -> None:
    """See Store.show_relays."""
    for view in views:
        transaction.run("show_relays: keep", astuple(view))


def purge(transaction: Transaction, now: int, events_before: int, limit: int) -> int:
    """See Store.purge_relays."""
    transaction.run("purge_relays: events", (events_before, limit))
    events = transaction.changes()
    transaction.run("purge_relays: views", (now - VIEW_LASTS,))
    transaction.run("purge_relays: troubles", (now - _REMEMBERED,))
    return events
