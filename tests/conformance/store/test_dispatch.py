"""Claim, settle, rescue, expire: leases, fences, order, and what follows a dead sender."""

import asyncio
from dataclasses import replace

import pytest

from service.mail.lifecycle import Event, State
from service.store.port import Store
from service.store.shown import Suppression
from service.store.values import Delivery, DueRoute, RecipientSettlement, RescuePolicy, Want
from tests.support.clock import EPOCH
from tests.support.store_data import (
    HOUR,
    ROUTE,
    accept_of,
    claim_all,
    new_message,
    settlement_of,
    states,
)

POLICY = RescuePolicy(in_doubt_delay=900, max_in_doubt=2, max_kills=10)


async def test_a_claim_hands_out_what_is_due_and_opens_an_attempt(store: Store) -> None:
    message = new_message(1, ("a@b.example", "c@b.example"))
    await store.accept(accept_of(message))
    assert await claim_all(store, at=EPOCH) == [], "not due yet"
    (delivery,) = await claim_all(store)
    assert (delivery.id, delivery.account, delivery.relay, delivery.route) == (message.id, "acme", "r", ROUTE)
    assert [each.email for each in delivery.recipients] == ["a@b.example", "c@b.example"]
    assert delivery.content == message.content
    assert await states(store, message.id) == [State.SENDING, State.SENDING]
    assert await claim_all(store) == [], "leased"


async def test_high_priority_overtakes_ten_thousand_normal_messages(store: Store) -> None:
    for start in range(0, 10_000, 500):
        await store.accept(accept_of(*(new_message(start + n + 1) for n in range(500))))
    await store.accept(accept_of(new_message(20_000, priority=0)))
    first = await claim_all(store, limit=1)
    assert [delivery.id for delivery in first] == [new_message(20_000).id]


async def test_within_a_lane_the_earliest_due_goes_first(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n) for n in (3, 1, 2))))
    assert [each.id for each in await claim_all(store, limit=2)] == [new_message(1).id, new_message(2).id]


async def test_each_want_gets_no_more_than_its_limit_and_priority_goes_over_all_wants(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n, route="a||") for n in range(1, 6))))
    await store.accept(accept_of(*(new_message(n, route="b||", priority=0) for n in range(6, 11))))
    wants = [Want("a||", "r", 2), Want("b||", "s", 3)]
    found = (await store.claim(lambda: wants, "me", lambda: EPOCH + HOUR, 60)).deliveries
    assert [(each.route, each.relay) for each in found] == [("b||", "s")] * 3 + [("a||", "r")] * 2


async def test_two_processes_never_claim_the_same_delivery(store: Store, open_another) -> None:  # type: ignore[no-untyped-def]
    other = await open_another()
    await store.accept(accept_of(*(new_message(n) for n in range(1, 101))))
    rounds = await asyncio.gather(
        *(claim_all(each, limit=7, holder=str(id(each))) for _ in range(10) for each in (store, other))
    )
    claimed = [delivery.id for found in rounds for delivery in found]
    assert len(claimed) == len(set(claimed)) == 100


async def test_settling_writes_state_reply_and_log_together(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store)
    assert await store.settle(settlement_of(delivery, Event.ACCEPTED, provider_message_id="queued as 7")) == 1
    view = await store.get_message("acme", message.id)
    assert view is not None
    (recipient,) = view.recipients
    assert (recipient.state, recipient.attempts, recipient.last_code, recipient.relay) == (State.SENT, 1, 250, "r")
    assert recipient.provider_message_id == "queued as 7"
    assert view.closed_at == EPOCH + HOUR
    log = await store.list_events("acme", message.id)
    assert [event.type for event in log] == ["accepted", "sent"]
    assert log[1].data["timings_ms"] == {"total": 1.5}
    assert (await store.stats(EPOCH)).counts[State.SENT] == 1


async def test_a_deferred_recipient_comes_back_at_its_time(store: Store) -> None:
    await store.accept(accept_of(new_message()))
    (delivery,) = await claim_all(store)
    await store.settle(settlement_of(delivery, Event.DEFER, due_at=EPOCH + 2 * HOUR))
    assert await claim_all(store, at=EPOCH + 2 * HOUR - 1) == []
    (again,) = await claim_all(store, at=EPOCH + 2 * HOUR)
    assert again.recipients[0].attempts == 1
    assert again.attempt > delivery.attempt


