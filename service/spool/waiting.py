"""What holds a waiting recipient back, in parts for programs and in words for people.

One look at the relays and at what their quotas have left serves a whole page of messages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.clock import rfc3339
from service.mail.lifecycle import PENDING
from service.mail.quota import HIGH, Per
from service.mail.route import Route
from service.relay.port import Health, Relay, Relays
from service.store.port import Store
from service.store.shown import MessageView, RecipientView
from service.store.values import QuotaUse


@dataclass(frozen=True, slots=True)
class HeldBy:
    """Why a recipient is not being sent right now; `until` (ms) is when it goes on, where that is known."""

    reason: str  # schedule | retry | quota | relay | connection | no_relay
    words: str
    relay: str | None = None
    quota: str | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at `now`."""

    relays: Relays
    used: Mapping[str, Sequence[QuotaUse]]  # by relay
    now: int

    def held_by(self, view: MessageView, recipient: RecipientView) -> HeldBy | None:
        """None when it does not wait."""
        if recipient.state not in PENDING:
            return None
        due = recipient.due_at
        if due is None or due <= self.now:
            return self._by_relays(view)
        if recipient.held_by is not None:
            relay, _, quota = recipient.held_by.partition(" ")
            return _by_quota(relay, quota, due)
        if recipient.attempts == 0 and view.scheduled_at is not None:
            return HeldBy("schedule", f"scheduled for {rfc3339(due)}", until=due)
        return HeldBy("retry", f"next attempt at {rfc3339(due)}", until=due)

    def _by_relays(self, view: MessageView) -> HeldBy:
        """A relay that could take it now is waited for; else the one that goes on first tells until when."""
        route = Route.parse(view.route)
        candidates = self.relays.candidates(route.sender or view.from_email, route.relay or None, route.needs)
        held: list[HeldBy] = []
        for relay in candidates:
            if (each := self._by_relay(relay, view.priority)) is None:
                return HeldBy("connection", "waiting for a free connection")
            held.append(each)
        if not held:
            if route.relay and route.relay not in self.relays.names():
                words = f"relay {route.relay}, which the request named, is not configured"
                return HeldBy("no_relay", words, route.relay)
            return HeldBy("no_relay", "no configured relay may carry this message")
        first = min(held, key=lambda each: (each.until is None, each.until or 0))
        return HeldBy(first.reason, "; ".join(each.words for each in held), first.relay, first.quota, first.until)

    def _by_relay(self, relay: Relay, priority: int) -> HeldBy | None:
        status = relay.status(self.now)
        if status.health is not Health.OPEN:
            until = f" until {rfc3339(status.until)}" if status.until else ""
            words = f"relay {status.name} is {status.health.value}{until}: {status.reason}"
            return HeldBy("relay", words, status.name, None, status.until)
        times = [(_free_at(use, priority), use.quota.label) for use in self.used.get(relay.name, ())]
        until_quota, label = max(times, default=(0, ""))
        return _by_quota(relay.name, label, until_quota) if until_quota else None


def _free_at(use: QuotaUse, priority: int) -> int:
    return use.free_at_high if priority == HIGH else use.free_at


def _by_quota(relay: str, quota: str, until: int) -> HeldBy:
    return HeldBy("quota", f"the quota {quota} of relay {relay} is used up until {rfc3339(until)}", relay, quota, until)


async def look(store: Store, relays: Relays, now: int, views: Sequence[MessageView]) -> Look:
    """What is needed to tell what holds these messages back."""
    waits = any(each.state in PENDING for view in views for each in view.recipients)
    return Look(relays, await quotas_of(store, relays, now) if waits else {}, now)


async def quotas_of(store: Store, relays: Relays, now: int) -> Mapping[str, Sequence[QuotaUse]]:
    """By relay, how much of the quotas of its account is taken."""
    used: dict[str, Sequence[QuotaUse]] = {}
    for relay in [relays.get(name) for name in relays.names()]:  # before any wait: they may be others after it
        if quotas := [quota for quota in relay.quotas if quota.per is Per.RELAY]:
            used[relay.name] = await store.quota_use(quotas, now)
    return used
