"""When to try again, and how often: the retry schedule with full jitter, and what earlier attempts make of a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.mail.lifecycle import Event
from service.mail.outcome import Action, Scope, Verdict

SCHEDULE: tuple[float, ...] = (5, 30, 120, 300, 900, 1800, 3600)
"""Seconds after the first, second, ... charged attempt; the last repeats until `ttl`."""

FREE_AGAIN = 3600.0
"""Seconds after which a message may have another new connection for nothing, unless a setting says otherwise."""


@dataclass(slots=True)
class History:
    """What a recipient went through before this attempt."""

    kind: str = ""  # the class of its last charged attempt
    count: int = 0  # how many charged attempts in a row ended with it
    reconnected_at: int | None = None  # ms; when it last had a new connection for nothing


def follow(verdict: Verdict, history: History, now: int, expires_at: int, *, free_again: float = FREE_AGAIN) -> Verdict:
    """The verdict in the light of earlier attempts and of the time that is left (ms). free_again: seconds."""
    if verdict.action is Action.RECONN:
        return _reconnect(verdict, history, now, free_again)
    if verdict.action is not Action.TEMP:
        return verdict
    often = verdict.times is not None and history.kind == verdict.kind and history.count >= verdict.times
    late = verdict.at_expiry and now + int(verdict.wait * 1000) >= expires_at
    return replace(verdict, event=Event.REFUSED, action=Action.PERM) if often or late else verdict


def _reconnect(verdict: Verdict, history: History, now: int, free_again: float) -> Verdict:
    """Free once in a while; then the account is asked what is wrong, or else the message pays for each further one."""
    last = history.reconnected_at
    if last is None or now - last >= free_again * 1000:
        return verdict
    if verdict.then is Action.AUTH:
        return account_at_fault(verdict)
    return replace(verdict, charged=True)


def account_at_fault(verdict: Verdict) -> Verdict:
    """A RECONN that a new connection did not mend, where the account is at fault then."""
    return replace(verdict, scope=Scope.RELAY, action=Action.AUTH, probe=True)


def base_delay(charged: int, schedule: Sequence[float] = SCHEDULE) -> float:
    """Seconds of the schedule after `charged` (>= 1) charged attempts."""
    return schedule[min(max(charged, 1), len(schedule)) - 1]


def next_due(
    now: int,
    charged: int,
    jitter: float,
    *,
    schedule: Sequence[float] = SCHEDULE,
    at_least: float = 0.0,
    expires_at: int | None = None,
) -> int:
    """The time (ms) of the next attempt: full jitter over the second half of the delay, never past `expires_at`.

    now: ms. charged: attempts charged so far, the one just closed included. jitter: in [0, 1). at_least: seconds that a
    pause or the reply asks for; the longest wait wins. Half of the delay is kept fixed so that a burst of failures
    can't come back at once, which pure full jitter allows.
    """
    delay = base_delay(charged, schedule)
    wait = max(delay / 2 + delay / 2 * jitter, at_least)
    due = now + int(wait * 1000)
    return due if expires_at is None else min(due, expires_at)
