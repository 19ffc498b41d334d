"""Accepting: all or nothing, once for each key, within the limits."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from service.errors import ConcurrentIdempotentRequests
from service.mail.lifecycle import State
from service.store.port import Store
from service.store.values import Accepted, IdempotencyKey, ItemKey, KeyMismatch, Limited, NewRecipient, Replayed
from service.store.views import SPAN
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, states, take_of


async def test_an_accepted_message_is_there_as_it_was_given(store: Store) -> None:
    message = new_message(1, ("ada@example.org", "bob@example.org"), tags=(("a", "b"),), metadata=(("order", "7"),))
    assert await store.accept(accept_of(message)) == Accepted()
    view = await store.get_message("acme", message.id)
    assert view is not None
    assert (view.id, view.message_id, view.subject, view.tags, view.metadata) == (
        message.id,
        message.message_id,
        "Hello",
        (("a", "b"),),
        (("order", "7"),),
    )
    assert [(each.email, each.state, each.due_at) for each in view.recipients] == [
        ("ada@example.org", State.QUEUED, message.due_at),
        ("bob@example.org", State.QUEUED, message.due_at),
    ]
    assert await store.get_content("acme", message.id) == message.content
    assert [event.type for event in await store.list_events("acme", message.id)] == ["accepted"]


async def test_another_account_sees_nothing(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    assert await store.get_message("rival", message.id) is None
    assert await store.get_content("rival", message.id) is None
    assert await store.list_events("rival", message.id) == []
    assert await store.cancel("rival", message.id, EPOCH) == 0
    assert await store.erase("rival", message.id, EPOCH) is False
    assert await store.retry("rival", message.id, EPOCH, EPOCH, EPOCH) == 0


async def test_the_same_request_gets_the_kept_answer_and_stores_nothing_twice(store: Store) -> None:
    assert await store.accept(accept_of(new_message(1), key="k")) == Accepted()
    assert await store.accept(accept_of(new_message(2), key="k")) == Replayed(b"answer k")
    assert await store.get_message("acme", new_message(2).id) is None
    assert await store.find_answer("acme", IdempotencyKey("k", b"f")) == Replayed(b"answer k")


async def test_another_request_under_the_same_key_is_a_mismatch(store: Store) -> None:
    await store.accept(accept_of(new_message(1), key="k"))
    assert await store.accept(accept_of(new_message(2), key="k", print_=b"other")) == KeyMismatch()
    assert await store.find_answer("acme", IdempotencyKey("k", b"other")) == KeyMismatch()


async def test_keys_of_two_accounts_are_apart(store: Store) -> None:
    await store.accept(accept_of(new_message(1), key="k"))
    assert await store.accept(accept_of(new_message(2, account="rival"), key="k", print_=b"other")) == Accepted()
    assert await store.find_answer("third", IdempotencyKey("k", b"f")) is None


async def test_two_hundred_at_once_on_one_key_make_one_message(
    store: Store, open_another: Callable[..., Awaitable[Store]]
) -> None:
    """By two processes, half each: neither sees what waits in the other for its commit."""
    both = (store, await open_another())
    asked = [both[n % 2].accept(accept_of(new_message(n), key="k")) for n in range(1, 201)]
    answers = await asyncio.gather(*asked)
    assert answers.count(Accepted()) == 1
    assert answers.count(Replayed(b"answer k")) == 199
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 1}


async def test_an_item_of_a_batch_keeps_its_own_answer(store: Store) -> None:
    item = ItemKey("item-1", b"p", b"item answer")
    await store.accept(accept_of(new_message(1, item=item), new_message(2)))
    assert await store.find_answer("acme", IdempotencyKey("item-1", b"p")) == Replayed(b"item answer")


async def test_an_items_own_key_outlives_its_open_message(store: Store) -> None:
    item, late = ItemKey("item-1", b"p", b"item answer"), EPOCH + 48 * HOUR
    await store.accept(accept_of(new_message(1, item=item), key="k"))
    assert await store.purge_keys(late, 24 * 3600, 10) == 0, "the message is open"
    assert await store.find_answer("acme", IdempotencyKey("item-1", b"p")) == Replayed(b"item answer")
    await store.cancel("acme", new_message(1).id, late)
    assert await store.purge_keys(late + 25 * HOUR, 24 * 3600, 10) == 2
    assert await store.find_answer("acme", IdempotencyKey("item-1", b"p")) is None


async def test_each_message_of_a_batch_has_its_own_rows(store: Store) -> None:
    """Rows of many messages are written together; one may hold others' recipients, bytes or tags by no mistake."""
    big = bytes(64 * 1024)
    made = [
        new_message(
            number,
            tuple(f"user{number}-{n}@example.org" for n in range(number % 3 + 1)),
            item=ItemKey(f"item-{number}", b"p", b"answer %d" % number) if number % 5 == 0 else None,
            content=(b"Subject: %d\r\n\r\n" % number, *([big] if number % 7 == 0 else [])),
            tags=(("number", str(number)),) if number % 2 else (),
        )
        for number in range(1, 41)
    ]
    await store.accept(accept_of(*made, key="batch"))
    for number, message in enumerate(made, 1):
        view = await store.get_message("acme", message.id)
        assert view is not None
        assert [each.email for each in view.recipients] == [each.email for each in message.recipients]
        assert view.tags == message.tags
        assert b"".join(await store.get_content("acme", message.id) or ()) == b"".join(message.content)
        assert [event.type for event in await store.list_events("acme", message.id)] == ["accepted"]
        kept = await store.find_answer("acme", IdempotencyKey(f"item-{number}", b"p"))
        assert kept == (Replayed(b"answer %d" % number) if message.item else None)


