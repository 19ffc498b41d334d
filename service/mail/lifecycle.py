"""THE STATE MACHINE. A recipient (one forward-path of one message) is the unit that has a state.

This file decides which state follows which event. It refuses to know why an event happened (mail/outcome.py judges
replies) and where states are kept (store/). No other file names a target state: callers say what happened,
`apply(state, Event.ACCEPTED)`, never "set to sent". The diagram in docs/lifecycle.md is generated from TRANSITIONS.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import cache


class State(StrEnum):
    """Where a recipient stands. `sent`: the relay took the mail (2yz after the final dot); it claims no inbox."""

    QUEUED = "queued"
    SENDING = "sending"
    DEFERRED = "deferred"
    SENT = "sent"
    BOUNCED = "bounced"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"
    DELIVERED = "delivered"
    COMPLAINED = "complained"


class Event(StrEnum):
    """What happened to a recipient."""

    CLAIM = "claim"  # a sender took the lease and opened an attempt
    ACCEPTED = "sent"  # 2yz after the final dot
    REFUSED = "refused"  # the recipient or the content was refused for good
    DEFER = "defer"  # try again later
    NOT_STARTED = "not_started"  # the lease was given back before MAIL FROM; charged nothing
    FAULT = "fault"  # ours: poison, no relay, sender mismatch, malformed
    IN_DOUBT = "in_doubt"  # the reply to the final dot is missing; a copy may be out; will be tried again
    PARK = "park"  # the reply to the final dot is missing; nobody tries again by itself
    EXPIRE = "expire"  # ttl is over
    SUPPRESS = "suppress"  # the address entered the suppression list
    CANCEL = "cancel"
    RETRY = "retry"
    DELIVERY_REPORTED = "delivery_reported"  # evidence from outside: a delivery report
    BOUNCE_REPORTED = "bounce_reported"
    COMPLAINT_REPORTED = "complaint_reported"


S, E = State, Event

INITIAL = (S.QUEUED, S.SUPPRESSED)

TRANSITIONS: dict[tuple[State, Event], State] = {
    (S.QUEUED, E.CLAIM): S.SENDING,
    (S.DEFERRED, E.CLAIM): S.SENDING,
    (S.SENDING, E.ACCEPTED): S.SENT,
    (S.SENDING, E.REFUSED): S.BOUNCED,
    (S.SENDING, E.DEFER): S.DEFERRED,
    (S.SENDING, E.NOT_STARTED): S.QUEUED,
    (S.SENDING, E.FAULT): S.FAILED,
    (S.SENDING, E.IN_DOUBT): S.DEFERRED,
    (S.SENDING, E.PARK): S.UNKNOWN,
    (S.QUEUED, E.FAULT): S.FAILED,
    (S.DEFERRED, E.FAULT): S.FAILED,
    (S.QUEUED, E.EXPIRE): S.EXPIRED,
    (S.DEFERRED, E.EXPIRE): S.EXPIRED,
    (S.QUEUED, E.SUPPRESS): S.SUPPRESSED,
    (S.DEFERRED, E.SUPPRESS): S.SUPPRESSED,
    (S.QUEUED, E.CANCEL): S.CANCELED,
    (S.DEFERRED, E.CANCEL): S.CANCELED,
    (S.BOUNCED, E.RETRY): S.QUEUED,
    (S.FAILED, E.RETRY): S.QUEUED,
    (S.EXPIRED, E.RETRY): S.QUEUED,
    (S.UNKNOWN, E.RETRY): S.QUEUED,
    (S.CANCELED, E.RETRY): S.QUEUED,
    (S.SENT, E.DELIVERY_REPORTED): S.DELIVERED,
    (S.UNKNOWN, E.DELIVERY_REPORTED): S.DELIVERED,
    (S.SENT, E.BOUNCE_REPORTED): S.BOUNCED,
    (S.UNKNOWN, E.BOUNCE_REPORTED): S.BOUNCED,
    (S.SENT, E.COMPLAINT_REPORTED): S.COMPLAINED,
    (S.DELIVERED, E.COMPLAINT_REPORTED): S.COMPLAINED,
}

PENDING = frozenset({S.QUEUED, S.DEFERRED})  # can be claimed
OPEN = PENDING | {S.SENDING}  # the message is not closed while one recipient is here


def sources(event: Event) -> tuple[State, ...]:
    """The states that `event` can leave, in table order; a guarded write puts them in its WHERE."""
    return tuple(state for (state, what) in TRANSITIONS if what is event)


def apply(state: State, event: Event) -> State:
    """The state after `event`.

    Raises LookupError when the table has no such transition: a bug, since every write is guarded by its source state.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LookupError(f"no transition from {state} by {event}") from None


@cache
def target(event: Event) -> State:
    """The one state that `event` leads to, whatever it leaves."""
    (state,) = {after for (_, what), after in TRANSITIONS.items() if what is event}
    return state


SCHEDULED = "scheduled"
PARTIALLY_SENT = "partially_sent"
MESSAGE_STATUSES = (SCHEDULED, *(s.value for s in State), PARTIALLY_SENT)


def message_status(states: Iterable[State], *, due_later: bool) -> str:
    """The status of a message, computed from its recipients' states; the first rule that holds.

    `due_later`: the message has a schedule that lies in the future.
    """
    found = list(states)
    present = set(found)
    if due_later and S.QUEUED in present and not present - {S.QUEUED, S.SUPPRESSED}:
        return SCHEDULED
    for state in (S.SENDING, S.DEFERRED, S.QUEUED):
        if state in present:
            return state.value
    if present == {S.SENT}:
        return S.SENT.value
    if S.SENT in present:
        return PARTIALLY_SENT
    if S.UNKNOWN in present:
        return S.UNKNOWN.value
    if len(present) == 1:
        return found[0].value
    return S.FAILED.value