async def test_three_recipients_with_three_fates(store: Store) -> None:
    message = new_message(1, ("a@b.example", "c@b.example", "d@b.example"))
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store)
    whole = settlement_of(delivery, Event.ACCEPTED)
    sent, deferred, bounced = whole.recipients
    mixed = [
        sent,
        type(deferred)(1, Event.DEFER, "temporary", "rcpt", True, EPOCH + 2 * HOUR, code=450),
        type(bounced)(2, Event.REFUSED, "bad-address", "rcpt", True, code=550, suppress="bad_address"),
    ]
    assert await store.settle(type(whole)(**{**_fields(whole), "recipients": mixed})) == 3
    assert await states(store, message.id) == [State.SENT, State.DEFERRED, State.BOUNCED]
    view = await store.get_message("acme", message.id)
    assert view is not None
    assert view.closed_at is None
    assert await store.suppressed("acme", ["d@b.example", "a@b.example"]) == {"d@b.example": "bad_address"}
    (again,) = await claim_all(store, at=EPOCH + 3 * HOUR)
    assert [each.email for each in again.recipients] == ["c@b.example"]


async def test_recipients_left_for_the_next_transaction_have_one_line_of_the_log_together(store: Store) -> None:
    message = new_message(1, ("a@b.example", "c@b.example", "d@b.example"))
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store)
    whole = settlement_of(delivery, Event.ACCEPTED)
    left = [
        RecipientSettlement(
            n, Event.DEFER, "too-many-recipients", "mail", False, EPOCH + HOUR, text="left", left_out=True
        )
        for n in (1, 2)
    ]
    settlement = replace(whole, recipients=[whole.recipients[0], *left])
    assert await store.settle(settlement) == 3
    assert await states(store, message.id) == [State.SENT, State.DEFERRED, State.DEFERRED]
    log = await store.list_events("acme", message.id)
    assert [(line.type, line.recipient, line.attempt is not None) for line in log] == [
        ("accepted", None, False),
        ("sent", "a@b.example", True),
        ("defer", None, True),
    ]
    assert log[2].data == {
        "relay": "r",
        "class": "too-many-recipients",
        "charged": False,
        "left_out": 2,
        "text": "left",
    }
    assert await store.settle(settlement) == 0
    assert len(await store.list_events("acme", message.id)) == 3, "a lost lease writes nothing"
    (again,) = await claim_all(store)
    assert [each.email for each in again.recipients] == ["c@b.example", "d@b.example"]


def _fields(settlement: object) -> dict[str, object]:
    return {name: getattr(settlement, name) for name in settlement.__slots__}  # type: ignore[attr-defined]


async def test_a_result_with_a_stale_fence_changes_nothing(store: Store, open_another) -> None:  # type: ignore[no-untyped-def]
    message = new_message()
    await store.accept(accept_of(message))
    (stale,) = await claim_all(store, lease=1)
    assert await store.rescue(EPOCH + HOUR + 1001, POLICY) == 1
    (fresh,) = await claim_all(store, at=EPOCH + 3 * HOUR)
    assert await store.settle(settlement_of(stale, Event.REFUSED)) == 0
    assert await states(store, message.id) == [State.SENDING]
    assert await store.settle(settlement_of(fresh, Event.ACCEPTED)) == 1
    assert await store.settle(settlement_of(fresh, Event.REFUSED)) == 0, "an attempt is closed once"
    assert await states(store, message.id) == [State.SENT]


async def test_a_heartbeat_keeps_a_lease_alive(store: Store) -> None:
    await store.accept(accept_of(new_message()))
    await claim_all(store, lease=1)
    assert await store.heartbeat("me", EPOCH + 2 * HOUR, 60) == 1
    assert await store.rescue(EPOCH + 2 * HOUR + 59_000, POLICY) == 0
    assert await store.rescue(EPOCH + 2 * HOUR + 61_000, POLICY) == 1


