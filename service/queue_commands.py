"""`postroom queue`, `postroom queue cancel`, `postroom queue release`: what would be sent, and what becomes of it.

It is for an operator who has restored a backup: what waited when the copy was taken may have been sent by the original
since. It decides what `perhaps sent` means: accepted before the copy was taken, and due by now. What time it is the store
says where it has a clock (PostgreSQL): that of the operator's host may be wrong, and no sender goes by it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from service.clock import SYSTEM, rfc3339
from service.errors import ConfigurationError
from service.mail.route import Route
from service.store.port import Store
from service.store.shown import MessageFilter, Waiting, WaitingLane, WaitingRecipient

Runner = Callable[[Coroutine[Any, Any, int | None]], int | None]
Opener = Callable[[], AbstractAsyncContextManager[Store]]

_PRIORITIES = ("high", "normal", "low")
_MANY = 100  # messages that one transaction cancels


def register(parser: argparse.ArgumentParser, run: Runner, open_store: Opener) -> None:
    """Add the subcommands; `run` runs a coroutine, `open_store` opens the configured store."""
    parser.add_argument(
        "--first", type=_count, default=20, metavar="N", help="how many recipients to list (default 20)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(run=lambda chosen: run(_show(chosen, open_store)))
    commands = parser.add_subparsers(metavar="COMMAND")
    cancel = commands.add_parser("cancel", help="cancel what waits and was accepted up to a moment, in all accounts")
    cancel.add_argument("--until", type=_moment, help="RFC 3339; default: when the copy was taken")
    cancel.set_defaults(run=lambda chosen: run(_cancel(chosen, open_store)))
    release = commands.add_parser("release", help="send what waits, from the next start on")
    release.set_defaults(run=lambda chosen: run(_release(open_store)))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(text)


def _moment(text: str) -> int:
    """Milliseconds. RFC 3339 section 5.6; without an offset nobody knows what is meant."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise argparse.ArgumentTypeError("must be a time with an offset, for example 2026-11-24T10:43:00Z")
    return int(moment.timestamp() * 1000)


# --- show -------------------------------------------------------------------------------------------------------------


async def _show(chosen: argparse.Namespace, open_store: Opener) -> int:
    async with open_store() as store:
        now = await store.store_time(SYSTEM.now())
        copied_at = await store.copied_at()
        waiting = await store.waiting(now, chosen.first)
    if chosen.json:
        print(json.dumps(_for_machines({"now": now, "copied_at": copied_at, **asdict(waiting)}), ensure_ascii=False))
    else:
        _print(waiting, copied_at, now)
    return 0


_MOMENTS = frozenset({"now", "copied_at", "oldest", "due_at", "created_at"})


def _for_machines(value: Any, name: str = "") -> Any:
    """The same, its moments in RFC 3339."""
    if isinstance(value, dict):
        return {key: _for_machines(each, key) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_machines(each) for each in value]
    return rfc3339(value) if name in _MOMENTS and value is not None else value


def _print(waiting: Waiting, copied_at: int | None, now: int) -> None:
    total = sum(lane.count for lane in waiting.lanes)
    if copied_at is not None:
        perhaps = sum(lane.perhaps_sent for lane in waiting.lanes)
        print(f"This store is a copy taken at {rfc3339(copied_at)}; nothing is sent until `postroom queue release`.")
        print(f"Perhaps sent by the original since: {perhaps:,} of {total:,} waiting recipients (marked ?).")
    else:
        print(f"{total:,} recipients wait.")
    if waiting.open_attempts:
        print(f"{waiting.open_attempts:,} attempts are open: under way, or in doubt if their process has ended.")
    if waiting.lanes:
        print()
        _print_table([_LANE_HEAD, *(_lane_row(lane, now) for lane in waiting.lanes)])
    if waiting.first:
        print()
        _print_table([_FIRST_HEAD, *(_first_row(each, copied_at, now) for each in waiting.first)])


_LANE_HEAD = ("ACCOUNT", "RELAY", "SENDER", "PRIORITY", "STATE", "WAIT", "DUE", "IN DOUBT", "PERHAPS SENT", "OLDEST")
_FIRST_HEAD = ("", "MESSAGE", "RECIPIENT", "PRIORITY", "STATE", "DUE", "ACCEPTED", "SUBJECT")


def _lane_row(lane: WaitingLane, now: int) -> tuple[str, ...]:
    route = Route.parse(lane.route)
    numbers = (f"{each:,}" for each in (lane.count, lane.due, lane.in_doubt, lane.perhaps_sent))
    words = (route.account, route.relay or "any", route.sender or "any", _PRIORITIES[lane.priority], lane.state.value)
    return (*words, *numbers, _age(now - lane.oldest))


def _first_row(each: WaitingRecipient, copied_at: int | None, now: int) -> tuple[str, ...]:
    perhaps = each.in_doubt > 0 or (copied_at is not None and each.created_at <= copied_at and each.due_at <= now)
    due = "now" if each.due_at <= now else rfc3339(each.due_at)
    subject = each.subject if len(each.subject) <= 40 else each.subject[:39] + "…"
    words = (each.id, each.email, _PRIORITIES[each.priority], each.state.value, due, rfc3339(each.created_at), subject)
    return ("?" if perhaps else "", *words)


def _age(milliseconds: int) -> str:
    minutes = max(milliseconds, 0) // 60_000
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days}d{hours}h" if days else f"{hours}h{minutes % 60}m"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# --- cancel, release --------------------------------------------------------------------------------------------------


async def _cancel(chosen: argparse.Namespace, open_store: Opener) -> int:
    canceled = 0
    async with open_store() as store:
        copied_at = await store.copied_at()
        until = copied_at if chosen.until is None else chosen.until
        if until is None:
            raise ConfigurationError("This store is no copy: say with --until up to when accepted mail is canceled")
        where = MessageFilter(until=until + 1)  # a filter's `until` is exclusive
        for account in sorted({Route.parse(each.route).account for each in await store.due_routes()}):
            while found := await store.cancel_where(account, where, await store.store_time(SYSTEM.now()), _MANY):
                canceled += len(found)
                print(f"{canceled:,} messages", file=sys.stderr, flush=True)
    print(f"{canceled:,} messages canceled, accepted up to {rfc3339(until)}.")
    return 0


async def _release(open_store: Opener) -> int:
    async with open_store() as store:
        released = await store.release_copy()
    print("From the next start on its mail is sent." if released else "This store is no copy that was held.")
    return 0
