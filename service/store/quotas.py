"""Quotas within a claim: read once, decided in memory, written once, in the caller's one transaction. Pure.

A claim takes what a delivery needs of every quota of its relay, or nothing. The attempt's row says what was taken;
whoever closes the attempt, its sender or the rescuer, closes that too, and the fence lets only one of them. Where the
counts are kept, and how they are locked, is each dialect's own.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from service.mail.quota import HIGH, Per, Quota, Unit
from service.store.limiter import Takes, span_of
from service.store.values import Held, QuotaUse, Want


@dataclass(frozen=True, slots=True)
class Refusal:
    """A recipient whom a quota of its own holds until `until` (ms)."""

    index: int
    until: int
    quota: str


@dataclass(frozen=True, slots=True)
class Share:
    """What one relay may carry of a message now: places in the list of its recipients, and what that takes."""

    allowed: Sequence[int]
    refused: Sequence[Refusal]
    costs: dict[str, int]  # by bucket


@dataclass(slots=True)
class Quotas:
    """The quotas that one claim meets. `read` answers the stored state of a bucket, or None.

    now: ms. ahead: ms by which the clock that states are kept by is ahead of the one that `now` and answers are told by.
    """

    read: Callable[[str], bytes | None]
    now: int
    ahead: int = 0
    holds: dict[tuple[str, bool], Held] = field(default_factory=dict)  # by relay, and whether high priority is meant
    _takes: dict[str, Takes] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)

    def held(self, relay: str, priority: int) -> Held | None:
        """Whether it was found that the relay may take no mail of this priority."""
        return self.holds.get((relay, True)) or (None if priority == HIGH else self.holds.get((relay, False)))

    def share(self, want: Want, priority: int, keys: Sequence[str]) -> Share | None:
        """What `want` may carry of a message to these addresses; None: its relay is held, see `held`."""
        if self.held(want.relay, priority):
            return None
        wide = [(quota, quota.count_for(priority)) for quota in want.quotas if quota.per is Per.RELAY]
        most = min([count for quota, count in wide if quota.unit is Unit.RECIPIENTS], default=len(keys))
        share = self._by_recipient(want, priority, keys, min(most, want.max_recipients or most))
        if not share.allowed:
            return share
        for quota, count in wide:
            cost = 1 if quota.unit is Unit.MESSAGES else len(share.allowed)
            if until := self._free_at(quota, quota.bucket(), cost, count):
                self._hold(want.relay, priority, until, quota)
            share.costs[quota.bucket()] = cost
        return None if self.held(want.relay, priority) else share

    def _by_recipient(self, want: Want, priority: int, keys: Sequence[str], most: int) -> Share:
        """Whom the quotas of recipients and domains let go, at most `most`."""
        narrow = [quota for quota in want.quotas if quota.per is not Per.RELAY]
        share = Share([], [], {})
        allowed, refused = list[int](), list[Refusal]()
        for index, key in enumerate(keys):
            if len(allowed) == most:
                break
            costs, refusal = dict[str, int](), None
            for quota in narrow:
                bucket = quota.bucket(key)
                taken = share.costs.get(bucket, 0)
                costs[bucket] = 1 if quota.unit is Unit.MESSAGES else taken + 1
                until = self._free_at(quota, bucket, costs[bucket], quota.count_for(priority))
                if until and (refusal is None or until > refusal.until):
                    refusal = Refusal(index, until, quota.label)
            if refusal is None:
                allowed.append(index)
                share.costs.update(costs)
            else:
                refused.append(refusal)
        return Share(allowed, refused, share.costs)

    def _hold(self, relay: str, priority: int, until: int, quota: Quota) -> None:
        """Mail of this priority waits until the last of the relay's quotas lets it go."""
        place = (relay, priority == HIGH)
        known = self.holds.get(place)
        if known is None or known.until < until:
            self.holds[place] = Held(relay, HIGH if priority == HIGH else HIGH + 1, until, quota.label)

    def _free_at(self, quota: Quota, bucket: str, cost: int, count: int) -> int:
        span = span_of(quota)
        takes, now = self._takes.get(bucket), self.now + self.ahead
        if takes is None:
            takes = self._takes[bucket] = Takes.read(self.read(bucket), span, now)
            if takes.corrected:
                self._changed.add(bucket)
        at = takes.free_at(cost, count, span, now)
        return at and at - self.ahead

    def take(self, share: Share) -> str | None:
        """Take it; answers what the attempt's row says of it."""
        for bucket, cost in share.costs.items():
            self._takes[bucket].open += cost
            self._changed.add(bucket)
        return json.dumps(list(share.costs.items()), ensure_ascii=False) if share.costs else None

    def changed(self) -> Iterator[tuple[str, Takes]]:
        """What is to be written: each bucket and what counts in it."""
        for bucket in sorted(self._changed):
            yield bucket, self._takes[bucket]


def use_of(quota: Quota, state: bytes | None, now: int, ahead: int = 0) -> QuotaUse:
    """How much of a quota of a whole relay is taken, by its stored state. now, ahead: see Quotas."""
    span = span_of(quota)
    takes = Takes.read(state, span, now + ahead)
    free = [takes.free_at(1, quota.count_for(priority), span, now + ahead) for priority in (HIGH + 1, HIGH)]
    normal, high = (at and at - ahead for at in free)
    return QuotaUse(quota, takes.used, takes.open, normal, high)
