"""The loop that moves mail from the store to the relays.

Ask for what can start now (never more than there are free slots), seal it with the rule of the relay that takes it,
hand it over, and commit what came back. It decides which routes to ask and nothing about replies: spool/settling and
mail/outcome.py do. Hints only make it quick; the poll keeps it right.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from service import failpoints
from service.clock import Clock
from service.errors import PostroomError, RelayNotFound, SenderNotAccepted
from service.mail.envelope import Envelope
from service.mail.lifecycle import Event
from service.mail.outcome import Failure, Phase, Scope, Verdict
from service.mail.quota import HIGH
from service.mail.route import Route
from service.mail.seal import Sealed, seal
from service.relay.port import Outgoing, RecipientResult, Relay, Relays, Report
from service.settings import Settings
from service.spool.avoided import Avoided
from service.spool.due import DueLanes, share
from service.spool.health import Readiness
from service.spool.holds import Holds
from service.spool.leases import Leases
from service.spool.settling import AT_MOST_ONCE, Settler, judge_all
from service.spool.signals import Signals
from service.spool.signing import Signing
from service.store.port import Claimed, Delivery, Settlement, Store, Want
from service.telemetry import Log, Metrics, get_logger, labelled
from service.tracing import OFF, Tracing

_THREAD_FROM = 512 * 1024  # octets of a message; sealing more than that would hold up the loop for milliseconds

log = get_logger()


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
    ) -> None:
        self._settings, self._clock, self._store, self._relays = settings, clock, store, relays
        self._signing, self._tracing = signing, tracing
        self._signals, self._readiness, self._metrics, self._holder = signals, readiness, metrics, holder
        self._settler = Settler(settings, clock)
        self._lanes = DueLanes()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases = Leases(settings.lease)
        self._asked: Sequence[Want] = ()  # in the claim under way
        self._taken: dict[str, dict[int, int]] = {}  # and the lanes of their routes
        self._holds, self._avoided = Holds(), Avoided()
        self._look_at = 0.0  # monotonic seconds: when the store is asked for its routes again
        self._draining = False
        signals.on_queued(self._queued)
        relays.on_capacity(self._wake.set)

    def _queued(self, route: str, priority: int, due_at: int) -> None:
        self._lanes.add(route, priority, due_at)
        self._wake.set()

    def wake(self) -> None:
        """Look at the queue now: another process may have queued something."""
        self._look_at = 0.0
        self._wake.set()

    # --- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and start deliveries until cancelled."""
        while not self._draining:
            try:
                await self._round()
            except PostroomError as error:
                log.warning(Log.STORE_FAILED, during="dispatch", detail=error.detail)
                self._look_at = 0.0
                await self._sleep(self._settings.poll_interval)

    async def _round(self) -> None:
        if self._clock.monotonic() >= self._look_at:
            self._lanes.learn(await self._store.due_routes())
            self._look_at = self._clock.monotonic() + self._settings.poll_interval
        self._wake.clear()
        if self._readiness.held or not self._store.healthy() or not self._wants(peek=True):
            await self._sleep(self._until_due())
            return
        asked = self._clock.monotonic()
        claimed = await self._store.claim(self._wants, self._holder, self._clock.now, self._settings.lease)
        failpoints.passed("claim.after_commit")
        self._metrics.claim_seconds.observe(self._clock.monotonic() - asked)
        self._holds.learn(claimed.held)
        self._return_lanes(claimed)
        for delivery in claimed.deliveries:
            self._start(delivery, asked)  # the lease counts from within the claim: not from when we hear of it

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _until_due(self) -> float:
        """Seconds until the next look: when a further lane is due or a quota's hold ends, else the poll.

        What is due already waits for a slot, whose freeing wakes us, or for a quota.
        """
        now = self._clock.now()
        poll = max(self._look_at - self._clock.monotonic(), 0.001)
        times = (self._lanes.next_due(now), self._holds.next_end(now))
        return min([poll, *((at - now) / 1000 for at in times if at is not None)])

    def _wants(self, peek: bool = False) -> Sequence[Want]:
        """What could start this instant. Asked by the store as its transaction begins; `peek` only looks."""
        now = self._clock.now()
        relays = {name: self._relays.get(name) for name in self._relays.names()}
        slots = {name: relay.free(now) for name, relay in relays.items()}
        room = {name: slots[name] + relay.ahead(now) for name, relay in relays.items()}
        room = {name: count for name, count in room.items() if count > 0}
        urgent = self._lanes.urgent(now)
        spare = {name: 1 for name, relay in relays.items() if urgent and name not in room and relay.spare(now)}
        if not room and not spare:
            return []
        candidates = {route: self._candidates(route) for route in (self._lanes.routes(now) if room else urgent)}
        shared = self._shared(room, candidates, now)
        served = {want.route for want in shared}
        unserved = {route: candidates[route] for route in urgent if route not in served}
        shared += [replace(want, least=HIGH) for want in self._shared(spare, unserved, now)]
        wants = [
            self._want(want, relays[want.relay], slots[want.relay], candidates[want.route], now) for want in shared
        ]
        if not peek:
            self._asked, self._taken = wants, {}
            self._lanes.next_turn()
            for want in wants:
                lanes = self._lanes.take(want.route, now, want.least)
                self._taken[want.route] = self._taken.get(want.route, {}) | lanes
        return wants

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
        want = replace(want, slots=slots, sealed_as=relay.rule.id)
        if not relay.quotas:
            return want
        return replace(
            want,
            quotas=relay.quotas,
            least=HIGH if self._holds.held(relay.name, HIGH + 1, now) else want.least,
            max_recipients=relay.max_recipients,
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

    def _start(self, delivery: Delivery, claimed: float) -> None:
        if delivery.content is None or delivery.size > _THREAD_FROM:
            self._spawn(self._start_large(delivery, claimed))
        else:
            self._hand_over(delivery, self._seal(delivery, delivery.content), claimed)

    async def _start_large(self, delivery: Delivery, claimed: float) -> None:
        """Content that may have to be read first, and is sealed in a thread: hashing it here would hold up the loop."""
        content = delivery.content or await self._store.delivery_content(delivery.id)
        if content is None:
            self._end(delivery, Event.FAULT, "no-content", "the content is gone")
        else:
            self._hand_over(delivery, await asyncio.to_thread(self._seal, delivery, content), claimed)

    def _seal(self, delivery: Delivery, content: Sequence[bytes]) -> Sealed | Settlement:
        """The bytes for the wire; or how the delivery ends, because they can't be made."""
        try:
            relay = self._relays.get(delivery.relay)
        except RelayNotFound:
            return self._settler.all_alike(delivery, Event.NOT_STARTED, "relay-gone", f"{delivery.relay} {_GONE}")
        sender, ring, at = (delivery.envelope_from, delivery.from_email), self._signing.ring, delivery.dated_at
        try:
            sealed = seal(content, *sender, relay.rule, ring, at)
        except SenderNotAccepted as error:
            log.error(Log.ALERT_SENDER_MISMATCH, id=delivery.id, relay=relay.name, detail=error.detail)
            return self._settler.all_alike(delivery, Event.FAULT, "sender-mismatch", error.detail)
        if delivery.sealed_as is not None and delivery.sealed_as != sealed.rule_id:
            # the same Message-ID under another From must not follow a copy that may be out
            text = "an attempt in doubt was sealed by another sender rule"
            return self._settler.all_alike(delivery, Event.PARK, "sealed-differently", text)
        return sealed

    def _hand_over(self, delivery: Delivery, made: Sealed | Settlement, claimed: float) -> None:
        if isinstance(made, Settlement):
            self._spawn(self._commit(delivery, made))
        elif delivery.relay in self._relays.names() and self._relays.get(delivery.relay).rule.id == made.rule_id:
            self._send(delivery, made, claimed)
        else:  # the configuration was changed while a thread sealed it
            self._end(delivery, Event.NOT_STARTED, "relay-gone", f"{delivery.relay} {_GONE}")

    def _send(self, delivery: Delivery, sealed: Sealed, claimed: float) -> None:
        relay = self._relays.get(delivery.relay)
        at_most_once = delivery.delivery == AT_MOST_ONCE

        # a claim ahead is no sign that it began: after a kill only what is marked is in doubt
        async def commit_content_started() -> None:
            failpoints.passed("content.before_mark")
            if not await self._store.start_content(delivery.attempt, self._clock.now()):
                raise LeaseLost

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
            lambda report: self._done(relay, delivery, sealed, report),
        )

    def _done(self, relay: Relay, delivery: Delivery, sealed: Sealed, report: Report) -> None:
        failpoints.passed("settle.before")
        left_out = len(delivery.recipients) - len(report.results)
        results = [*report.results, *[_LEFT_OUT] * left_out]
        verdicts = judge_all(relay.policy, delivery, results, self._clock.now())
        until = self._blame(relay, delivery, verdicts, report)
        relay.judged(verdicts)
        self._avoided.learn(relay.name, report, verdicts, self._clock.now())
        settlement = self._settler.settle(delivery, replace(report, results=results), sealed, verdicts, until)
        self._count(delivery, settlement, report)
        self._spawn(self._commit(delivery, settlement, self._store.settle(settlement)))
        if self._tracing.on:
            self._spawn(self._trace(delivery, settlement))

    async def _trace(self, delivery: Delivery, settlement: Settlement) -> None:
        """Make the attempt a part of the trace that its message was accepted in."""
        with contextlib.suppress(PostroomError):  # a trace is worth no second try
            lines = await self._store.list_events(delivery.account, delivery.id)
            traceparent = next((line.data["traceparent"] for line in lines if "traceparent" in line.data), None)
            told: dict[str, str | int | bool] = {
                "postroom.id": delivery.id,
                "postroom.attempt": delivery.attempt,
                "postroom.relay": delivery.relay,
                "postroom.result": settlement.result,
                "postroom.recipients": len(settlement.recipients),
            }
            if codes := sorted({each.code for each in settlement.recipients if each.code is not None}):
                told["smtp.response.status_code"] = codes[-1]
            began = settlement.now - int(settlement.timings.get("total", 0))
            failed = "" if settlement.result in ("sent", "not_started") else settlement.result
            self._tracing.attempt(traceparent, began, settlement.now, told, failed)

    def _blame(self, relay: Relay, delivery: Delivery, verdicts: Sequence[Verdict], report: Report) -> int | None:
        """What the verdicts say of the relay and the connection is done to them; answers until when the relay rests."""
        until = None
        for verdict, result in dict(zip(verdicts, report.results, strict=False)).items():
            text = str(result.reply or result.detail or result.failure)
            if verdict.scope in (Scope.RELAY, Scope.CONNECTION) or verdict.learn is not None:
                until = relay.blame(verdict, report, f"{verdict.kind}: {text}") or until
            if verdict.scope is Scope.RELAY:
                log.warning(Log.RELAY_PAUSED, relay=relay.name, kind=verdict.kind, until=until, text=text)
            elif verdict.alert == 1:
                name = Log.ALERT_SENDER_MISMATCH if verdict.kind == "sender-mismatch" else Log.ALERT_REPLY
                log.error(name, id=delivery.id, relay=relay.name, kind=verdict.kind, detail=text)
                relay.alert(verdict.kind, text)
        return until

    def _end(self, delivery: Delivery, event: Event, kind: str, text: str) -> None:
        self._spawn(self._commit(delivery, self._settler.all_alike(delivery, event, kind, text)))

    async def _commit(self, delivery: Delivery, settlement: Settlement, queued: Awaitable[int] | None = None) -> None:
        """Make a result durable; while the store is away, keep trying for as long as the lease may hold."""
        while True:
            try:
                rows = await (queued or self._store.settle(settlement))
                break
            except PostroomError:
                # a result that can't be recorded is never dropped silently: the rescuer closes it as in doubt if we die
                queued = None
                await asyncio.sleep(self._settings.poll_interval)
        failpoints.passed("settle.after")
        if settlement.unspent:
            self._holds.forget(delivery.relay)
        if rows == 0:
            self._metrics.leases_lost.inc()
            log.warning(Log.LEASE_LOST, id=settlement.id, attempt=settlement.attempt, result=settlement.result)
        for each in settlement.recipients:
            if each.due_at is not None:
                self._queued(delivery.route, delivery.priority, each.due_at)
        self._signals.moved(settlement.id)

    def _count(self, delivery: Delivery, settlement: Settlement, report: Report) -> None:
        metrics = self._metrics
        for each in settlement.recipients:
            labelled(metrics.outcomes, delivery.relay, each.event.value, each.kind).inc()
            if each.code is not None:
                labelled(metrics.replies, delivery.relay, f"{each.code // 100}yz", str(each.code)).inc()
        if settlement.result == "in_doubt":
            labelled(metrics.in_doubt, delivery.relay).inc()
        if settlement.result in ("sent", "partly_sent"):
            waited = (settlement.now - delivery.dated_at) / 1000
            labelled(metrics.delivery_seconds, str(delivery.priority)).observe(max(waited, 0.0))
        if total := report.timings.get("total"):
            labelled(metrics.attempt_seconds, delivery.relay).observe(total / 1000)
        log.debug(Log.ATTEMPT, id=delivery.id, relay=delivery.relay, result=settlement.result, session=report.session)

    # --- beside the loop -----------------------------------------------------------------------------------------

    async def heartbeat(self) -> None:
        """Renew our leases, for ever. A lease that could not be renewed stops content from being started."""
        while True:
            asked = self._clock.monotonic()
            failpoints.passed("heartbeat.before")
            with contextlib.suppress(PostroomError):
                await self._store.heartbeat(self._holder, self._clock.now(), self._settings.lease)
                self._leases.renewed(asked, self._clock.monotonic())
            await asyncio.sleep(self._settings.lease / 3)

    def stop_claiming(self) -> None:
        """Begin the drain: nothing new is claimed from here on."""
        self._draining = True
        self._wake.set()

    async def settle_all(self) -> None:
        """Wait until every result is committed."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_GONE = "is no longer the relay that this was to go by"
_LEFT_OUT = RecipientResult(
    Phase.MAIL,
    failure=Failure.LEFT_OUT,
    detail="left for the next transaction: the relay takes fewer recipients at once",
)


class LeaseLost(Exception):
    """Another sender owns the delivery now: the content must not be started."""
