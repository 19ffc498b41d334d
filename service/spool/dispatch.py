"""The loop that moves mail from the store to the relays.

Ask for what can start now (never more than there are free slots), seal it with the rule of the relay that takes it,
and hand it over; what comes back is spool/recording's. It decides which routes to ask and nothing about replies. Hints
only make it quick; the poll keeps it right.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service import failpoints
from service.clock import Clock
from service.errors import PostroomError, RelayNotFound, SenderNotAccepted
from service.mail.envelope import Envelope
from service.mail.lifecycle import Event
from service.mail.quota import HIGH
from service.mail.route import Route
from service.mail.seal import Sealed, seal
from service.relay.port import MayNotStart, Outgoing, Relay, Relays
from service.settings import Settings
from service.spool.due import DueLanes, share
from service.spool.elsewhere import Elsewhere
from service.spool.health import Readiness
from service.spool.hindered import Hindered
from service.spool.leases import Leases
from service.spool.recording import Recorder
from service.spool.settling import AT_MOST_ONCE
from service.spool.signals import Signals
from service.spool.signing import Signing
from service.store.port import Store
from service.store.values import Claimed, Delivery, Settlement, Want
from service.telemetry import Metrics
from service.tracing import OFF, Tracing

_THREAD_FROM = 512 * 1024  # octets of a message; sealing more than that would hold up the loop for milliseconds
_REST = 0.5  # seconds, at least, before a store that has failed is asked again
_SOON = 0.25  # seconds after which a heartbeat that failed is tried again


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a delivery was claimed with: it may go by no other relay of that name, whose account or sender may be another."""

    at: float  # monotonic seconds
    relay: Relay | None