async def test_an_orphaned_attempt_is_in_doubt_and_repeated_after_the_delay(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    await claim_all(store, lease=1)
    now = EPOCH + 2 * HOUR
    await store.rescue(now, POLICY)
    view = await store.get_message("acme", message.id)
    assert view is not None
    (recipient,) = view.recipients
    assert (recipient.state, recipient.attempts, recipient.in_doubt) == (State.DEFERRED, 1, 1)
    assert recipient.due_at == now + 900_000


async def test_after_too_many_doubts_a_recipient_is_parked(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    at = EPOCH + HOUR
    for _ in range(3):
        await claim_all(store, at=at, lease=1)
        at += 2_000_000
        await store.rescue(at - 1_000_000, POLICY)
    assert await states(store, message.id) == [State.UNKNOWN]


@pytest.mark.parametrize(("started", "expected"), [(True, State.UNKNOWN), (False, State.QUEUED)])
async def test_at_most_once_is_in_doubt_only_when_its_content_was_started(
    store: Store, started: bool, expected: State
) -> None:
    message = new_message(1, delivery="at_most_once")
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store, lease=1)
    if started:
        assert await store.start_content(delivery.attempt, EPOCH + HOUR) == 1
    await store.rescue(EPOCH + 2 * HOUR, POLICY)
    assert await states(store, message.id) == [expected]
    assert await store.start_content(delivery.attempt, EPOCH + 2 * HOUR) == 0, "the lease is lost"


async def test_of_two_results_of_one_attempt_in_one_commit_the_first_counts(store: Store) -> None:
    await store.accept(accept_of(new_message(1), new_message(2)))
    first, other = await claim_all(store)
    results = [
        store.settle(settlement_of(first, Event.ACCEPTED)),
        store.settle(settlement_of(other, Event.DEFER, due_at=EPOCH + 2 * HOUR)),
        store.settle(settlement_of(first, Event.REFUSED)),
    ]
    assert await asyncio.gather(*results) == [1, 1, 0]
    assert await states(store, first.id) == [State.SENT]
    assert [line.type for line in await store.list_events("acme", first.id)].count(Event.ACCEPTED) == 1
    assert await states(store, other.id) == [State.DEFERRED]


async def test_a_message_that_kills_its_sender_again_and_again_is_failed_as_poison(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    at = EPOCH + HOUR
    policy = RescuePolicy(in_doubt_delay=1, max_in_doubt=9, max_kills=3)
    for expected in (State.DEFERRED, State.DEFERRED, State.FAILED):
        await claim_all(store, at=at, lease=1)
        at += 10_000
        await store.rescue(at, policy)
        assert await states(store, message.id) == [expected]
        at += 10_000


async def test_a_claim_ahead_that_never_began_is_no_kill_of_its_message(store: Store) -> None:
    """It waited for a session that was busy with another message, and that one is to blame."""
    killer, innocent = new_message(1), new_message(2)
    await store.accept(accept_of(killer, innocent))
    policy, at = RescuePolicy(in_doubt_delay=0, max_in_doubt=9, max_kills=2), EPOCH + HOUR
    for expected in (State.DEFERRED, State.FAILED):
        claimed = await claim_with_slots(store, 2, 1, at)
        assert [(each.id, each.ahead) for each in claimed] == [(killer.id, False), (innocent.id, True)]
        at += 120_000
        assert await store.rescue(at, policy) == 2
        assert await states(store, killer.id) == [expected]
        assert await states(store, innocent.id) == [State.QUEUED]


async def test_a_claim_ahead_whose_turn_had_come_is_a_kill_of_its_message(store: Store) -> None:
    await store.accept(accept_of(new_message(1), new_message(2)))
    *_, ahead = await claim_with_slots(store, 2, 1)
    assert await store.start_content(ahead.attempt, EPOCH + HOUR) == 1
    await store.rescue(EPOCH + 2 * HOUR, RescuePolicy(in_doubt_delay=1, max_in_doubt=9, max_kills=1))
    assert await states(store, ahead.id) == [State.FAILED]


async def test_a_dead_process_is_rescued_at_once_and_a_living_one_is_not(store: Store, open_another) -> None:  # type: ignore[no-untyped-def]
    await store.accept(accept_of(new_message(1), new_message(2)))
    dead = await open_another("dead")
    await claim_all(dead, limit=1, holder="dead", lease=3600)
    await claim_all(store, limit=1, holder="me", lease=3600)
    assert await store.rescue(EPOCH + HOUR + 1, POLICY) == 0
    await dead.close()
    assert await store.rescue(EPOCH + HOUR + 1, POLICY) == 1


async def test_expired_recipients_are_not_handed_out(store: Store) -> None:
    message = new_message(1, expires_at=EPOCH + 1000)
    await store.accept(accept_of(message))
    assert await claim_all(store) == []
    assert await states(store, message.id) == [State.EXPIRED]
    assert [event.type for event in await store.list_events("acme", message.id)] == ["accepted", "expire"]


async def test_expire_ends_what_waits_in_small_batches(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n, expires_at=EPOCH + n) for n in range(1, 6))))
    assert await store.expire(EPOCH + 4, 3) == 3
    assert await store.expire(EPOCH + 4, 3) == 1
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 1, State.EXPIRED: 4}


