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
from service.mail.outcome import Failure, Phase
from service.mail.seal import SenderRule
from service.relay.config import RelayConfig
from service.relay.hints import hint_for
from service.relay.port import CheckStep, Health, Outgoing, RelayStatus, Report
from service.relay.session import Session, SessionFailure, Timeouts, open_session, tls_context
from service.relay.slot import Slot
from service.settings import Settings
from service.telemetry import Log, get_logger

log = get_logger()

_PROBE_AFTER_MAX = 600.0  # seconds


class Pool:
    """One relay with its sessions."""

    def __init__(self, config: RelayConfig, settings: Settings, clock: Clock) -> None:
        self.name = config.name
        self.config = config
        self.rule: SenderRule = config.rule
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
        self._capacity: list[Callable[[], None]] = []
        self._health, self._reason = Health.OPEN, ""
        self._until: int | None = None
        self._backoff = 0.0
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
        return self.config.max_connections - (len(self._slots) - len(self._idle))

    def start(self, outgoing: Outgoing, done: Callable[[Report], None]) -> None:
        """See port."""
        if self._idle:
            slot = self._idle.pop()
        else:
            slot = Slot(self)
            self._slots.append(slot)
        slot.start(outgoing, lambda report: self._note(report, done))

    def _note(self, report: Report, done: Callable[[Report], None]) -> None:
        for result in report.results:
            if result.reply is not None:
                self._last_reply = str(result.reply)
                self._sent += result.phase is Phase.DOT and result.reply.positive
            elif result.failure is not None:
                self._last_error = f"{result.phase}: {result.failure}: {result.detail}"
        done(report)

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

    def finished(self, slot: Slot) -> None:
        """A slot is free."""
        self._idle.append(slot)
        self._tell()

    def _tell(self) -> None:
        for callback in self._capacity:
            callback()

    # --- health --------------------------------------------------------------------------------------------------

    def pause_for(self, seconds: float, reason: str, *, broken: bool = False) -> None:
        """See port. While broken already, a further report of the same trouble changes nothing."""
        if self._health is Health.PAUSED or (self._health is Health.BROKEN and not broken):
            return
        if self._health is Health.BROKEN and self._timer is not None:
            return
        self._health = Health.BROKEN if broken else Health.WAITING
        self._reason = reason
        self._backoff = max(self._backoff, seconds)
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self._until = self._clock.now() + int(seconds * 1000)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.create_task(self._go_on_after(seconds))

    async def _go_on_after(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._health is not Health.BROKEN or await self._probe():
                break
            self._backoff = min(max(self._backoff, 1.0) * 2, _PROBE_AFTER_MAX)
            seconds = self._backoff * (0.5 + self._clock.jitter() / 2)
            self._until = self._clock.now() + int(seconds * 1000)
        self._timer = None
        self._open()

    async def _probe(self) -> bool:
        """One connection, authenticated and ended; no mail."""
        try:
            session = await self.connect()
        except SessionFailure as failure:
            self._last_error = self._reason = str(failure)
            log.warning(Log.ALERT_RELAY, relay=self.name, detail=str(failure))
            return False
        await session.quit()
        self._backoff = 0.0
        return True

    def _open(self) -> None:
        self._health, self._reason, self._until = Health.OPEN, "", None
        self._tell()

    def hold(self, reason: str) -> None:
        """See port."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._health, self._reason, self._until = Health.PAUSED, reason, None

    def resume(self) -> None:
        """See port."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._backoff = 0.0
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
        if self._timer is not None:
            self._timer.cancel()
        idle = asyncio.Event()
        self.on_capacity(lambda: idle.set() if len(self._idle) == len(self._slots) else None)
        if len(self._idle) < len(self._slots):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await idle.wait()
        await asyncio.gather(*(slot.stop() for slot in self._slots))
