"""A relay: its slots, its health, its probe. Implements port.Relay.

Slots are opened when there is mail for them and stay open; the one that was used last is used next, so that idle
ones age out. A pause ends by itself; a broken relay is probed by one connection, less and less often, and takes
mail again when a probe has authenticated.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from service.clock import Clock
from service.mail.envelope import Offer
from service.mail.lifecycle import Event
from service.mail.outcome import Action, Failure, Lesson, Phase, Policy, Scope, Verdict, judge
from service.mail.seal import SenderRule
from service.relay.backoff import Backoff, Width
from service.relay.config import RelayConfig
from service.relay.hints import hint_for
from service.relay.port import CheckStep, Health, Outgoing, Pipelining, RelayStatus, Report
from service.relay.session import Session, SessionFailure, Timeouts, open_session, tls_context
from service.relay.slot import Job, Slot, give_back
from service.settings import Settings
from service.telemetry import Log, get_logger

log = get_logger()

_AHEAD_FOR = 5.0  # seconds for which a delivery waits for a busy slot before it is given back


class Pool:
    """One relay with its sessions."""

    def __init__(self, config: RelayConfig, settings: Settings, clock: Clock) -> None:
        self.name = config.name
        self.config = config
        self.rule: SenderRule = config.rule
        self.quotas = config.quotas
        self.timeouts = Timeouts.of(settings)
        self.idle_timeout = settings.idle_timeout
        self.lifetime = settings.session_lifetime
        self.max_messages = config.max_messages_per_connection
        self.pipelining = config.pipelining
        self.endpoint = f"{config.host}:{config.port}"
        self.offer: Offer | None = None
        self._offered_to_us = False
        self._clock, self._ehlo_name = clock, settings.ehlo_name
        self._context = tls_context(config)
        self._slots: list[Slot] = []
        self._idle: list[Slot] = []
        self._ahead: list[tuple[float, Job]] = []  # one for each busy slot at most, most urgent first; since when
        self._ahead_timer: asyncio.TimerHandle | None = None
        self._stuck = False  # none of the busy slots has finished since one waited too long
        self._capacity: list[Callable[[], None]] = []
        self._health, self._reason = Health.OPEN, ""
        self._until: int | None = None
        self.policy: Policy = config.policy
        self.max_recipients: int | None = None
        self._backoff, self._width = Backoff(config.timezone), Width(config.max_connections)
        self._trouble: Verdict | None = None  # what the probe is for
        self._rests_until = 0  # ms: a probe that succeeds before does not end a pause for rate or quota
        self._timer: asyncio.Task[None] | None = None
        self._sent = 0
        self._last_reply = self._last_error = ""
        self._closing = False

    # --- what the dispatcher asks --------------------------------------------------------------------------------

    @property
    def max_size(self) -> int | None:
        """Octets: the least of what is configured and what SIZE announced."""
        known = [size for size in (self.config.max_bytes, self.offer and self.offer.max_size) if size]
        return min(known, default=None)

    def told(self, offer: Offer) -> None:
        """See port."""
        if not self._offered_to_us:
            self.offer = offer

    def free(self, now: int) -> int:
        """See port."""
        if self._health is not Health.OPEN or self._closing:
            return 0
        return max(self._width.now_at_most - self._busy, 0)

    def ahead(self, now: int) -> int:
        """See port."""
        if self._health is not Health.OPEN or self._closing or self._stuck:
            return 0
        return max(min(self._busy, self._width.now_at_most) - len(self._ahead), 0)

    @property
    def _busy(self) -> int:
        return len(self._slots) - len(self._idle)

    def start(self, outgoing: Outgoing, done: Callable[[Report], None]) -> None:
        """See port."""
        job = Job(outgoing, lambda report: self._note(report, done))
        if self._busy >= self._width.now_at_most:
            self._wait_ahead(job)
        elif self._idle:
            self._idle.pop().start(job)
        else:
            self._slots.append(slot := Slot(self))
            slot.start(job)

    def _wait_ahead(self, job: Job) -> None:
        at = next(
            (n for n, (_, each) in enumerate(self._ahead) if each.outgoing.priority > job.outgoing.priority),
            len(self._ahead),
        )
        self._ahead.insert(at, (self.monotonic(), job))
        if self._ahead_timer is None:
            self._ahead_timer = asyncio.get_running_loop().call_later(_AHEAD_FOR, self._waited)

    def _waited(self) -> None:
        """Give back what waited too long: another relay may take it, and its lease must not run out here."""
        self._ahead_timer = None
        oldest = self.monotonic() - _AHEAD_FOR
        for entry in [entry for entry in self._ahead if entry[0] <= oldest]:
            self._stuck = True
            self._ahead.remove(entry)
            give_back(entry[1], "no connection became free")
        if self._ahead:
            self._ahead_timer = asyncio.get_running_loop().call_later(1.0, self._waited)

    def _give_back_ahead(self, why: str) -> None:
        waiting, self._ahead = self._ahead, []
        for _, job in waiting:
            give_back(job, why)

    def _note(self, report: Report, done: Callable[[Report], None]) -> None:
        for result in report.results:
            if result.reply is not None:
                self._last_reply = str(result.reply)
                if result.phase is Phase.DOT and result.reply.positive:
                    self._sent += 1
                    self._succeeded()
            elif result.failure is not None:
                self._last_error = f"{result.phase}: {result.failure}: {result.detail}"
        try:
            done(report)
        except Exception as error:  # a fault of whoever is told must not end the session's worker
            log.critical(Log.LOOP_FAILED, during="report", exc_info=error)

    def on_capacity(self, callback: Callable[[], None]) -> None:
        """`callback` is called when a slot may be free."""
        self._capacity.append(callback)

    # --- what a slot asks ----------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Seconds."""
        return self._clock.monotonic()

    async def connect(self) -> Session:
        """A fresh session; what it learned of the relay is kept."""
        session = await open_session(self.config, self._context, self.timeouts, self._ehlo_name, self._clock.monotonic)
        self.offer, self._offered_to_us = Offer("smtputf8" in session.capabilities, session.max_size), True
        return session

    def next_ahead(self) -> Job | None:
        """See slot.Owner."""
        if self._health is not Health.OPEN or not self._ahead or self._ahead[0][1].outgoing.at_most_once:
            return None
        _, job = self._ahead.pop(0)
        self._tell()
        return job

    def desynced(self) -> None:
        """See slot.Owner: less goes out at once from here on."""
        if self.pipelining > Pipelining.OFF:
            self.pipelining = Pipelining(self.pipelining - 1)
            log.warning(Log.RELAY_PIPELINING, relay=self.name, level=self.pipelining.name.lower())

    def finished(self, slot: Slot) -> None:
        """A slot is free."""
        self._stuck = False
        if self._ahead and self._busy <= self._width.now_at_most and self._health is Health.OPEN and not self._closing:
            slot.start(self._ahead.pop(0)[1])
        else:
            self._idle.append(slot)
        self._tell()

    def _tell(self) -> None:
        for callback in self._capacity:
            callback()

    # --- health --------------------------------------------------------------------------------------------------

    def blame(self, verdict: Verdict, report: Report, reason: str) -> int | None:
        """See port."""
        now = self._clock.now()
        if report.renew is not None and (verdict.scope is Scope.CONNECTION or verdict.then is Action.AUTH):
            report.renew()
        self._learn(verdict, report, now)
        if verdict.scope is not Scope.RELAY:
            return None
        seconds = self._backoff.blame(verdict.kind, verdict.pauses, now)
        if verdict.probe and self._health is not Health.BROKEN:
            self._trouble = verdict
        self.pause_for(seconds, reason, broken=verdict.probe)
        if verdict.alert and self._backoff.times(verdict.kind) >= verdict.alert:
            log.warning(Log.ALERT_RELAY, relay=self.name, kind=verdict.kind, detail=reason)
        return self._until

    def _learn(self, verdict: Verdict, report: Report, now: int) -> None:
        """What the relay takes less of than was thought."""
        if verdict.learn is Lesson.CONNECTIONS:
            self._width.halve(now, verdict.pauses[0] if verdict.pauses else 0)
        elif verdict.learn is Lesson.MESSAGES and report.served:
            self.max_messages = max(1, min(self.max_messages, report.served - 1))
        elif verdict.learn is Lesson.RECIPIENTS:
            refused = sum(result.phase is Phase.RCPT for result in report.results)
            took = len(report.results) - refused or len(report.results) // 2
            most = took if refused else len(report.results) // 2
            self.max_recipients = max(1, min(self.max_recipients or most, most))

    def _succeeded(self) -> None:
        now = self._clock.now()
        self._backoff.succeeded(now)
        self._width.succeeded(now)

    def pause_for(self, seconds: float, reason: str, *, broken: bool = False) -> None:
        """Take no mail for `seconds`, or until a probe succeeds when `broken`; the longest wait wins."""
        if self._health is Health.PAUSED:
            return
        until = self._clock.now() + int(seconds * 1000)
        if not broken:
            self._rests_until = max(self._rests_until, until)
        if self._health is Health.BROKEN or (
            self._health is Health.WAITING and not broken and until <= (self._until or 0)
        ):
            return
        self._give_back_ahead(f"the relay is paused: {reason}")
        self._health = Health.BROKEN if broken else Health.WAITING
        self._reason = reason
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self._until = self._clock.now() + int(seconds * 1000)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.create_task(self._go_on_after(seconds))

    async def _go_on_after(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._health is Health.BROKEN and (failure := await self._probe()) is not None:
                seconds = self._after(failure)
            elif (left := self._rests_until - self._clock.now()) > 0:
                self._health, seconds = Health.WAITING, left / 1000
            else:
                break
            self._until = self._clock.now() + int(seconds * 1000)
        self._timer = None
        self._open()

    async def _probe(self) -> SessionFailure | None:
        """One connection, authenticated and ended; no mail. What it did not disprove stays known."""
        try:
            session = await self.connect()
        except SessionFailure as failure:
            return failure
        await session.quit()
        if self._trouble is not None and self._trouble.event is Event.NOT_STARTED:
            self._backoff.forget(self._trouble.kind)
        self._trouble = None
        return None

    def _after(self, failure: SessionFailure) -> float:
        """Seconds until the next probe."""
        self._last_error = self._reason = str(failure)
        verdict = self._trouble = judge(self.policy, failure.phase, failure.reply, failure.failure)
        seconds = self._backoff.blame(verdict.kind, verdict.pauses, self._clock.now())
        if self._backoff.times(verdict.kind) >= verdict.alert > 0:
            log.warning(Log.ALERT_RELAY, relay=self.name, kind=verdict.kind, detail=str(failure))
        return seconds * (1 + self._clock.jitter() / 4)

    def _open(self) -> None:
        self._health, self._reason, self._until = Health.OPEN, "", None
        self._tell()

    def hold(self, reason: str) -> None:
        """See port."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._give_back_ahead(f"the relay is paused: {reason}")
        self._health, self._reason, self._until = Health.PAUSED, reason, None

    def resume(self) -> None:
        """See port."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._backoff, self._rests_until = Backoff(self.config.timezone), 0
        self._open()

    def status(self, now: int) -> RelayStatus:
        """See port."""
        config = self.config
        return RelayStatus(
            name=self.name,
            host=config.host,
            port=config.port,
            tls=config.tls.value,
            preset=config.preset.name,
            health=self._health,
            reason=self._reason,
            until=self._until,
            connections=sum(slot.session is not None for slot in self._slots),
            max_connections=config.max_connections,
            in_flight=len(self._slots) - len(self._idle),
            sent=self._sent,
            last_reply=self._last_reply,
            last_error=self._last_error,
        )

    # --- check and close -----------------------------------------------------------------------------------------

    async def check(self) -> list[CheckStep]:
        """See port."""
        steps: list[CheckStep] = []
        began = self.monotonic()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeouts.connect):
                found = await loop.getaddrinfo(self.config.host, self.config.port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            detail = f"{self.config.host}: {error}"
            return [CheckStep("dns", False, self._since(began), detail, hint_for(Phase.CONNECT, Failure.DNS, None))]
        addresses = ", ".join(sorted({str(entry[4][0]) for entry in found}))
        steps.append(CheckStep("dns", True, self._since(began), addresses))
        try:
            session = await self.connect()
        except SessionFailure as failure:
            steps.append(
                CheckStep(
                    "tcp" if failure.phase is Phase.CONNECT else failure.phase.value,
                    False,
                    self._since(began),
                    str(failure.reply or failure.detail or failure.failure),
                    hint_for(failure.phase, failure.failure, failure.reply, self.config.preset.note),
                )
            )
            return steps
        for phase, milliseconds in session.timings.items():
            name = "tcp" if phase == Phase.CONNECT else phase
            steps.append(CheckStep(name, True, milliseconds, session.words if phase == Phase.AUTH else ""))
        await session.quit()
        return steps

    def _since(self, began: float) -> float:
        return (self.monotonic() - began) * 1000

    async def close(self, grace: float) -> None:
        """See port."""
        self._closing = True
        self._give_back_ahead("the sender is stopping")
        for timer in (self._timer, self._ahead_timer):
            if timer is not None:
                timer.cancel()
        idle = asyncio.Event()
        self.on_capacity(lambda: idle.set() if len(self._idle) == len(self._slots) else None)
        if len(self._idle) < len(self._slots):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await idle.wait()
        await asyncio.gather(*(slot.stop() for slot in self._slots))