async def test_an_address_that_was_suppressed_meanwhile_is_not_sent_to(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    await store.add_suppression("acme", Suppression("Ada@Example.org", "manual", "api", EPOCH, None, ""))
    assert await claim_all(store) == []
    assert await states(store, message.id) == [State.SUPPRESSED]


async def test_due_routes_names_each_lane_once_with_its_first_due_time(store: Store) -> None:
    await store.accept(
        accept_of(new_message(1), new_message(2), new_message(3, priority=0), new_message(4, route="z||"))
    )
    assert list(await store.due_routes()) == [
        DueRoute(ROUTE, 0, EPOCH + 3),
        DueRoute(ROUTE, 1, EPOCH + 1),
        DueRoute("z||", 1, EPOCH + 4),
    ]


async def test_large_content_is_fetched_apart(store: Store) -> None:
    body = (b"x" * 76 + b"\r\n") * 20_000
    message = new_message(1, content=(b"head\r\n\r\n", body), size=8 + len(body))
    await store.accept(accept_of(message))
    (delivery,) = await claim_all(store)
    assert delivery.content is None
    content = await store.delivery_content(delivery.id)
    assert content is not None
    assert b"".join(content) == b"head\r\n\r\n" + body


async def test_a_claim_carries_no_more_than_some_bytes_and_the_rest_is_fetched_apart(store: Store) -> None:
    body = b"x" * 900_000
    for number in range(1, 8):
        await store.accept(accept_of(new_message(number, content=(b"head\r\n\r\n", body), size=8 + len(body))))
    deliveries = await claim_all(store)
    assert len(deliveries) == 7
    carried = [delivery.content is not None for delivery in deliveries]
    assert carried == sorted(carried, reverse=True), "the first ones have them"
    assert 0 < sum(carried) < 7
    for delivery in deliveries:
        content = delivery.content or await store.delivery_content(delivery.id)
        assert content is not None
        assert b"".join(content) == b"head\r\n\r\n" + body


async def test_a_backlog_that_is_over_does_not_hold_up_a_claim_and_does_not_hide_what_is_behind_it(
    store: Store,
) -> None:
    await store.accept(accept_of(*(new_message(number, expires_at=EPOCH + number + 1) for number in range(1, 500))))
    await store.accept(accept_of(new_message(600), new_message(601, route="other||")))
    claims = 0
    found = []
    while not found:
        found = await claim_all(store, limit=10)
        ended = (await store.stats(EPOCH)).counts.get(State.EXPIRED, 0)
        claims += 1
        assert ended <= 200 * claims, "a claim ends a bounded number of them"
    assert claims == 3
    assert [delivery.id for delivery in found] == [new_message(600).id]


async def test_the_sender_rule_of_an_attempt_in_doubt_is_handed_to_the_next_one(store: Store) -> None:
    await store.accept(accept_of(new_message()))
    (first,) = await claim_all(store)
    assert first.sealed_as is None
    doubtful = replace(settlement_of(first, Event.IN_DOUBT, due_at=EPOCH + 2 * HOUR), sealed_as="rule-a")
    await store.settle(doubtful)
    (second,) = await claim_all(store, at=EPOCH + 2 * HOUR, lease=1)
    assert second.sealed_as == "rule-a"
    await store.rescue(EPOCH + 3 * HOUR, POLICY)
    (third,) = await claim_all(store, at=EPOCH + 4 * HOUR)
    assert third.sealed_as == "rule-a", "a dead sender, whose rule nobody wrote down, does not hide it"


async def test_the_sender_rule_is_written_down_when_the_attempt_opens(store: Store) -> None:
    """So that it is known of a sender that was killed."""
    await store.accept(accept_of(new_message()))
    await store.claim(lambda: [Want(ROUTE, "r", 1, sealed_as="rule-b")], "me", lambda: EPOCH + HOUR, 1)
    await store.rescue(EPOCH + 2 * HOUR, POLICY)
    (again,) = await claim_all(store, at=EPOCH + 3 * HOUR)
    assert again.sealed_as == "rule-b"


async def claim_with_slots(store: Store, limit: int, slots: int, at: int = EPOCH + HOUR) -> list[Delivery]:
    wants = [Want(ROUTE, "r", limit, slots)]
    return list((await store.claim(lambda: wants, "me", lambda: at, 1)).deliveries)


async def test_what_is_claimed_beyond_the_free_slots_is_ahead_and_the_urgent_are_not(store: Store) -> None:
    urgent = new_message(4, priority=0)
    await store.accept(accept_of(new_message(1), new_message(2), new_message(3), urgent))
    found = {each.id: each.ahead for each in await claim_with_slots(store, 4, 2)}
    assert found == {urgent.id: False, new_message(1).id: False, new_message(2).id: True, new_message(3).id: True}


async def test_a_claim_ahead_is_in_doubt_only_when_its_content_was_marked(store: Store) -> None:
    """A killed sender leaves no more in doubt than it had connections, however far it claimed ahead."""
    await store.accept(accept_of(new_message(1), new_message(2), new_message(3)))
    begun, marked, waiting = await claim_with_slots(store, 3, 1)
    assert await store.start_content(marked.attempt, EPOCH + HOUR) == 1
    await store.rescue(EPOCH + 2 * HOUR, POLICY)
    doubts = {}
    for delivery in (begun, marked, waiting):
        view = await store.get_message("acme", delivery.id)
        assert view is not None
        doubts[delivery.id] = [(each.state, each.in_doubt, each.attempts) for each in view.recipients]
    assert doubts == {
        begun.id: [(State.DEFERRED, 1, 1)],
        marked.id: [(State.DEFERRED, 1, 1)],
        waiting.id: [(State.QUEUED, 0, 0)],
    }


async def test_a_settlement_is_queued_by_the_call(store: Store) -> None:
    """Whatever is claimed or marked after the call is durable no sooner than it."""
    await store.accept(accept_of(new_message(1), new_message(2)))
    (first,) = await claim_all(store, limit=1)
    settling = store.settle(settlement_of(first, Event.ACCEPTED))
    await claim_all(store, limit=1)
    assert await states(store, first.id) == [State.SENT]
    assert await settling == 1


async def test_a_delivery_says_what_its_date_is(store: Store) -> None:
    scheduled = new_message(2, scheduled_at=EPOCH + 5, due_at=EPOCH + 5)
    await store.accept(accept_of(new_message(1), scheduled))
    assert {each.id: each.dated_at for each in await claim_all(store)} == {
        new_message(1).id: new_message(1).created_at,
        scheduled.id: EPOCH + 5,
    }


async def test_an_attempt_that_ends_as_poison_is_counted_as_in_doubt_too(store: Store) -> None:
    """A copy may be out: duplicates stay bounded by the attempts in doubt."""
    message = new_message()
    await store.accept(accept_of(message))
    await claim_all(store, lease=1)
    await store.rescue(EPOCH + 2 * HOUR, RescuePolicy(900, 2, 1))
    view = await store.get_message("acme", message.id)
    assert view is not None
    (recipient,) = view.recipients
    assert (recipient.state, recipient.attempts, recipient.in_doubt) == (State.FAILED, 1, 1)


async def test_a_hint_reaches_the_other_process_and_not_oneself(store: Store, open_another) -> None:  # type: ignore[no-untyped-def]
    other, heard = await open_another(), asyncio.Event()
    store.on_hint(lambda: pytest.fail("a process knows what it queued itself"))
    other.on_hint(heard.set)
    await store.accept(accept_of(new_message()))
    async with asyncio.timeout(5):
        await heard.wait()


async def test_a_closed_attempt_is_never_written_again(store: Store) -> None:
    await store.accept(accept_of(new_message()))
    (lost,) = await claim_all(store, lease=1)
    await store.rescue(EPOCH + 2 * HOUR, POLICY)
    late = replace(settlement_of(lost, Event.IN_DOUBT, due_at=EPOCH + 3 * HOUR), sealed_as="too-late")
    assert await store.settle(late) == 0
    (again,) = await claim_all(store, at=EPOCH + 4 * HOUR)
    assert again.sealed_as is None


async def test_a_retry_starts_the_count_of_kills_anew(store: Store) -> None:
    message, at = new_message(), EPOCH + HOUR
    await store.accept(accept_of(message))
    policy = RescuePolicy(in_doubt_delay=1, max_in_doubt=9, max_kills=2)
    for expected in (State.DEFERRED, State.FAILED, State.DEFERRED, State.FAILED):
        await claim_all(store, at=at, lease=1)
        await store.rescue(at + 10_000, policy)
        assert await states(store, message.id) == [expected]
        at += 20_000
        if expected is State.FAILED:
            assert await store.retry("acme", message.id, at, at, EPOCH + 99 * HOUR) == 1
