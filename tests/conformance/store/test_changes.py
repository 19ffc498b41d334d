"""Lists, and what people do to messages."""

from dataclasses import replace

import pytest

from service.errors import ContentPurged, ValidationFailed
from service.mail.lifecycle import Event, State
from service.store.port import Store
from service.store.shown import ApiKey, MessageFilter, Suppression
from service.store.values import IdempotencyKey
from tests.support.clock import EPOCH
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, settlement_of, states


async def _ids(
    store: Store, where: MessageFilter | None = None, limit: int = 50, after: str | None = None
) -> list[str]:
    return [view.id for view in await store.list_messages("acme", where or MessageFilter(), limit, after)]


def _id(number: int) -> str:
    return new_message(number).id


async def test_a_list_is_newest_first_and_goes_on_after_the_cursor(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n) for n in range(1, 6))))
    await store.accept(accept_of(new_message(9, account="rival")))
    assert await _ids(store, limit=2) == [_id(5), _id(4)]
    assert await _ids(store, limit=2, after=_id(4)) == [_id(3), _id(2)]
    with pytest.raises(ValidationFailed):
        await _ids(store, after="msg_nowhere")


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        (MessageFilter(status="sent"), [2]),
        (MessageFilter(status="queued"), [4, 3, 1]),
        (MessageFilter(status="scheduled"), [4]),
        (MessageFilter(recipient="BOB@example.org"), [3]),
        (MessageFilter(from_email="other@example.com"), [3]),
        (MessageFilter(tag="kind"), [4, 1]),
        (MessageFilter(tag="kind:otp"), [1]),
        (MessageFilter(metadata=(("order", "7"),)), [1]),
        (MessageFilter(metadata=(("order", "7"), ("shop", "x"))), []),
        (MessageFilter(template="welcome"), [4, 3]),
        (MessageFilter(template="welcome@b"), [4]),
        (MessageFilter(relay="r"), [2]),
        (MessageFilter(message_id=new_message(3).message_id), [3]),
        (MessageFilter(provider_message_id="queued as 7"), [2]),
        (MessageFilter(since=EPOCH + 3), [4, 3]),
        (MessageFilter(since=EPOCH + 2, until=EPOCH + 4), [3, 2]),
        (MessageFilter(status="queued", tag="kind", template="welcome"), [4]),
        (MessageFilter(status="bounced"), []),
    ],
)
async def test_each_condition_finds_its_messages(store: Store, where: MessageFilter, numbers: list[int]) -> None:
    soon, later = EPOCH + 2 * HOUR, EPOCH + 9 * HOUR
    other = {"from_email": "other@example.com", "template": "welcome@a"}
    otp = {"tags": (("kind", "otp"),), "metadata": (("order", "7"),)}
    news = {"tags": (("kind", "news"),), "template": "welcome@b", "scheduled_at": later}
    await store.accept(
        accept_of(
            new_message(1, due_at=soon, **otp),
            new_message(2),
            new_message(3, ("bob@example.org", "bob@example.net"), due_at=soon, **other),
            new_message(4, due_at=later, **news),
        )
    )
    (delivery,) = await claim_all(store)
    await store.settle(settlement_of(delivery, Event.ACCEPTED, provider_message_id="queued as 7"))
    assert await _ids(store, where) == [_id(number) for number in numbers]


async def test_a_page_within_times_holds_exactly_what_was_created_then(store: Store) -> None:
    """Rows are found by their place, which follows time only roughly: a message may be committed after a later one."""
    order = [1, 3, 40_000, 2, 89_999, 30_000, 90_000, 60_000, 90_001, 400_000]
    for number in order:
        await store.accept(accept_of(new_message(number)))
    since, until = EPOCH + 2, EPOCH + 90_000
    found = await _ids(store, MessageFilter(since=since, until=until))
    assert found == [_id(number) for number in reversed(order) if 2 <= number < 90_000]
    assert await _ids(store, MessageFilter(since=EPOCH + 3_000_000)) == []
    assert await _ids(store, MessageFilter(until=EPOCH)) == []


