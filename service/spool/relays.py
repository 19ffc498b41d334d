"""What all processes see of the relays, added up: connections, transactions in flight, what was sent, last replies.

Each process keeps a row for each relay that it has anything to say of, and renews it while it lives; rows that are not
renewed tell nothing any more. Troubles and the right to log in are the ledger's (spool/ledger).
"""

from collections.abc import Mapping
from dataclasses import replace

from service.clock import Clock
from service.mail.quota import HIGH
from service.relay.port import Health, Relays, RelayStatus
from service.spool.waiting import quotas_of
from service.store.port import Store
from service.store.values import RelayView
from service.telemetry import Metrics

_LASTS = 15_000  # ms for which a row tells anything
_RENEWED_AFTER = 10_000  # ms after which one that has not changed is written again


class RelayWatch:
    """One for each process."""

    def __init__(self, clock: Clock, store: Store, relays: Relays, holder: str, metrics: Metrics) -> None:
        self._clock, self._store, self._relays = clock, store, relays
        self._holder, self._metrics = holder, metrics
        self._shown: dict[str, RelayView] = {}

    async def show(self) -> None:
        """Set the gauges, and tell what this process sees where it has changed or is about to grow old.

        To be called every two seconds. Raises StorageUnavailable.
        """
        now = self._clock.now()
        statuses = self._own(now)
        self._measure(statuses)
        for name, used in (await quotas_of(self._store, self._relays, now)).items():
            for use in used:
                self._metrics.relay_quota_left.labels(name, use.quota.text).set(use.left_for(HIGH + 1))
                self._metrics.relay_quota_left_for_high.labels(name, use.quota.text).set(use.left_for(HIGH))
        views = [self._view(status, now) for status in statuses.values()]
        if told := [view for view in views if self._is_worth_telling(view)]:
            await self._store.show_relays(told)
            self._shown |= {view.relay: view for view in told}

    def _own(self, now: int) -> dict[str, RelayStatus]:
        return {name: self._relays.get(name).status(now) for name in self._relays.names()}

    def _measure(self, statuses: Mapping[str, RelayStatus]) -> None:
        for name, status in statuses.items():
            for health in Health:
                self._metrics.relay_health.labels(name, health.value).set(health is status.health)

    def _view(self, status: RelayStatus, now: int) -> RelayView:
        return RelayView(
            holder=self._holder,
            relay=status.name,
            seen_at=now,
            connections=status.connections,
            in_flight=status.in_flight,
            sent=status.sent,
            last_reply=status.last_reply,
            reply_at=status.reply_at,
            last_error=status.last_error,
            error_at=status.error_at,
        )

    def _is_worth_telling(self, view: RelayView) -> bool:
        last = self._shown.get(view.relay)
        if last is None:
            return bool(view.connections or view.in_flight or view.sent or view.reply_at or view.error_at)
        return view.seen_at >= last.seen_at + _RENEWED_AFTER or replace(view, seen_at=last.seen_at) != last

    async def statuses(self) -> Mapping[str, RelayStatus]:
        """Each relay as all processes see it, by name. Raises StorageUnavailable."""
        now = self._clock.now()
        found = self._own(now)
        for view in await self._store.relay_views(now - _LASTS):
            if view.holder != self._holder and view.relay in found:
                found[view.relay] = _with(found[view.relay], view)
        return found


def _with(status: RelayStatus, view: RelayView) -> RelayStatus:
    """One process more; the newest reply and the newest error are shown."""
    status = replace(
        status,
        connections=status.connections + view.connections,
        in_flight=status.in_flight + view.in_flight,
        sent=status.sent + view.sent,
    )
    if view.reply_at > status.reply_at:
        status = replace(status, last_reply=view.last_reply, reply_at=view.reply_at)
    if view.error_at > status.error_at:
        status = replace(status, last_error=view.last_error, error_at=view.error_at)
    return status
