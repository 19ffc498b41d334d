"""What came back from a relay, made durable: each report is judged once and committed, and the relay learns from it.

Whatever goes wrong in our own code on that way, the attempt is closed: its lease is renewed for as long as this process
lives, so one that was left open would hold its message until a restart. What a verdict means for a recipient is
spool/settling's; this file acts on it, and counts.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from service import failpoints
from service.clock import Clock
from service.errors import PostroomError
from service.mail.lifecycle import Event
from service.mail.outcome import Action, Failure, Phase, Scope, Verdict
from service.mail.seal import Sealed
from service.relay.port import RecipientResult, Relay, Report
from service.settings import Settings
from service.spool.avoided import Avoided
from service.spool.elsewhere import Elsewhere, Resolved
from service.spool.holds import Holds
from service.spool.salvage import not_sent, salvage
from service.spool.settling import Settler, judge_all
from service.spool.signals import Signals
from service.store.port import Store
from service.store.values import Delivery, Settlement
from service.telemetry import Log, Metrics, get_logger, labelled
from service.tracing import Tracing

log = get_logger()


class Recorder:
    """Of one dispatcher. `queued` is called for each recipient that goes back to the queue: route, priority, due (ms)."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: Store,
        signals: Signals,
        metrics: Metrics,
        tracing: Tracing,
        elsewhere: Elsewhere,
        queued: Callable[[str, int, int], None],
    ) -> None:
        self._settings, self._clock, self._store, self._signals = settings, clock, store, signals
        self._metrics, self._tracing, self._elsewhere, self._queued = metrics, tracing, elsewhere, queued
        self._settler = Settler(settings, clock)
        self.holds, self.avoided = Holds(), Avoided(settings.avoided_for)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsettled: set[asyncio.Future[int]] = set()  # results that the store was given, and has not answered

    # --- what became of a delivery -----------------------------------------------------------------------------------

    def done(self, relay: Relay, delivery: Delivery, sealed: Sealed, report: Report) -> None:
        """A relay's report."""
        try:
            failpoints.passed("settle.before")
            settlement, ended = self._judged(relay, delivery, sealed, report)
        except Exception as error:
            self._tell_fault(delivery, error, "judge")
            settlement, ended = salvage(delivery, report, sealed, self._settings, self._clock.now()), False
        if ended:
            self.spawn(self._commit_told(delivery, settlement, report, sealed))
        else:
            self._commit(delivery, settlement, report, sealed)
        self._count(delivery, settlement, report)
        if self._tracing.on:
            self.spawn(self._trace(delivery, settlement))

    def end(self, delivery: Delivery, event: Event, kind: str, text: str) -> None:
        """It ends, or waits, without having reached a relay."""
        self.record(delivery, self._settler.all_alike(delivery, event, kind, text))

    def all_alike(self, delivery: Delivery, event: Event, kind: str, text: str, route: str | None = None) -> Settlement:
        """What `end` records. route: by which it goes from here on, where that is another one."""
        return self._settler.all_alike(delivery, event, kind, text, route)

    def record(self, delivery: Delivery, settlement: Settlement) -> None:
        """A settlement of a delivery that no relay was given."""
        self._commit(delivery, settlement)

    def failed(self, delivery: Delivery, error: Exception) -> None:
        """A fault of ours kept it from a relay: it is tried again."""
        self._tell_fault(delivery, error, "start")
        self.record(delivery, salvage(delivery, not_sent(delivery, error), None, self._settings, self._clock.now()))

    def _tell_fault(self, delivery: Delivery, error: Exception, during: str) -> None:
        log.error(Log.ATTEMPT_FAULT, id=delivery.id, attempt=delivery.attempt, during=during, exc_info=error)

    def _judged(self, relay: Relay, delivery: Delivery, sealed: Sealed, report: Report) -> tuple[Settlement, bool]:
        """Its settlement, and whether no relay was left that could carry it."""
        results = [*report.results, *[_LEFT_OUT] * (len(delivery.recipients) - len(report.results))]
        now = self._clock.now()
        free_again = self._settings.reconnect_free_after
        resolved = Resolved(judge_all(relay.policy, delivery, results, now, free_again))
        faultless = all(verdict.event is Event.ACCEPTED for verdict in resolved.verdicts)
        if not faultless:
            resolved = self._elsewhere.resolve(delivery, resolved.verdicts)
        recipients = () if faultless else [recipient.email for recipient in delivery.recipients]
        verdicts = relay.judged(delivery.id, resolved.verdicts, report, recipients)
        until = None if faultless else self._blame(relay, delivery, verdicts, report)
        self.avoided.learn(relay.name, report, verdicts, now)
        if len(results) > len(report.results):
            report = replace(report, results=results)
        return self._settler.settle(delivery, report, sealed, verdicts, until, resolved.route), resolved.ended

    def _blame(self, relay: Relay, delivery: Delivery, verdicts: Sequence[Verdict], report: Report) -> int | None:
        """What the verdicts say of the relay and the connection is done to them; answers until when the relay rests."""
        until = None
        for verdict, result in dict(zip(verdicts, report.results, strict=False)).items():
            text = str(result.reply or result.detail or result.failure)
            if verdict.scope in (Scope.RELAY, Scope.CONNECTION) or verdict.learn is not None:
                until = relay.blame(verdict, report, f"{verdict.kind}: {text}") or until
            if verdict.scope is Scope.RELAY:
                log.warning(Log.RELAY_PAUSED, relay=relay.name, until=until, text=text, **_named(verdict))
            elif verdict.action is Action.ELSEWHERE:
                log.warning(Log.ELSEWHERE, id=delivery.id, relay=relay.name, detail=text, **_named(verdict))
            elif verdict.alert == 1:
                name = Log.ALERT_SENDER_MISMATCH if verdict.kind == "sender-mismatch" else Log.ALERT_REPLY
                log.error(name, id=delivery.id, relay=relay.name, detail=text, **_named(verdict))
                relay.alert(verdict.kind, text)
        return until

    # --- and how it is written down ----------------------------------------------------------------------------------

    def _commit(
        self, delivery: Delivery, settlement: Settlement, report: Report | None = None, sealed: Sealed | None = None
    ) -> None:
        """Make a result durable. It is handed to the store by the call, so that results keep their order."""
        queued = asyncio.ensure_future(self._store.settle(settlement))
        self._unsettled.add(queued)
        queued.add_done_callback(partial(self._answered, delivery, settlement, report, sealed))

    def _answered(
        self,
        delivery: Delivery,
        settlement: Settlement,
        report: Report | None,
        sealed: Sealed | None,
        queued: "asyncio.Future[int]",
    ) -> None:
        """No task for each: all but a few results are written at the first try."""
        self._unsettled.discard(queued)
        if queued.cancelled():  # the loop ends
            return
        if queued.exception() is not None:
            self.spawn(self._commit_again(delivery, settlement, queued, report, sealed))
            return
        try:
            self._committed(delivery, settlement, queued.result())
        except Exception as error:
            log.critical(Log.LOOP_FAILED, during="settle", exc_info=error)

    async def _commit_told(self, delivery: Delivery, settlement: Settlement, report: Report, sealed: Sealed) -> None:
        """A message ends because no relay can carry it: each one's reason is looked up first."""
        try:
            settlement = await self._elsewhere.told(delivery, settlement)
        except Exception as error:  # it must end without them too
            self._tell_fault(delivery, error, "tell")
        self._commit(delivery, settlement, report, sealed)

    async def _commit_again(
        self,
        delivery: Delivery,
        settlement: Settlement,
        queued: Awaitable[int],
        report: Report | None,
        sealed: Sealed | None,
    ) -> None:
        try:
            rows = await self._durable(settlement, queued)
        except Exception as error:  # the store is there and can't write this one, so it never will
            self._tell_fault(delivery, error, "settle")
            report = report or not_sent(delivery, error)
            settlement = salvage(delivery, report, sealed, self._settings, self._clock.now())
            rows = await self._durable(settlement, self._store.settle(settlement))
        self._committed(delivery, settlement, rows)

    def _committed(self, delivery: Delivery, settlement: Settlement, rows: int) -> None:
        failpoints.passed("settle.after")
        if settlement.unspent:
            self.holds.forget(delivery.relay)
        if rows == 0:
            self._metrics.leases_lost.inc()
            log.warning(Log.LEASE_LOST, id=settlement.id, attempt=settlement.attempt, result=settlement.result)
        for each in settlement.recipients:
            if each.due_at is not None:
                self._queued(settlement.route or delivery.route, delivery.priority, each.due_at)
        self._signals.moved(settlement.id)

    async def _durable(self, settlement: Settlement, queued: Awaitable[int]) -> int:
        """The rows it changed; while the store is away, keep trying for as long as the lease may hold.

        A result that can't be recorded is never dropped silently: the rescuer closes it as in doubt if we die.
        """
        while True:
            try:
                return await queued
            except PostroomError:
                await asyncio.sleep(self._settings.poll_interval)
                queued = self._store.settle(settlement)

    def _count(self, delivery: Delivery, settlement: Settlement, report: Report) -> None:
        metrics = self._metrics
        for each in settlement.recipients:
            if each.left_out:
                continue
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

    # --- work beside the loop ----------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside; `settle_all` waits for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical(Log.LOOP_FAILED, during="settle", exc_info=error)

    async def settle_all(self) -> None:
        """Wait until every result is committed."""
        while self._tasks or self._unsettled:
            await asyncio.gather(*self._tasks, *self._unsettled, return_exceptions=True)


def _named(verdict: Verdict) -> dict[str, str]:
    """Class, scope, and what was done: what every line about a verdict names."""
    return {"kind": verdict.kind, "scope": verdict.scope.value, "action": verdict.action.value}


_LEFT_OUT = RecipientResult(
    Phase.MAIL,
    failure=Failure.LEFT_OUT,
    detail="left for the next transaction: the relay takes fewer recipients at once",
)