async def test_takes_of_one_limiter_within_a_submission_add_up(store: Store) -> None:
    takes = [take_of(f"to:{number % 20}", 3, 60.0) for number in range(60)]
    assert await store.accept(accept_of(new_message(1), takes=takes)) == Accepted()
    for number in (0, 19):
        refused = await store.accept(accept_of(new_message(2), takes=[take_of(f"to:{number}", 3, 60.0)]))
        assert isinstance(refused, Limited)


async def test_keys_that_are_still_needed_do_not_stand_in_the_way_of_others(store: Store) -> None:
    for number in range(1, 8):
        await store.accept(accept_of(new_message(number), key=f"k{number}"))
    await store.cancel("acme", new_message(7).id, EPOCH)
    assert await store.purge_keys(EPOCH + 48 * HOUR, 24 * 3600, 2) == 1
    assert await store.find_answer("acme", IdempotencyKey("k7", b"f")) is None
    for number in range(1, 7):
        assert await store.find_answer("acme", IdempotencyKey(f"k{number}", b"f")) is not None


async def test_a_large_batch_is_stored_whole_or_not_at_all_while_others_are_accepted(store: Store) -> None:
    """It pauses within its transaction, and yet nobody sees a part of it."""
    batch = [new_message(number) for number in range(1, 401)]
    taken = new_message(300)
    await store.accept(accept_of(replace(taken, item=ItemKey("used", b"p", b"a"), id=new_message(900).id)))
    batch[299] = replace(taken, item=ItemKey("used", b"p", b"a"))
    results = await asyncio.gather(
        store.accept(accept_of(*batch, key="batch")),
        *(store.accept(accept_of(new_message(number))) for number in range(1000, 1050)),
        return_exceptions=True,
    )
    assert isinstance(results[0], ConcurrentIdempotentRequests)
    assert results[1:] == [Accepted()] * 50
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 51}
    assert await store.find_answer("acme", IdempotencyKey("batch", b"f")) is None