async def test_two_metadata_conditions_hold_together_and_a_template_is_found_by_name_or_version(store: Store) -> None:
    both = (("order", "7"), ("shop", "x"))
    await store.accept(accept_of(new_message(1, metadata=both, template="wel@1"), new_message(2, metadata=both[:1])))
    await store.accept(accept_of(new_message(3, template="wel_come@1"), new_message(4, template="wel")))
    assert await _ids(store, MessageFilter(metadata=both)) == [_id(1)]
    assert await _ids(store, MessageFilter(metadata=(("order", "7"), ("order", "8")))) == []
    assert await _ids(store, MessageFilter(template="wel")) == [_id(4), _id(1)]
    assert await _ids(store, MessageFilter(template="wel@1")) == [_id(1)]
    assert await _ids(store, MessageFilter(template="w%")) == []


async def test_a_message_with_many_recipients_stands_once_in_a_list(store: Store) -> None:
    three = ("a@b.example", "c@b.example", "d@b.example")
    await store.accept(accept_of(*(new_message(number, three) for number in range(1, 5))))
    assert await _ids(store, MessageFilter(status="queued"), limit=3) == [_id(4), _id(3), _id(2)]
    assert await _ids(store, MessageFilter(status="queued"), limit=3, after=_id(2)) == [_id(1)]


async def test_a_canceled_message_leaves_the_queue(store: Store) -> None:
    message = new_message(1, ("a@b.example", "c@b.example"))
    await store.accept(accept_of(message))
    assert await store.cancel("acme", message.id, EPOCH) == 2
    assert await store.cancel("acme", message.id, EPOCH) == 0
    assert await claim_all(store) == []
    assert await states(store, message.id) == [State.CANCELED, State.CANCELED]


async def test_what_is_being_sent_can_not_be_canceled(store: Store) -> None:
    await store.accept(accept_of(new_message()))
    await claim_all(store)
    assert await store.cancel("acme", _id(1), EPOCH) == 0


async def test_cancel_by_filter_takes_only_what_matches_and_waits(store: Store) -> None:
    await store.accept(accept_of(*(new_message(n, tags=(("t", str(n % 2)),)) for n in range(1, 8))))
    await store.cancel("acme", _id(1), EPOCH)
    canceled = await store.cancel_where("acme", MessageFilter(tag="t:1"), EPOCH, 100)
    assert sorted(canceled) == [_id(3), _id(5), _id(7)]
    assert await store.cancel_where("rival", MessageFilter(tag="t"), EPOCH, 100) == []


