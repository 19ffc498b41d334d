"""The state machine: every transition of the table, and nothing beside it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.lifecycle import (
    INITIAL,
    MESSAGE_STATUSES,
    OPEN,
    PENDING,
    TRANSITIONS,
    Event,
    State,
    apply,
    message_status,
    sources,
    target,
)


@pytest.mark.parametrize(("state", "event"), sorted(TRANSITIONS))
def test_each_transition_of_the_table_is_applied(state: State, event: Event) -> None:
    assert apply(state, event) is TRANSITIONS[state, event]
    assert state in sources(event)
    assert target(event) is TRANSITIONS[state, event]


def test_anything_else_is_a_lookup_error() -> None:
    for state, event in itertools.product(State, Event):
        if (state, event) not in TRANSITIONS:
            with pytest.raises(LookupError, match=f"no transition from {state} by {event}"):
                apply(state, event)


def test_every_state_can_be_reached_from_the_initial_ones() -> None:
    reached = set(INITIAL)
    for _ in State:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(State)


def test_sent_is_left_only_on_evidence() -> None:
    assert {event for (state, event) in TRANSITIONS if state is State.SENT} == {
        Event.DELIVERY_REPORTED,
        Event.BOUNCE_REPORTED,
        Event.COMPLAINT_REPORTED,
    }


def test_unknown_is_left_only_by_retry_or_evidence() -> None:
    assert {event for (state, event) in TRANSITIONS if state is State.UNKNOWN} == {
        Event.RETRY,
        Event.DELIVERY_REPORTED,
        Event.BOUNCE_REPORTED,
    }


def test_retry_leaves_just_the_states_that_ended_badly() -> None:
    assert set(sources(Event.RETRY)) == {
        State.BOUNCED,
        State.FAILED,
        State.EXPIRED,
        State.UNKNOWN,
        State.CANCELED,
    }


def test_only_a_lease_takes_results() -> None:
    results = {Event.ACCEPTED, Event.REFUSED, Event.DEFER, Event.NOT_STARTED, Event.IN_DOUBT, Event.PARK}
    for event in results:
        assert sources(event) == (State.SENDING,)


@pytest.mark.parametrize(
    ("states", "due_later", "status"),
    [
        ([State.QUEUED, State.SUPPRESSED], True, "scheduled"),
        ([State.QUEUED, State.SENDING], True, "sending"),
        ([State.QUEUED, State.SENDING, State.SENT], False, "sending"),
        ([State.QUEUED, State.DEFERRED, State.SENT], False, "deferred"),
        ([State.QUEUED, State.SENT], False, "queued"),
        ([State.SENT, State.SENT], False, "sent"),
        ([State.SENT, State.BOUNCED, State.UNKNOWN], False, "partially_sent"),
        ([State.UNKNOWN, State.BOUNCED], False, "unknown"),
        ([State.BOUNCED, State.BOUNCED], False, "bounced"),
        ([State.CANCELED], False, "canceled"),
        ([State.CANCELED], True, "canceled"),
        ([State.BOUNCED, State.SUPPRESSED], False, "failed"),
    ],
)
def test_the_status_of_a_message_is_the_first_rule_that_holds(
    states: list[State], due_later: bool, status: str
) -> None:
    assert message_status(states, due_later=due_later) == status


@given(st.lists(st.sampled_from(State), min_size=1, max_size=5), st.booleans())
def test_every_mixture_of_states_has_a_known_status(states: list[State], due_later: bool) -> None:
    status = message_status(states, due_later=due_later)
    assert status in MESSAGE_STATUSES
    if not OPEN.intersection(states):
        assert status not in {"scheduled", *PENDING, State.SENDING}
