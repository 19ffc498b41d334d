"""Messages and settlements for store tests, with everything that does not matter filled in."""

from dataclasses import replace
from typing import Any

from service.clock import ulid_floor
from service.durations import Rate
from service.mail.lifecycle import Event, State
from service.store.port import Store
from service.store.values import (
    Accept,
    Delivery,
    IdempotencyKey,
    NewMessage,
    NewRecipient,
    RecipientSettlement,
    Settlement,
    Take,
    Want,
)
from tests.support.clock import EPOCH

ROUTE = "acme||"
HOUR = 3_600_000


def new_message(number: int = 1, to: tuple[str, ...] = ("ada@example.org",), **given: Any) -> NewMessage:
    """A message that is due at EPOCH."""
    id = ulid_floor(EPOCH + number, "msg_")
    message = NewMessage(
        id=id,
        account="acme",
        message_id=f"{id[4:].lower()}@example.com",
        created_at=EPOCH + number,
        scheduled_at=None,
        due_at=EPOCH + number,
        expires_at=EPOCH + 4 * 24 * HOUR,
        priority=1,
        delivery="at_least_once",
        route=ROUTE,
        relay=None,
        from_email="news@example.com",
        envelope_from="news@example.com",
        subject="Hello",
        template=None,
        tags=(),
        metadata=(),
        smtputf8=False,
        size=20,
        content=(b"Subject: x\r\n\r\nhello\r\n",),
        recipients=tuple(NewRecipient(email, "", "to") for email in to),
    )
    return replace(message, **given)


def accept_of(*messages: NewMessage, key: str | None = None, print_: bytes = b"f", **given: Any) -> Accept:
    """A submission of these messages."""
    return Accept(
        account=messages[0].account,
        messages=messages,
        now=EPOCH,
        answer=b"answer " + (key or "").encode(),
        key=IdempotencyKey(key, print_) if key else None,
        key_expires_at=EPOCH + 24 * HOUR,
        **given,
    )


def take_of(bucket: str, count: int, window: float, cost: int = 1) -> Take:
    """Take from a limiter."""
    return Take(bucket, Rate(count, window), cost)


async def claim_all(store: Store, *, at: int = EPOCH + HOUR, limit: int = 100, route: str = ROUTE, holder: str = "me",
                    relay: str = "r", lease: float = 60) -> list[Delivery]:  # fmt: skip
    """Claim what is due on one route."""
    return list((await store.claim(lambda: [Want(route, relay, limit)], holder, lambda: at, lease)).deliveries)


def settlement_of(
    delivery: Delivery, event: Event, *, at: int = EPOCH + HOUR, due_at: int | None = None, **given: Any
) -> Settlement:
    """The same event for every recipient of a delivery."""
    results = {
        Event.ACCEPTED: "sent",
        Event.IN_DOUBT: "in_doubt",
        Event.PARK: "in_doubt",
        Event.NOT_STARTED: "not_started",
    }
    return Settlement(
        attempt=delivery.attempt,
        id=delivery.id,
        account=delivery.account,
        now=at,
        result=results.get(event, "deferred"),
        recipients=[
            RecipientSettlement(
                recipient.n,
                event,
                "kind",
                "dot",
                event is not Event.NOT_STARTED,
                due_at,
                in_doubt=event in (Event.IN_DOUBT, Event.PARK),
                code=250,
                text="words",
                **given,
            )
            for recipient in delivery.recipients
        ],
        timings={"total": 1.5},
    )


async def states(store: Store, id: str, account: str = "acme") -> list[State]:
    """The states of a message's recipients."""
    view = await store.get_message(account, id)
    assert view is not None
    return [recipient.state for recipient in view.recipients]