class Dispatcher:
    """One for each sending process. `run` until cancelled; `drain` before the relays close."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: Store,
        relays: Relays,
        signals: Signals,
        readiness: Readiness,
        metrics: Metrics,
        signing: Signing,
        holder: str,
        tracing: Tracing = OFF,
        hindered: Hindered | None = None,
    ) -> None:
        self._settings, self._clock, self._store, self._relays = settings, clock, store, relays
        self._signing, self._readiness, self._metrics, self._holder = signing, readiness, metrics, holder
        self._hindered = hindered or Hindered(clock)
        self._lanes = DueLanes()
        self._wake = asyncio.Event()
        self._leases = Leases(settings.lease)
        self._asked: Sequence[Want] = ()  # in the claim under way
        self._asked_for: Mapping[str, Relay] = {}  # by name, with their quotas and sender rules as they were then
        self._taken: dict[str, dict[int, int]] = {}  # and the lanes of their routes
        self._elsewhere = Elsewhere(relays, store)
        self._recorder = Recorder(settings, clock, store, signals, metrics, tracing, self._elsewhere, self._queued)
        self._holds, self._avoided = self._recorder.holds, self._recorder.avoided
        self._look_at = 0.0  # monotonic seconds: when the store is asked for its routes again
        self._draining = asyncio.Event()
        self._news: dict[str, tuple[str, int, int]] = {}  # what was stored, and perhaps claimed with the same commit
        signals.on_queued(self._stored)
        signals.on_coming(self._queued)
        relays.on_capacity(self._wake.set)

    def _queued(self, route: str, priority: int, due_at: int) -> None:
        self._lanes.add(route, priority, due_at)
        self._wake.set()

    def _stored(self, route: str, priority: int, due_at: int, id: str) -> None:
        """A claim that went with the same commit hands it out in a moment; else it is news for the next one."""
        if id:
            self._news[id] = (route, priority, due_at)
            self._wake.set()
        else:
            self._queued(route, priority, due_at)

    def wake(self) -> None:
        """Look at the queue now: another process may have queued something."""
        self._look_at = 0.0
        self._wake.set()

    # --- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and start deliveries until cancelled."""
        while not self._draining.is_set():
            try:
                await self._round()
                self._hindered.worked("dispatch")
            except PostroomError as error:
                self._hindered.failed("dispatch", error)
                self._look_at = 0.0
                await self._rest()

    async def _round(self) -> None:
        if self._clock.monotonic() >= self._look_at:
            self._lanes.learn(await self._store.due_routes())
            self._look_at = self._clock.monotonic() + self._settings.poll_interval
        self._wake.clear()
        self._learn_news()
        now = self._clock.now()  # one for both looks: what comes due between two would be slept over
        if self._readiness.held or not self._store.healthy() or not self._wants(peek_at=now):
            await self._sleep(self._until_due(now))
            return
        asked = self._clock.monotonic()
        claimed = await self._store.claim(
            self._wants, self._holder, self._clock.now, self._settings.lease, self._clock.told
        )
        failpoints.passed("claim.after_commit")
        self._metrics.claim_seconds.observe(self._clock.monotonic() - asked)
        self._holds.learn(claimed.held, self._clock.now())
        self._return_lanes(claimed)
        for delivery in claimed.deliveries:
            self._news.pop(delivery.id, None)
            # the lease counts from within the claim: not from when we hear of it
            self._start(delivery, _Claim(asked, self._asked_for.get(delivery.relay)))

    def _learn_news(self) -> None:
        for route, priority, due_at in self._news.values():
            self._lanes.add(route, priority, due_at)
        self._news.clear()

    async def _rest(self) -> None:
        """The store has failed. No hint cuts this short: each request that it refuses meanwhile would give one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._settings.poll_interval, _REST)):
                await self._draining.wait()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _until_due(self, now: int) -> float:
        """Seconds from `now` (ms) until the next look: when a further lane is due or a quota's hold ends, else the poll.

        What is due already waits for a slot, whose freeing wakes us, or for a quota.
        """
        poll = max(self._look_at - self._clock.monotonic(), 0.001)
        times = (self._lanes.next_due(now), self._holds.next_end(now))
        return min([poll, *((at - now) / 1000 for at in times if at is not None)])

    def _wants(self, peek_at: int | None = None) -> Sequence[Want]:
        """What could start this instant. Asked by the store as its transaction begins; `peek_at` (ms) only looks whether
        there is anything.
        """
        now = self._clock.now() if peek_at is None else peek_at
        urgent = self._lanes.urgent(now)
        routes = self._lanes.routes(now) if self._any_room(now) else urgent
        candidates = {route: self._candidates(route) for route in routes}
        # only relays that due mail may go by are asked: of a hundred most have none
        relays = {name: self._relays.get(name) for names in candidates.values() for name in names}
        slots = {name: relay.free(now) for name, relay in relays.items()}
        room = {name: slots[name] + relay.ahead(now) for name, relay in relays.items()}
        room = {name: count for name, count in room.items() if count > 0}
        spare = {name: 1 for name, relay in relays.items() if urgent and name not in room and relay.spare(now)}
        if not room and not spare:
            return []
        shared = self._shared(room, candidates, now)
        served = {want.route for want in shared}
        unserved = {route: candidates[route] for route in urgent if route not in served}
        shared += [replace(want, least=HIGH) for want in self._shared(spare, unserved, now)]
        if peek_at is not None:
            return shared
        wants = [
            self._want(want, relays[want.relay], slots[want.relay], candidates[want.route], now) for want in shared
        ]
        self._asked, self._asked_for, self._taken = wants, relays, {}
        self._lanes.next_turn()
        for want in wants:
            lanes = self._lanes.take(want.route, now, want.least)
            self._taken[want.route] = self._taken.get(want.route, {}) | lanes
        return wants

    def _any_room(self, now: int) -> bool:
        relays = map(self._relays.get, self._relays.names())
        return any(relay.free(now) + relay.ahead(now) > 0 for relay in relays)

    def _shared(self, room: Mapping[str, int], candidates: Mapping[str, Sequence[str]], now: int) -> list[Want]:
        """The room of the relays, spread over routes that they may carry now."""
        if not room:
            return []
        found = [(route, self._open_relays(route, names, room, now)) for route, names in candidates.items()]
        return share(room, [(route, names) for route, names in found if names])

    def _candidates(self, route: str) -> list[str]:
        parsed = Route.parse(route)
        candidates = self._relays.candidates(parsed.sender, parsed.relay or None, parsed.needs)
        return [relay.name for relay in candidates]

    def _open_relays(self, route: str, names: Sequence[str], room: Mapping[str, int], now: int) -> list[str]:
        """Those with room whose quotas let the most urgent mail of the route go; a sticky one is waited for."""
        urgency = self._lanes.urgency(route, now)
        names = [name for name in names if not self._holds.held(name, urgency, now)]
        return [name for name in self._relays.preferred(self._avoided.last(names, now), now) if name in room]

    def _want(self, want: Want, relay: Relay, slots: int, candidates: Sequence[str], now: int) -> Want:
        want = replace(want, slots=slots, sealed_as=relay.rule.id, max_recipients=relay.max_recipients)
        if not relay.quotas:
            return want
        return replace(
            want,
            quotas=relay.quotas,
            least=HIGH if self._holds.held(relay.name, HIGH + 1, now) else want.least,
            elsewhere=len(candidates) > 1,
        )

    def _return_lanes(self, claimed: Claimed) -> None:
        """A route that gave as many as asked has perhaps more, and so has one that a quota or a bound cut short.

        One that gave fewer is empty until a hint or a look.
        """
        asked: dict[str, int] = {}
        given: dict[str, list[Delivery]] = {}
        for want in self._asked:
            asked[want.route] = asked.get(want.route, 0) + want.limit
        for delivery in claimed.deliveries:
            given.setdefault(delivery.route, []).append(delivery)
        for route, found in given.items():
            if len(found) >= asked.get(route, 0):
                self._lanes.add(route, found[-1].priority, self._clock.now())
        held = {hold.relay: hold.priority for hold in claimed.held}
        for want in self._asked if held or claimed.cut else ():
            for priority, due_at in self._taken[want.route].items():
                if claimed.cut or priority >= held.get(want.relay, priority + 1):
                    self._lanes.add(want.route, priority, due_at)
        self._asked, self._taken = (), {}

    # --- one delivery --------------------------------------------------------------------------------------------

    def _start(self, delivery: Delivery, claim: _Claim) -> None:
        try:
            if (route := self._elsewhere.turned(delivery)) is not None:
                self._recorder.record(delivery, self._given_back(delivery, route))
            elif self._is_another(delivery, claim):
                self._recorder.record(delivery, self._given_back(delivery))
            elif delivery.content is None or delivery.size > _THREAD_FROM:
                self._recorder.spawn(self._start_large(delivery, claim))
            else:
                self._hand_over(delivery, self._seal(delivery, delivery.content), claim)
        except Exception as error:  # a fault of ours with one delivery must not end the loop, nor hold its lease
            self._recorder.failed(delivery, error)

    def _is_another(self, delivery: Delivery, claim: _Claim) -> bool:
        """Whether its relay is another one since the claim: that took from the quotas of the former one's account."""
        return delivery.relay not in self._relays.names() or self._relays.get(delivery.relay) is not claim.relay

    async def _start_large(self, delivery: Delivery, claim: _Claim) -> None:
        """Content that may have to be read first, and is sealed in a thread: hashing it here would hold up the loop."""
        try:
            content = delivery.content or await self._store.delivery_content(delivery.id)
            if content is None:
                self._recorder.end(delivery, Event.FAULT, "no-content", "the content is gone")
            else:
                self._hand_over(delivery, await asyncio.to_thread(self._seal, delivery, content), claim)
        except PostroomError as error:
            self._recorder.end(
                delivery, Event.NOT_STARTED, "no-content", f"its content could not be read: {error.detail}"
            )
        except Exception as error:
            self._recorder.failed(delivery, error)

    def _seal(self, delivery: Delivery, content: Sequence[bytes]) -> Sealed | Settlement:
        """The bytes for the wire; or how the delivery ends, because they can't be made."""
        try:
            relay = self._relays.get(delivery.relay)
        except RelayNotFound:
            return self._given_back(delivery)
        sender, ring, at = (delivery.envelope_from, delivery.from_email), self._signing.ring, delivery.dated_at
        try:
            sealed = seal(content, *sender, relay.rule, ring, at)
        except SenderNotAccepted:
            # a rule that was set since it was accepted; the next claim asks for it only relays that take it, or none
            return self._given_back(delivery, self._elsewhere.refused_envelope(delivery, relay.rule))
        if delivery.sealed_as is not None and delivery.sealed_as != sealed.rule_id:
            # the same Message-ID under another From must not follow a copy that may be out
            text = "an attempt in doubt was sealed by another sender rule"
            return self._recorder.all_alike(delivery, Event.PARK, "sealed-differently", text)
        return sealed

    def _hand_over(self, delivery: Delivery, made: Sealed | Settlement, claim: _Claim) -> None:
        if self._is_another(delivery, claim):  # the configuration was changed while a thread sealed it
            made = self._given_back(delivery)
        if isinstance(made, Settlement):
            self._recorder.record(delivery, made)
        else:
            self._send(delivery, made, claim.at)

    def _given_back(self, delivery: Delivery, route: str | None = None) -> Settlement:
        """Its relay is another one by now, or none; nothing is charged. route: see Recorder.all_alike."""
        return self._recorder.all_alike(delivery, Event.NOT_STARTED, "relay-gone", f"{delivery.relay} {_GONE}", route)

    def _send(self, delivery: Delivery, sealed: Sealed, claimed: float) -> None:
        relay = self._relays.get(delivery.relay)
        at_most_once = delivery.delivery == AT_MOST_ONCE

        # a claim ahead is no sign that it began: after a kill only what is marked is in doubt
        async def commit_content_started() -> None:
            failpoints.passed("content.before_mark")
            try:
                marked = await self._store.start_content(delivery.attempt, self._clock.now())
            except PostroomError as error:
                raise MayNotStart(f"the storage could not take that it begins: {error.detail}") from None
            if not marked:
                raise MayNotStart("another sender owns the delivery")

        relay.start(
            Outgoing(
                key=delivery.attempt,
                envelope=Envelope(
                    sealed.envelope_from,
                    tuple(recipient.email for recipient in delivery.recipients[: relay.max_recipients]),
                    sum(map(len, sealed.segments)),
                    delivery.smtputf8 or not sealed.envelope_from.isascii(),
                    delivery.dsn,
                ),
                content=sealed.segments,
                priority=delivery.priority,
                at_most_once=at_most_once,
                on_content=commit_content_started if at_most_once or delivery.ahead else None,
                may_proceed=lambda: self._leases.hold(claimed, self._clock.monotonic()),
            ),
            lambda report: self._recorder.done(relay, delivery, sealed, report),
        )

    # --- beside the loop -----------------------------------------------------------------------------------------

    async def heartbeat(self) -> None:
        """Renew our leases, for ever. A lease that could not be renewed stops content from being started.

        After an outage that is done before others take what we hold for orphans (RescuePolicy.grace).
        """
        while True:
            wait = _SOON
            asked = self._clock.monotonic()
            failpoints.passed("heartbeat.before")
            with contextlib.suppress(PostroomError):
                await self._store.heartbeat(self._holder, self._clock.told(), self._settings.lease)
                self._leases.renewed(asked, self._clock.monotonic())
                wait = self._settings.lease / 3
            await asyncio.sleep(wait)

    def stop_claiming(self) -> None:
        """Begin the drain: nothing new is claimed from here on."""
        self._draining.set()
        self._wake.set()

    async def settle_all(self) -> None:
        """Wait until every result is committed."""
        await self._recorder.settle_all()


_GONE = "is no longer the relay that this was to go by"
