"""Accounts of relays: what processes tell each other. mail/trouble has the rules.

Each telling is a rule that is run on the account as it stands within the transaction. A group runs them one after the
other in memory, while the accounts that it is about are held, and writes what changed. Moments in it are the server's.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

from service.mail.trouble import Answer, Login, RelayEvent, Standing, Trouble
from service.store.postgres.moments import Moments
from service.store.postgres.session import Rows
from service.store.postgres.statements import Statement, statement
from service.store.postgres.transaction import Transaction

VIEW_LASTS = 15_000  # ms for which what a process saw tells anything
_REMEMBERED = 24 * 3_600_000  # ms after the end of a trouble of which nobody told any more


@dataclass(slots=True)
class Account:
    """One account while a group works on it, and whether the process of its prober lives."""

    standing: Standing
    prober_lives: bool = False
    has_login: bool = False  # a row of its own for who may log in


Rule = Callable[[Account, list[RelayEvent]], Any]  # changes the account and tells events; answers what the caller gets


@dataclass(frozen=True, slots=True)
class Telling:
    """A rule, and the account that it is about."""

    account: str
    rule: Rule


async def tell_all(moments: Moments, transaction: Transaction, tellings: Sequence[Telling]) -> list[Any]:
    """What each telling comes to, committed. Raises psycopg.Error."""
    names = sorted({each.account for each in tellings})
    given = {"accounts": names}
    _, ((server_now,),), troubles, logins = await transaction.run(
        statement("ask_login: lock", given),
        statement("ask_login: clock"),
        statement("record_trouble: known", given),
        statement("ask_login: right", given),
    )
    moments.heard(server_now)
    accounts = accounts_of(troubles, logins)
    for name in names:
        accounts.setdefault(name, Account(Standing()))
    before = {name: Standing(copy(each.standing.troubles), each.standing.login) for name, each in accounts.items()}
    events: list[RelayEvent] = []
    results = [each.rule(accounts[each.account], events) for each in tellings]
    await transaction.commit(*_changes(before, accounts), *_events(events))
    return results


def accounts_of(troubles: Rows, logins: Rows) -> dict[str, Account]:
    """Accounts as they were read."""
    found: dict[str, Account] = {}
    for account, *row in troubles:
        trouble = _trouble(row)
        found.setdefault(account, Account(Standing())).standing.troubles[trouble.kind, trouble.mark] = trouble
    for account, *row, lives in logins:
        each = found.setdefault(account, Account(Standing()))
        each.standing.login, each.prober_lives, each.has_login = Login(*row), lives, True
    return found


def standings_of(accounts: Mapping[str, Account]) -> dict[str, Standing]:
    """How accounts stand; a prober whose process has ended is left out."""
    for each in accounts.values():
        if each.standing.login.prober and not each.prober_lives:
            each.standing.release(each.standing.login.prober)
    return {name: each.standing for name, each in accounts.items()}


def _trouble(row: Sequence[Any]) -> Trouble:
    kind, mark, at, until, reason, probe, login, step, times, length, steps = row
    return Trouble(kind, at, until, reason, mark, probe, login, step, times, length, tuple(map(float, steps.split())))


# --- rules ----------------------------------------------------------------------------------------------------------


def answer(account: Account, mark: str, prober: str, now: int, force: float | None) -> Answer:
    """What one who wants to log in is told; changes nothing. now: the server's."""
    return account.standing.answer(mark, prober, now, lambda _: not account.prober_lives, force)


def ask(moments: Moments, name: str, mark: str, prober: str, now: int, until: int, force: float | None) -> Telling:
    """See Store.ask_login."""

    def rule(account: Account, events: list[RelayEvent]) -> Answer:
        answered = answer(account, mark, prober, moments.there(now), force)
        if answered is Answer.GRANTED:
            if account.standing.grant(mark, prober, moments.there(until)):
                events.append(RelayEvent(name, prober.rpartition("/")[2], now, "secret_changed"))
            account.prober_lives = True
        return answered

    return Telling(name, rule)


