"""A relay: its slots, and what it learnt of the relay. Implements port.Relay.

Slots are opened when there is mail for them and stay open; the one that was used last is used next, so that idle
ones age out. Whether the relay takes mail at all, and who may log in, is relay/condition's: while that is not sure,
one slot at most is offered beside those that have a session.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from service.clock import Clock
from service.mail.envelope import Offer
from service.mail.lifecycle import Event
from service.mail.outcome import Action, Lesson, Phase, Policy, Scope, Verdict
from service.mail.reply import Reply
from service.mail.seal import SenderRule
from service.relay.backoff import Width
from service.relay.check_turns import CheckTurns
from service.relay.checking import Checking
from service.relay.condition import Condition
from service.relay.config import RelayConfig
from service.relay.hidden import Hidden
from service.relay.in_a_row import InARow
from service.relay.job import Job
from service.relay.learnt import Learnt
from service.relay.ledger import ProcessLedger
from service.relay.line import Line
from service.relay.port import CheckStep, Health, Ledger, Outgoing, RecipientResult, RelayStatus, Report
from service.relay.session import Session, SessionFailure, Timeouts, open_session
from service.relay.share import RefusedShare
from service.relay.slot import Slot
from service.relay.tls import RelayContext, tls_context
from service.settings import Settings
from service.telemetry import Log, get_logger

log = get_logger()

_FINISHED = (Event.ACCEPTED, Event.REFUSED)  # the relay has answered for good


class Pool:
    """One relay with its sessions. `ledger`: what all processes know of its account; by default it is alone."""

    def __init__(
        self,
        config: RelayConfig,
        settings: Settings,
        clock: Clock,
        ledger: Ledger | None = None,
        context: RelayContext | None = None,
    ) -> None:
        self.name = config.name
        self.config = config
        self.rule: SenderRule = config.rule
        self.quotas = config.quotas
        self.timeouts = Timeouts.of(settings)
        self.idle_timeout = settings.idle_timeout
        self.lifetime = settings.session_lifetime
        self.chunk_within = settings.chunk_within
        self.learnt = Learnt(config, settings.learnt_for)
        self._hidden = Hidden()
        self.endpoint = f"{config.host}:{config.port}"
        self.offer: Offer | None = None
        self._offered_to_us = False
        self._kind: object = None
        self._kind_offer: Offer | None = None  # of which it was made
        self._clock, self._ehlo_name = clock, settings.ehlo_name
        self.monotonic = clock.monotonic  # seconds
        self._context = context or tls_context(config)
        self._slots: list[Slot] = []
        self._idle: list[Slot] = []
        self._line = Line(settings.start_wait, clock.monotonic)  # one for each busy slot at most
        self._capacity: list[Callable[[], None]] = []
        self.policy: Policy = config.policy
        self.limits = config.limits
        self._width, self._refused = Width(config.max_connections, settings.widen_after), RefusedShare()
        self._row = InARow(settings.refusals_in_a_row, settings.doubts_in_a_row, settings.fruitless_in_a_row)
        self._sent = self._reply_at = self._error_at = 0
        self._last_reply: Reply | None = None
        self._last_error = ""
        self._closing = False
        self.still_busy: Callable[[], int] = lambda: 0  # connections of the pool whose place it took, that finish
        self.secret_refused: Callable[[], None] = lambda: None  # see condition.Owner; the router's
        ledger = ledger or ProcessLedger()
        self._condition = Condition(self, settings, clock, ledger)
        self.check_turns = CheckTurns(clock.monotonic)  # of this pool alone, until a router shares its own
        self._checking = Checking(config, settings, clock, ledger, self._condition)

    # --- what a plan asks ----------------------------------------------------------------------------------------

    @property
    def kind(self) -> object:
        """See port."""
        if self._kind is None or self._kind_offer is not self.offer:
            rule = self.rule
            sender = (rule.login, rule.must_equal_login, rule.rewrite_from, rule.dkim)
            self._kind, self._kind_offer = _kind((sender, self.limits, self.offer, self.max_size)), self.offer
        return self._kind

    # --- what the dispatcher asks --------------------------------------------------------------------------------

    @property
    def max_size(self) -> int | None:
        """Octets: the least of what is configured and what SIZE announced."""
        own, told = self.config.max_bytes, self.offer.max_size if self.offer is not None else None
        return min(own, told) if own and told else own or told or None

    @property
    def max_recipients(self) -> int | None:
        """See port."""
        return self.learnt.max_recipients

    def told(self, offer: Offer) -> None:
        """See port."""
        if not self._offered_to_us:
            self.offer = offer

    def free(self, now: int) -> int:
        """See port."""
        if not self._takes_mail:
            return 0
        room = max(self._width.now_at_most - self._busy - self.still_busy(), 0)
        if self._condition.proven():
            return room
        opened = sum(slot.ready for slot in self._idle)
        logs_in = any(slot.busy and slot.session is None for slot in self._slots)
        return min(room, opened + (not logs_in and self._condition.may_ask()))

    def ahead(self, now: int) -> int:
        """See port."""
        if not self._takes_mail or self._line.stuck:
            return 0
        return max(min(self._followed(), self._width.now_at_most) - len(self._line), 0)

    def spare(self, now: int) -> bool:
        """See port: it is the next to go, so it waits for one connection and not for a place in the line as well."""
        if not self._takes_mail or self._line.stuck:
            return False
        return self._followed() > 0 and not self._line.any_urgent()

    def _followed(self) -> int:
        """How many slots are busy with what something may wait for: a login that is refused gives it back."""
        if self._condition.proven():
            return self._busy
        return sum(slot.busy and slot.session is not None for slot in self._slots)

    @property
    def _takes_mail(self) -> bool:
        return self._condition.health is Health.OPEN and not self._closing

    @property
    def _busy(self) -> int:
        return self.in_flight

    @property
    def in_flight(self) -> int:
        """Slots at work."""
        return len(self._slots) - len(self._idle)

    def start(self, outgoing: Outgoing, done: Callable[[Report], None]) -> None:
        """See port."""
        job = Job(outgoing, lambda report: self._note(report, done))
        if self._busy >= self._width.now_at_most:
            self._line.add(job)
        elif self._idle:
            self._idle.pop(self._best_idle()).start(job)
        else:
            self._slots.append(slot := Slot(self))
            slot.start(job)

    def _best_idle(self) -> int:
        """The place of the slot that was used last, of those that need no login if there are any."""
        return next((n for n in reversed(range(len(self._idle))) if self._idle[n].ready), -1)

    def _note(self, report: Report, done: Callable[[Report], None]) -> None:
        """What a report says of the relay; then it is handed on, whatever is wrong with that."""
        try:
            for result in report.results:
                self._note_result(result)
        except Exception as error:  # a fault of ours must not keep the report from whoever waits for it
            log.critical(Log.LOOP_FAILED, during="note", exc_info=error)
        done(report)

    def _note_result(self, result: RecipientResult) -> None:
        if result.reply is not None:
            now = self._clock.now()
            self._last_reply, self._reply_at = result.reply, now
            if result.phase is Phase.DOT and result.reply.positive:
                self._sent += 1
                self._succeeded(now)
        elif result.failure is not None:
            self._failed_for(f"{result.phase}: {result.failure}: {result.detail}")

    def _failed_for(self, words: str) -> None:
        self._last_error, self._error_at = words, self._clock.now()

    def on_capacity(self, callback: Callable[[], None]) -> None:
        """`callback` is called when a slot may be free."""
        self._capacity.append(callback)

    # --- what a slot asks ----------------------------------------------------------------------------------------

    async def connect(self) -> Session:
        """See slot.Owner: when it is our turn to log in."""
        return await self._condition.log_in()

    async def open(self) -> Session:
        """See condition.Owner: what a session learns of the relay is kept."""
        try:
            session = await open_session(
                self.config,
                self._context,
                self.timeouts,
                self._ehlo_name,
                self._clock.monotonic,
                hidden=self._hidden,
            )
        except SessionFailure as failure:
            self._failed_for(str(failure))
            raise
        # RFC 6531 3.1: SMTPUTF8 is nothing without 8BITMIME
        both = {"smtputf8", "8bitmime"} <= session.capabilities.keys()
        self.offer, self._offered_to_us = Offer(both, session.max_size), True
        return session

    def next_ahead(self, may_go: Callable[[Outgoing], bool]) -> Job | None:
        """See slot.Owner."""
        if self._condition.health is not Health.OPEN or not self._line or not may_go(self._line.first().outgoing):
            return None
        job = self._line.take()
        self._tell()
        return job

    def desynced(self) -> None:
        """See slot.Owner: less goes out at once from here on."""
        if self.learnt.out_of_step(self._clock.now()):
            log.warning(Log.RELAY_PIPELINING, relay=self.name, level=self.learnt.pipelining.name.lower())

    def unchunked(self) -> None:
        """See slot.Owner: what it offers and refuses is not used for a while."""
        if self.learnt.no_chunks(self._clock.now()):
            log.warning(Log.RELAY_PIPELINING, relay=self.name, level="no chunks")

    def keeps(self) -> bool:
        """See slot.Owner."""
        return self._takes_mail and sum(slot.ready for slot in self._slots) <= self.config.warm_connections

    def keep_warm(self) -> None:
        """See port: a session is opened in an idle slot, or in a new one."""
        missing = self.config.warm_connections - sum(slot.ready or slot.busy or slot.warming for slot in self._slots)
        room = max(self._width.now_at_most - self.still_busy(), 0)
        for _ in range(min(missing, room) if self._takes_mail else 0):
            slot = next((each for each in self._idle if not each.ready and not each.warming), None)
            if slot is None:
                slot = Slot(self)
                self._slots.append(slot)
                self._idle.append(slot)
            slot.warm()

    def finished(self, slot: Slot) -> None:
        """A slot is free."""
        self._line.stuck = False
        if self._line and self._busy <= self._width.now_at_most and self._takes_mail:
            slot.start(self._line.take())
        else:
            self._idle.append(slot)
        self._tell()

    def _tell(self) -> None:
        for callback in self._capacity:
            try:
                callback()
            except Exception as error:  # it must neither end a session's worker nor lose a job
                log.critical(Log.LOOP_FAILED, during="capacity", exc_info=error)

    # --- health --------------------------------------------------------------------------------------------------

    def blame(self, verdict: Verdict, report: Report, reason: str) -> int | None:
        """See port."""
        now = self._clock.now()
        if report.renew is not None and (verdict.scope is Scope.CONNECTION or verdict.then is Action.AUTH):
            report.renew()
        self._learn(verdict, report, now)
        if verdict.scope is not Scope.RELAY:
            return None
        return self._condition.blame(verdict, reason)

    def judged(
        self, message: str, verdicts: Sequence[Verdict], report: Report, recipients: Sequence[str] = ()
    ) -> Sequence[Verdict]:
        """See port."""
        for verdict in verdicts:
            if verdict.event in _FINISHED:
                self._finished(refused=verdict.kind == "content")
        for trend in self._row.judged(message, verdicts, report, recipients):
            self._condition.blame(trend.verdict, trend.reason)
            verdicts = [trend.verdict if each == trend.spared else each for each in verdicts]
        return verdicts

    def _finished(self, *, refused: bool) -> None:
        if words := self._refused.finished(refused=refused, now=self._clock.now()):
            log.warning(Log.ALERT_RELAY, relay=self.name, kind="content", detail=words)
            self.alert("content", words)

    def alert(self, kind: str, detail: str) -> None:
        """See port."""
        self._condition.alert(kind, detail)

    def _learn(self, verdict: Verdict, report: Report, now: int) -> None:
        """What the relay takes less of than was thought."""
        if verdict.learn is Lesson.CONNECTIONS:
            self._width.halve(now, verdict.pauses[0] if verdict.pauses else 0)
        elif verdict.learn is Lesson.MESSAGES:
            self.learnt.fewer_messages(report.served, now)
        elif verdict.learn is Lesson.RECIPIENTS:
            self.learnt.fewer_recipients(report.results, now)

    def _succeeded(self, now: int) -> None:
        self._condition.succeeded()
        self._width.succeeded(now)
        self.learnt.succeeded(now)

    def health_changed(self) -> None:
        """See condition.Owner."""
        if self._condition.health is Health.OPEN:
            self._tell()
        else:
            self._line.give_back(f"the relay is paused: {self._condition.reason}")

    def hold(self, reason: str) -> Awaitable[None]:
        """See port."""
        return self._condition.hold(reason)

    def resume(self) -> Awaitable[None]:
        """See port."""
        return self._condition.resume()

    def status(self, now: int) -> RelayStatus:
        """See port."""
        config, condition = self.config, self._condition
        return RelayStatus(
            name=self.name,
            host=config.host,
            port=config.port,
            tls=config.tls.value,
            preset=config.preset.name,
            health=condition.health,
            reason=condition.reason,
            until=condition.until,
            connections=sum(slot.connected for slot in self._slots),
            max_connections=config.max_connections,
            in_flight=len(self._slots) - len(self._idle),
            sent=self._sent,
            last_reply=str(self._last_reply or ""),
            last_error=self._last_error,
            reply_at=self._reply_at,
            error_at=self._error_at,
            account=self.account,
            troubles=tuple(condition.troubles()),
            proven_at=condition.proven_at(),
            prober=condition.prober(),
        )

    @property
    def account(self) -> str:
        """See port."""
        return self.config.account

    # --- check and close -----------------------------------------------------------------------------------------

    async def check(self, sender: str = "", *, force: bool = False) -> Sequence[CheckStep]:
        """See port."""
        return await self._checking.run(self.check_turns, sender, force=force)

    async def close(self, grace: float) -> None:
        """See port."""
        self._closing = True
        self._line.close("its connections are being closed")
        await self._condition.close()
        await asyncio.gather(*(slot.stop() for slot in self._idle))
        idle = asyncio.Event()
        self.on_capacity(lambda: idle.set() if len(self._idle) == len(self._slots) else None)
        if len(self._idle) < len(self._slots):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await idle.wait()
        await asyncio.gather(*(slot.stop() for slot in self._slots))


@lru_cache(maxsize=4096)
def _kind(traits: object) -> object:
    """One object for equal traits: to compare those with every message takes longer than to ask."""
    return object()
