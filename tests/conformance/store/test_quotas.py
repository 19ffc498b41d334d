"""Quotas of relays: a claim hands out what every one of them still allows, over processes, restarts and kills."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.mail.lifecycle import Event, State
from service.mail.quota import Per, Quota
from service.store.port import Store
from service.store.values import Claimed, Delivery, RescuePolicy, Settlement, Want
from tests.support.clock import EPOCH
from tests.support.sending import quota
from tests.support.store_data import HOUR, ROUTE, accept_of, claim_all, new_message, settlement_of, states

NOW = EPOCH + HOUR
POLICY = RescuePolicy(in_doubt_delay=900, max_in_doubt=2, max_kills=10)


def exact(text: str, per: Per = Per.RELAY, **given: object) -> Quota:
    """Without guard and headroom."""
    return quota(text, per, **{"guard": 0.0, "headroom": 0.0, **given})  # type: ignore[arg-type]


async def claim(
    store: Store, *quotas: Quota, at: int = NOW, limit: int = 100, relay: str = "r", route: str = ROUTE, holder: str = "me",
    **given: object,
) -> Claimed:  # fmt: skip
    """Claim for one relay with these quotas."""
    want = Want(route, relay, limit, quotas=quotas, **given)  # type: ignore[arg-type]
    return await store.claim(lambda: [want], holder, lambda: at, 60)


async def settle_all(
    store: Store, deliveries: Sequence[Delivery], event: Event = Event.ACCEPTED, **given: object
) -> None:
    for each in deliveries:
        assert await store.settle(settlement_of(each, event, **given)) == len(each.recipients)  # type: ignore[arg-type]


def given_back(delivery: Delivery) -> Settlement:
    """No MAIL FROM was written."""
    return replace(settlement_of(delivery, Event.NOT_STARTED, due_at=NOW), unspent=True)


async def fill(store: Store, count: int, **given: object) -> None:
    await store.accept(accept_of(*(new_message(n, **given) for n in range(1, count + 1))))


async def test_a_claim_hands_out_what_is_left_and_tells_until_when_there_is_no_more(store: Store) -> None:
    await fill(store, 10)
    first = await claim(store, exact("3/m"))
    assert [each.id for each in first.deliveries] == [new_message(n).id for n in (1, 2, 3)]
    (held,) = first.held
    assert (held.relay, held.priority, held.until, held.quota) == ("r", 1, NOW + 60_000, "3/m")
    again = await claim(store, exact("3/m"), at=NOW + 59_999)
    assert (again.deliveries, len(again.held)) == ([], 1)


async def test_a_claim_that_is_not_cut_short_holds_nothing(store: Store) -> None:
    await fill(store, 3)
    found = await claim(store, exact("3/m"))
    assert (len(found.deliveries), found.held, found.cut) == (3, (), False)


async def test_what_was_taken_counts_from_the_end_of_its_transaction(store: Store) -> None:
    """The relay may have counted it at any moment up to then."""
    await fill(store, 5)
    first = await claim(store, exact("2/m"))
    await settle_all(store, first.deliveries, at=NOW + 10_000)
    early = await claim(store, exact("2/m"), at=NOW + 69_999)
    assert early.deliveries == []
    assert early.held[0].until == NOW + 70_000
    assert len((await claim(store, exact("2/m"), at=NOW + 70_000)).deliveries) == 2


async def test_the_strictest_of_several_quotas_decides_and_the_last_to_be_free_tells_until_when(store: Store) -> None:
    await fill(store, 10)
    quotas = exact("2/s"), exact("3/m"), exact("100/h")
    first = await claim(store, *quotas)
    await settle_all(store, first.deliveries, at=NOW)
    assert len(first.deliveries) == 2
    second = await claim(store, *quotas, at=NOW + 1000)
    assert len(second.deliveries) == 1
    assert second.held[0].quota == "3/m"
    assert second.held[0].until == NOW + 60_000
    use = await store.quota_use(quotas, NOW + 1000)
    assert [(each.used, each.in_flight) for each in use] == [(1, 1), (3, 1), (3, 1)], "nothing is taken but what goes"


async def test_a_relay_that_has_used_up_two_quotas_waits_for_both(store: Store) -> None:
    await fill(store, 5)
    for quotas in ((exact("2/m"), exact("2/h")), (exact("2/h"), exact("2/m"))):
        found = await claim(store, *quotas)
        assert [(each.until, each.quota) for each in found.held] == [(NOW + HOUR, "2/h")]


async def test_no_burst_of_twice_the_count_at_the_edge_of_a_window(store: Store) -> None:
    await fill(store, 40)
    times = [NOW + 500 * n for n in range(300)]
    taken: list[int] = []
    for at in times:
        found = await claim(store, exact("10/m"), at=at, limit=3)
        await settle_all(store, found.deliveries, at=at)
        taken += [at] * len(found.deliveries)
    assert all(sum(start <= at < start + 60_000 for at in taken) <= 10 for start in taken)
    assert len(taken) == 30


async def test_what_is_given_back_without_mail_from_is_free_again_once(store: Store) -> None:
    await fill(store, 5)
    limit = exact("2/h")
    first, second = (await claim(store, limit)).deliveries
    back = given_back(first)
    assert await store.settle(back) == 1
    assert await store.settle(back) == 0, "an attempt is closed once"
    await settle_all(store, [second], at=NOW)
    (use,) = await store.quota_use([limit], NOW)
    assert (use.used, use.in_flight) == (1, 0)
    assert len((await claim(store, limit)).deliveries) == 1


async def test_what_got_as_far_as_mail_from_counts_whatever_became_of_it(store: Store) -> None:
    await fill(store, 3)
    for event, due_at in ((Event.NOT_STARTED, NOW), (Event.DEFER, NOW + HOUR), (Event.REFUSED, None)):
        (delivery,) = (await claim(store, exact("3/h"), limit=1)).deliveries
        await settle_all(store, [delivery], event, due_at=due_at)
    (use,) = await store.quota_use([exact("3/h")], NOW)
    assert (use.used, use.free_at) == (3, NOW + HOUR)
    assert (await claim(store, exact("3/h"))).deliveries == []


async def test_a_dead_sender_gives_nothing_back(store: Store) -> None:
    await fill(store, 5)
    limit = exact("2/h")
    first = (await claim(store, limit, slots=1)).deliveries
    assert [each.ahead for each in first] == [False, True]
    assert await store.rescue(NOW + 61_000, POLICY) == 2
    (use,) = await store.quota_use([limit], NOW + 61_000)
    assert (use.used, use.in_flight) == (2, 0), "nobody knows what the relay has seen of them"
    for each in first:
        assert await store.settle(given_back(each)) == 0
    assert (await store.quota_use([limit], NOW + 61_000))[0].used == 2
    assert (await claim(store, limit, at=NOW + HOUR + 60_999)).deliveries == []
    assert len((await claim(store, limit, at=NOW + HOUR + 61_000)).deliveries) == 2


async def test_what_was_taken_is_known_after_a_restart_and_to_others(store: Store, open_another) -> None:  # type: ignore[no-untyped-def]
    await fill(store, 10)
    other = await open_another()
    got = [len((await claim(each, exact("5/h"), limit=2)).deliveries) for each in (store, other, store, other)]
    assert got == [2, 2, 1, 0]
    await store.close()
    later = await open_another("later")
    assert (await claim(later, exact("5/h"))).deliveries == []


async def test_housekeeping_leaves_what_still_counts(store: Store) -> None:
    await fill(store, 5)
    limit = exact("2/m")
    deliveries = (await claim(store, limit)).deliveries
    await store.purge_keys(NOW + 10 * HOUR, 0, 100)
    assert (await store.quota_use([limit], NOW))[0].in_flight == 2
    await settle_all(store, deliveries, at=NOW)
    await store.purge_keys(NOW + 59_999, 0, 100)
    assert (await store.quota_use([limit], NOW + 59_999))[0].used == 2


# --- units --------------------------------------------------------------------------------------------------------


def crowd(count: int) -> tuple[str, ...]:
    return tuple(f"r{n}@example.org" for n in range(count))


async def test_a_quota_counts_messages_unless_it_says_recipients(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n, crowd(4)) for n in (1, 2, 3))))
    assert len((await claim(store, exact("2/h"))).deliveries) == 2
    assert (await store.quota_use([exact("2/h")], NOW))[0].used == 2


async def test_a_message_waits_until_all_its_recipients_fit(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n, crowd(4)) for n in (1, 2, 3))))
    found = await claim(store, exact("10/h recipients"))
    assert [len(each.recipients) for each in found.deliveries] == [4, 4]
    assert found.held[0].quota == "10/h recipients"
    assert (await store.quota_use([exact("10/h recipients")], NOW))[0].used == 8


async def test_a_message_with_more_recipients_than_a_quota_ever_allows_goes_in_parts(store: Store) -> None:
    message = new_message(1, crowd(10))
    await store.accept(accept_of(message))
    limit = exact("4/m recipients")
    seen: list[str] = []
    for round_ in range(3):
        found = await claim(store, limit, at=NOW + round_ * 60_000)
        (delivery,) = found.deliveries
        seen += [each.email for each in delivery.recipients]
        assert found.cut or round_ == 2, "the rest is still there to be claimed"
        await settle_all(store, [delivery], at=NOW + round_ * 60_000)
    assert seen == list(crowd(10))
    assert await states(store, message.id) == [State.SENT] * 10


async def test_a_relay_that_takes_fewer_recipients_at_once_is_charged_for_those_alone(store: Store) -> None:
    await store.accept(accept_of(new_message(1, crowd(5))))
    limit = exact("100/h recipients")
    found = await claim(store, limit, limit=1, max_recipients=2)
    assert [len(each.recipients) for each in found.deliveries] == [2]
    assert (await store.quota_use([limit], NOW))[0].used == 2


# --- per recipient and per domain -----------------------------------------------------------------------------------


async def test_a_recipient_whose_quota_is_used_up_is_put_off_and_the_others_go(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n, ("flood@a.example",)) for n in (1, 2, 3)), new_message(4)))
    limit = exact("2/h", Per.RECIPIENT)
    found = await claim(store, limit)
    assert [each.id for each in found.deliveries] == [new_message(n).id for n in (1, 2, 4)]
    assert found.held == (), "the relay itself is free"
    view = await store.get_message("acme", new_message(3).id)
    assert view is not None
    (recipient,) = view.recipients
    assert (recipient.state, recipient.due_at, recipient.attempts) == (State.QUEUED, NOW + HOUR, 0)
    assert recipient.held_by == "r 2/h per recipient"
    await settle_all(store, found.deliveries, at=NOW)
    assert (await claim(store, limit, at=NOW + HOUR - 1)).deliveries == []
    (last,) = (await claim(store, limit, at=NOW + HOUR)).deliveries
    await settle_all(store, [last], Event.DEFER, due_at=NOW + 2 * HOUR)
    view = await store.get_message("acme", new_message(3).id)
    assert view is not None
    assert view.recipients[0].held_by is None, "what it waits for now is the schedule"


async def test_an_address_is_the_same_in_any_case(store: Store) -> None:
    await store.accept(accept_of(new_message(1, ("Ada@Example.org",)), new_message(2, ("Ada@EXAMPLE.org",))))
    assert len((await claim(store, exact("1/h", Per.RECIPIENT))).deliveries) == 1


async def test_only_the_recipient_that_is_held_stays_behind(store: Store) -> None:
    await store.accept(accept_of(new_message(1, ("a@a.example",)), new_message(2, ("a@a.example", "b@b.example"))))
    found = await claim(store, exact("1/h", Per.RECIPIENT))
    assert [[each.email for each in delivery.recipients] for delivery in found.deliveries] == [
        ["a@a.example"],
        ["b@b.example"],
    ]


async def test_a_quota_of_domains_counts_messages_to_each(store: Store) -> None:
    both = ("a@x.example", "b@x.example")
    await store.accept(
        accept_of(new_message(1, both), new_message(2, both), new_message(3, ("c@x.example", "d@y.example")))
    )
    found = await claim(store, exact("2/h", Per.DOMAIN))
    assert [[each.email for each in delivery.recipients] for delivery in found.deliveries] == [
        [*both],
        [*both],
        ["d@y.example"],
    ]


async def test_a_quota_of_domains_can_count_recipients(store: Store) -> None:
    await store.accept(accept_of(new_message(1, ("a@x.example", "b@x.example", "c@x.example"))))
    (delivery,) = (await claim(store, exact("2/h recipients", Per.DOMAIN))).deliveries
    assert [each.email for each in delivery.recipients] == ["a@x.example", "b@x.example"]


async def test_nobody_is_put_off_beyond_the_expiry(store: Store) -> None:
    await store.accept(accept_of(new_message(1), new_message(2, expires_at=NOW + 1000)))
    await claim(store, exact("1/h", Per.RECIPIENT))
    view = await store.get_message("acme", new_message(2).id)
    assert view is not None
    assert view.recipients[0].due_at == NOW + 1000
    assert await store.expire(NOW + 1000, 10) == 1


async def test_a_relay_that_is_asked_for_the_same_route_takes_whom_the_first_can_not(store: Store) -> None:
    await fill(store, 3)
    wants = [Want(ROUTE, "a", 5, quotas=(exact("1/h", Per.RECIPIENT),)), Want(ROUTE, "b", 5)]
    found = await store.claim(lambda: wants, "me", lambda: NOW, 60)
    assert sorted(each.relay for each in found.deliveries) == ["a", "b", "b"]
    assert len({each.id for each in found.deliveries}) == 3


async def test_what_a_relay_leaves_for_its_quota_goes_by_the_next_one_in_the_same_claim(store: Store) -> None:
    await fill(store, 2)
    used_up = exact("1/m")
    assert len((await claim(store, used_up)).deliveries) == 1
    wants = [Want(ROUTE, "r", 5, quotas=(used_up,)), Want(ROUTE, "free", 5)]
    found = await store.claim(lambda: wants, "me", lambda: NOW, 60)
    assert [each.relay for each in found.deliveries] == ["free"]


async def test_whom_no_relay_can_take_waits_for_the_one_that_is_free_first(store: Store) -> None:
    await fill(store, 3)
    wants = [
        Want(ROUTE, "a", 5, quotas=(exact("1/h", Per.RECIPIENT),)),
        Want(ROUTE, "b", 5, quotas=(exact("1/m", account="b"),)),
    ]
    found = await store.claim(lambda: wants, "me", lambda: NOW, 60)
    assert [each.relay for each in found.deliveries] == ["a", "b"]
    view = await store.get_message("acme", new_message(3).id)
    assert view is not None
    assert (view.recipients[0].due_at, view.recipients[0].held_by) == (NOW + 60_000, "b 1/m")


async def test_where_another_relay_may_carry_it_a_recipient_is_offered_again_soon(store: Store) -> None:
    await fill(store, 2)
    await claim(store, exact("1/h", Per.RECIPIENT), elsewhere=True)
    assert await claim_all(store, at=NOW + 4999, relay="b") == []
    assert len(await claim_all(store, at=NOW + 5000, relay="b")) == 1


async def test_thousands_for_one_recipient_do_not_stop_the_claim_of_others(store: Store) -> None:
    for start in range(1, 1001, 500):
        await store.accept(accept_of(*(new_message(start + n, ("flood@a.example",)) for n in range(500))))
    await store.accept(accept_of(new_message(5000, ("other@b.example",))))
    limit, found, claims = exact("1/h", Per.RECIPIENT), list[str](), 0
    while True:
        claimed = await claim(store, limit)
        found += [each.id for each in claimed.deliveries]
        claims += 1
        if not claimed.cut:
            break
    assert claims == 5, "200 are put off by each, so that none takes long"
    assert found == [new_message(1).id, new_message(5000).id]


# --- calendar days --------------------------------------------------------------------------------------------------


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


async def test_a_quota_of_a_calendar_day_begins_anew_at_the_midnight_of_its_zone(store: Store) -> None:
    evening = moment("2025-11-26T15:59:00")  # 23:59 in Shanghai
    await fill(store, 9)
    limit = exact("3/day", zone="Asia/Shanghai")
    first = await claim(store, limit, at=evening)
    assert len(first.deliveries) == 3
    midnight = moment("2025-11-26T16:00:00")
    assert first.held[0].until == midnight
    await settle_all(store, first.deliveries, at=evening + 1000)
    assert (await claim(store, limit, at=midnight - 1)).deliveries == []
    assert len((await claim(store, limit, at=midnight)).deliveries) == 3
    assert (await claim(store, limit, at=midnight + 23 * HOUR)).deliveries == []


async def test_what_is_in_flight_at_midnight_counts_on_the_day_on_which_it_ends(store: Store) -> None:
    await fill(store, 9)
    limit, midnight = exact("3/day", zone="Asia/Shanghai"), moment("2025-11-26T16:00:00")
    first = (await claim(store, limit, at=midnight - 1000)).deliveries
    await settle_all(store, first[:2], at=midnight - 500)
    assert len((await claim(store, limit, at=midnight + 100)).deliveries) == 2
    await settle_all(store, first[2:], at=midnight + 200)
    assert (await claim(store, limit, at=midnight + 300)).deliveries == []


async def test_the_same_count_in_any_24_hours_is_another_quota(store: Store) -> None:
    await fill(store, 9)
    evening, midnight = moment("2025-11-26T15:59:00"), moment("2025-11-26T16:00:00")
    first = await claim(store, exact("3/d"), at=evening)
    await settle_all(store, first.deliveries, at=evening)
    assert (await claim(store, exact("3/d"), at=midnight)).held[0].until == evening + 24 * HOUR


async def test_the_guard_makes_a_window_longer_and_a_day_begin_later(store: Store) -> None:
    await fill(store, 9)
    first = await claim(store, quota("2/m", headroom=0), at=NOW)
    await settle_all(store, first.deliveries, at=NOW)
    assert (await claim(store, quota("2/m", headroom=0), at=NOW)).held[0].until == NOW + 61_000
    day = quota("2/day", zone="UTC", headroom=0, account="other")
    await claim(store, day, at=NOW)
    midnight = (NOW // (24 * HOUR) + 1) * 24 * HOUR
    assert (await claim(store, day, at=NOW)).held[0].until == midnight + 1000
    assert (await claim(store, day, at=midnight + 999)).deliveries == []


# --- headroom, and what is shared -----------------------------------------------------------------------------------


async def test_a_share_of_a_quota_is_for_priority_high_alone(store: Store) -> None:
    limit = exact("10/h", headroom=0.2)
    await fill(store, 20)
    normal = await claim(store, limit)
    assert len(normal.deliveries) == 8
    assert [(each.priority) for each in normal.held] == [1]
    await store.accept(accept_of(*(new_message(100 + n, priority=0) for n in range(3))))
    high = await claim(store, limit, least=0)
    assert [each.priority for each in high.deliveries] == [0, 0]
    assert [each.priority for each in high.held] == [0]
    (use,) = await store.quota_use([limit], NOW)
    assert (use.used, use.free_at, use.free_at_high) == (10, NOW + HOUR, NOW + HOUR)


async def test_high_priority_goes_first_and_may_use_all(store: Store) -> None:
    limit = exact("4/h", headroom=0.5)
    await fill(store, 5)
    await store.accept(accept_of(*(new_message(100 + n, priority=0) for n in range(3))))
    found = await claim(store, limit)
    assert [each.priority for each in found.deliveries] == [0, 0, 0], (
        "normal mail may use two of four, and three are taken"
    )


async def test_however_large_the_headroom_one_is_left_for_the_others(store: Store) -> None:
    await fill(store, 5)
    assert len((await claim(store, exact("2/h", headroom=0.9))).deliveries) == 1


async def test_a_claim_can_be_for_high_priority_alone(store: Store) -> None:
    await fill(store, 3)
    assert (await claim(store, least=0)).deliveries == []


async def test_relays_with_one_login_share_what_it_may_send(store: Store) -> None:
    await fill(store, 5)
    assert len((await claim(store, exact("3/h"), limit=2, relay="a")).deliveries) == 2
    found = await claim(store, exact("3/h"), relay="b")
    assert (len(found.deliveries), found.held[0].relay) == (1, "b")
    assert len((await claim(store, exact("3/h", account="you@r"), relay="c")).deliveries) == 2


@pytest.mark.parametrize(("before", "after", "left"), [("2/h", "5/h", 3), ("5/h", "2/h", 0), ("300/h", "3/h", 0)])
async def test_a_count_that_was_changed_remembers_what_was_taken(
    store: Store, before: str, after: str, left: int
) -> None:
    await fill(store, 5 + left)
    first = await claim(store, exact(before), limit=5)
    await settle_all(store, first.deliveries, at=NOW)
    assert len((await claim(store, exact(after))).deliveries) == left


async def test_several_wants_of_one_relay_share_its_quota(store: Store) -> None:
    await store.accept(
        accept_of(
            *(new_message(n, route="a||") for n in range(1, 6)), *(new_message(n, route="b||") for n in range(6, 11))
        )
    )
    wants = [Want(route, "r", 5, quotas=(exact("6/h"),)) for route in ("a||", "b||")]
    found = await store.claim(lambda: wants, "me", lambda: NOW, 60)
    assert [each.route for each in found.deliveries] == ["a||"] * 5 + ["b||"]


async def test_a_relay_without_quotas_takes_nothing(store: Store) -> None:
    await fill(store, 5)
    assert len((await claim(store)).deliveries) == 5
    assert (await store.quota_use([exact("3/h")], NOW))[0].used == 0


async def test_a_clock_that_ran_far_ahead_and_was_set_right_holds_for_one_window_and_no_longer(store: Store) -> None:
    await fill(store, 5)
    first = await claim(store, exact("2/m"), at=NOW + 50 * HOUR)
    await settle_all(store, first.deliveries, at=NOW + 50 * HOUR)
    assert (await claim(store, exact("2/m"))).held[0].until == NOW + 60_000
    assert len((await claim(store, exact("2/m"), at=NOW + 60_000)).deliveries) == 2