def prove(moments: Moments, mark: str, prober: str, event: RelayEvent) -> Telling:
    """See Store.prove_login."""

    def rule(account: Account, events: list[RelayEvent]) -> bool:
        opened = account.standing.prove(mark, prober, moments.there(event.at))
        if opened:
            events.append(event)
        return opened

    return Telling(event.account, rule)


def record(moments: Moments, name: str, trouble: Trouble, event: RelayEvent | None, prober: str = "") -> Telling:
    """See Store.record_trouble; with a `prober`, Store.fail_login."""

    def rule(account: Account, events: list[RelayEvent]) -> bool:
        news = account.standing.record(moments.trouble_there(trouble))
        if news and event is not None:
            events.append(event)
        account.standing.release(prober)
        return news

    return Telling(name, rule)


def release(name: str, prober: str) -> Telling:
    """See Store.release_login."""
    return Telling(name, lambda account, _: account.standing.release(prober))


def forgive(moments: Moments, name: str, trouble: Trouble) -> Telling:
    """See Store.forgive_trouble."""
    return Telling(name, lambda account, _: account.standing.forgive(moments.trouble_there(trouble)))


def cut(name: str, now: int) -> Telling:
    """Cut what lasts for too long, for all. now: the server's."""
    return Telling(name, lambda account, _: account.standing.cut(now))


def clear(event: RelayEvent) -> Telling:
    """See Store.clear_troubles."""

    def rule(account: Account, events: list[RelayEvent]) -> int:
        count = len(account.standing.troubles)
        account.standing.clear()
        events.append(event)
        return count

    return Telling(event.account, rule)


def add_event(event: RelayEvent) -> Telling:
    """See Store.add_relay_event."""
    return Telling(event.account, lambda _, events: events.append(event))


# --- write ----------------------------------------------------------------------------------------------------------


def _changes(before: Mapping[str, Standing], accounts: Mapping[str, Account]) -> list[Statement]:
    """What is to be written of accounts that differ from what was read."""
    kept: list[dict[str, Any]] = []
    gone: list[dict[str, Any]] = []
    logins: list[dict[str, Any]] = []
    for name, each in sorted(accounts.items()):
        was, now = before[name], each.standing
        kept += [
            _trouble_row(name, trouble) for key, trouble in now.troubles.items() if was.troubles.get(key) != trouble
        ]
        gone += [{"account": name, "kind": kind, "mark": mark} for kind, mark in was.troubles.keys() - now.troubles]
        if was.login != now.login or not each.has_login:
            logins.append({"account": name, **asdict(now.login)})
    found = (("forgive_trouble: delete", gone), ("record_trouble: keep", kept), ("ask_login: keep", logins))
    return [statement(query, {"rows": rows}) for query, rows in found if rows]


def _trouble_row(account: str, trouble: Trouble) -> dict[str, Any]:
    steps = " ".join(repr(float(step)) for step in trouble.steps)
    return {**asdict(replace(trouble, steps=())), "account": account, "steps": steps}


def _events(events: Sequence[RelayEvent]) -> list[Statement]:
    if not events:
        return []
    accounts = sorted({each.account for each in events})
    return [
        statement("add_relay_event: insert", {"rows": [asdict(each) for each in events]}),
        statement("add_relay_event: trim", {"accounts": accounts}),
    ]


async def purge(transaction: Transaction, now: int, events_before: int, limit: int) -> int:
    """See Store.purge_relays. `now` is the server's, or earlier."""
    events, _, _ = await transaction.commit(
        statement("purge_relays: events", {"before": events_before, "limit": limit}),
        statement("purge_relays: views", {"before": now - VIEW_LASTS}),
        statement("purge_relays: troubles", {"before": now - _REMEMBERED}),
    )
    return len(events)