async def test_messages_of_any_size_share_a_commit_and_keep_their_bytes(store: Store) -> None:
    sizes = [10, 70_000, 700_000, 3_000_000, 20, 5_000_000]
    messages = []
    for number, size in enumerate(sizes, 1):
        pieces = (b"head %d\r\n\r\n" % number, bytes([number]) * size, b"\r\ntail\r\n")
        messages.append(new_message(number, content=pieces, size=sum(map(len, pieces))))
    assert await asyncio.gather(*(store.accept(accept_of(message)) for message in messages)) == [Accepted()] * 6
    for message in messages:
        content = await store.get_content("acme", message.id)
        assert content is not None
        assert b"".join(content) == b"".join(message.content)


async def test_a_limiter_refuses_the_whole_submission(store: Store) -> None:
    for n in range(3):
        assert await store.accept(accept_of(new_message(n + 1), takes=[take_of("t", 3, 60)])) == Accepted()
    refused = await store.accept(
        accept_of(new_message(4), key="k", takes=[take_of("other", 9, 60), take_of("t", 3, 60)])
    )
    assert isinstance(refused, Limited)
    assert 0 < refused.retry_after <= 64
    assert await store.get_message("acme", new_message(4).id) is None
    assert await store.find_answer("acme", IdempotencyKey("k", b"f")) is None, "the key is not burnt"


async def test_a_limiter_holds_over_two_processes(store: Store, open_another) -> None:  # type: ignore[no-untyped-def]
    other = await open_another()
    results = await asyncio.gather(
        *(each.accept(accept_of(new_message(n * 2 + i), takes=[take_of("t", 5, 60)]))
          for n in range(1, 11) for i, each in enumerate((store, other)))
    )  # fmt: skip
    assert results.count(Accepted()) == 5


async def test_suppressed_recipients_are_never_queued(store: Store) -> None:
    message = new_message(
        1, recipients=(NewRecipient("a@b.example", "", "to", State.SUPPRESSED), NewRecipient("c@b.example", "", "cc"))
    )
    await store.accept(accept_of(message))
    assert await states(store, message.id) == [State.SUPPRESSED, State.QUEUED]
    (delivery,) = await claim_all(store)
    assert [recipient.email for recipient in delivery.recipients] == ["c@b.example"]


async def test_a_large_piece_used_by_many_is_kept_once_and_goes_with_the_last(store: Store) -> None:
    big = bytes(range(256)) * 1024
    pieces = (b"head\r\n", big, b"tail\r\n")
    messages = [new_message(n, content=pieces, size=sum(map(len, pieces))) for n in (1, 2, 3)]
    await store.accept(accept_of(*messages))
    for message in messages:
        content = await store.get_content("acme", message.id)
        assert content is not None
        assert b"".join(content) == b"".join(pieces)
    await store.erase("acme", messages[0].id, EPOCH)
    await store.erase("acme", messages[1].id, EPOCH)
    last = await store.get_content("acme", messages[2].id)
    assert last is not None
    assert big in last


async def test_stats_count_recipients_and_the_oldest_due_of_each_priority(store: Store) -> None:
    await store.accept(
        accept_of(new_message(1, ("a@b.example", "c@d.example"), priority=0), new_message(2, priority=2))
    )
    stats = await store.stats(EPOCH + HOUR)
    assert stats.counts == {State.QUEUED: 3}
    assert stats.oldest_due == {0: EPOCH + 1, 2: EPOCH + 2}
    assert (await store.stats(EPOCH)).oldest_due == {}


async def test_a_message_with_more_recipients_than_there_are_numbers_for_is_refused_alone(store: Store) -> None:
    too_many = new_message(1, tuple(f"u{n}@example.org" for n in range(SPAN + 1)))
    with pytest.raises(ValueError, match="1001 recipients"):
        await store.accept(accept_of(too_many))
    most = new_message(2, tuple(f"u{n}@example.org" for n in range(SPAN)))
    assert await store.accept(accept_of(most)) == Accepted()
    assert await store.accept(accept_of(new_message(3))) == Accepted()
    view = await store.get_message("acme", most.id)
    assert view is not None
    assert len({each.email for each in view.recipients}) == SPAN