async def test_retry_queues_again_what_ended_badly(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    assert await store.retry("acme", message.id, EPOCH, EPOCH, EPOCH) == 0, "it waits already"
    (delivery,) = await claim_all(store)
    await store.settle(settlement_of(delivery, Event.REFUSED))
    assert await store.retry("acme", message.id, EPOCH + 2 * HOUR, EPOCH + 2 * HOUR, EPOCH + 9 * HOUR) == 1
    (again,) = await claim_all(store, at=EPOCH + 2 * HOUR)
    assert again.recipients[0].attempts == 0
    await store.settle(settlement_of(again, Event.ACCEPTED))
    assert await store.retry("acme", message.id, EPOCH, EPOCH, EPOCH) == 0, "sent is not retried"


async def test_retry_needs_the_bytes(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    await store.erase("acme", message.id, EPOCH)
    with pytest.raises(ContentPurged):
        await store.retry("acme", message.id, EPOCH, EPOCH, EPOCH)


async def test_a_scheduled_message_moves_with_its_ttl(store: Store) -> None:
    later = EPOCH + 5 * HOUR
    message = new_message(1, scheduled_at=later, due_at=later, expires_at=later + HOUR)
    await store.accept(accept_of(message))
    content = (b"Date: new\r\n\r\nhello\r\n",)
    assert await store.reschedule("acme", message.id, later + HOUR, content, EPOCH) == 1
    view = await store.get_message("acme", message.id)
    assert view is not None
    assert (view.scheduled_at, view.expires_at) == (later + HOUR, later + 2 * HOUR)
    assert view.recipients[0].due_at == later + HOUR
    assert await store.get_content("acme", message.id) == content
    assert await store.reschedule("acme", message.id, later, content, later + 2 * HOUR) == 0, "it is due"


async def test_erase_forgets_content_and_subject_and_keeps_the_log(store: Store) -> None:
    message = new_message()
    await store.accept(accept_of(message))
    assert await store.erase("acme", message.id, EPOCH + 5) is True
    view = await store.get_message("acme", message.id)
    assert view is not None
    assert (view.subject, view.content_purged_at) == ("", EPOCH + 5)
    assert await store.get_content("acme", message.id) is None
    assert [event.type for event in await store.list_events("acme", message.id)] == ["accepted", "cancel", "erased"]


async def test_suppressions_are_listed_found_and_removed(store: Store) -> None:
    first = Suppression("Gone@example.org", "bad_address", "delivery", EPOCH, "msg_1", "550")
    assert await store.add_suppression("acme", first) is True
    assert await store.add_suppression("acme", first) is False
    assert await store.add_suppression("acme", replace(first, reason="unsubscribe")) is True
    assert await store.suppressed("acme", ["gone@EXAMPLE.org"]) == {"gone@example.org": "bad_address"}
    assert [each.reason for each in await store.get_suppressions("acme", "gone@example.org")] == [
        "bad_address",
        "unsubscribe",
    ]
    assert len(await store.list_suppressions("acme", "unsubscribe", 10, None)) == 1
    assert await store.list_suppressions("rival", None, 10, None) == []
    assert await store.remove_suppressions("acme", "gone@example.org", "unsubscribe") == 1
    assert await store.remove_suppressions("acme", "gone@example.org", None) == 1
    assert await store.suppressed("acme", ["gone@example.org"]) == {}


async def test_keys_are_found_by_prefix_and_revoked(store: Store) -> None:
    key = ApiKey("key_1", "pr_abc", b"d" * 32, "acme", "shop", ("send",), ("x.example",), "5/s", EPOCH, None, None)
    assert await store.add_key(key, only_if_none=True) is True
    assert await store.add_key(replace(key, id="key_2", prefix="pr_def"), only_if_none=True) is False
    assert await store.find_key("pr_abc") == key
    assert await store.find_key("pr_def") is None
    assert await store.revoke_key("rival", "key_1", EPOCH) is False
    assert await store.revoke_key("acme", "key_1", EPOCH + 1) is True
    assert await store.revoke_key("acme", "key_1", EPOCH + 2) is False
    assert [each.revoked_at for each in await store.list_keys("acme")] == [EPOCH + 1]
    assert await store.list_keys("rival") == []


async def test_retention_takes_bytes_first_and_the_log_later(store: Store) -> None:
    await store.accept(accept_of(new_message(1), new_message(2, due_at=EPOCH + 9 * HOUR)))
    (delivery,) = await claim_all(store)
    await store.settle(settlement_of(delivery, Event.ACCEPTED))
    now = EPOCH + 2 * HOUR
    assert await store.purge_content(now, now, 10) == 1
    assert await store.purge_content(now, now, 10) == 0
    assert await store.get_content("acme", _id(1)) is None
    assert await store.get_content("acme", _id(2)) is not None, "it is not closed"
    assert await store.purge_log(now, now, 10) == 1
    assert await store.get_message("acme", _id(1)) is None
    assert (await store.stats(EPOCH)).counts[State.SENT] == 0


async def test_the_newest_moment_is_that_of_the_last_line_of_the_log(store: Store) -> None:
    assert await store.newest_moment() is None
    await store.accept(accept_of(new_message(1)))
    (delivery,) = await claim_all(store)
    await store.settle(settlement_of(delivery, Event.ACCEPTED, at=EPOCH + 2 * HOUR))
    assert await store.newest_moment() == EPOCH + 2 * HOUR


async def test_an_idempotency_key_outlives_its_open_message(store: Store) -> None:
    await store.accept(accept_of(new_message(), key="k"))
    late = EPOCH + 48 * HOUR
    assert await store.purge_keys(late, 24 * 3600, 10) == 0, "the message is open"
    (delivery,) = await claim_all(store)
    await store.settle(settlement_of(delivery, Event.ACCEPTED, at=late))
    assert await store.purge_keys(late + 23 * HOUR, 24 * 3600, 10) == 0
    assert await store.purge_keys(late + 25 * HOUR, 24 * 3600, 10) == 1
    assert await store.find_answer("acme", IdempotencyKey("k", b"f")) is None


async def test_ping_commits(store: Store) -> None:
    await store.ping()
    assert store.healthy()
