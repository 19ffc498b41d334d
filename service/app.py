"""The composition root: settings, store, relays and loops become one running service.

`Service.start` builds from the bottom up and `Service.stop` takes down in the order that loses nothing: stop accepting,
stop claiming, let transactions in flight finish, commit their results, close. HTTP and signals in
front of it are serving's.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from service import api
from service.api.context import Context
from service.api.turns import Turns
from service.capture.inbox import inbox_app
from service.capture.mailbox import Mailbox
from service.capture.relay import CaptureRelay
from service.clock import SYSTEM, Clock, rfc3339
from service.errors import ConfigurationError, PostroomError
from service.relay import open_relays
from service.relay.router import Router
from service.settings import Settings, standard_otel_endpoint
from service.settings import unknown as unknown_settings
from service.spool.dispatch import Dispatcher
from service.spool.health import Readiness
from service.spool.hindered import Hindered
from service.spool.janitor import Janitor
from service.spool.keys import Keys
from service.spool.ledger import StoreLedger
from service.spool.messages import Messages
from service.spool.prepare import Preparer
from service.spool.relay_files import RelayFiles
from service.spool.relays import RelayWatch
from service.spool.signals import Signals
from service.spool.signing import Signing
from service.spool.submit import Submitter
from service.spool.templates import TemplateLibrary
from service.steady import SteadyClock
from service.store import SQLITE, bounds_of, open_store
from service.store.port import Store
from service.telemetry import Log, Metrics, get_logger
from service.tracing import OFF, Tracing, open_tracing

log = get_logger()

_LAST_SPANS = 3.0  # seconds in which a collector may take what is left when the process ends
_HERE = Path(__file__).parent
_STARTER_TEMPLATES = (_HERE.parent / "templates", _HERE / "starter_templates")  # a checkout, or an installed package


def templates_directory(settings: Settings) -> Path:
    """Where templates are read from: the setting, else `templates/` here if it holds any, else the starter set.

    Raises ConfigurationError.
    """
    if settings.templates_dir is not None:
        if not settings.templates_dir.is_dir():
            raise ConfigurationError(f"POSTROOM_TEMPLATES_DIR: {settings.templates_dir} is no directory")
        return settings.templates_dir
    here = Path("templates")
    if next(here.glob("*/template.toml"), None) is not None:
        return here
    return next((path for path in _STARTER_TEMPLATES if path.is_dir()), _STARTER_TEMPLATES[-1])


@dataclass(slots=True)
class Capture:
    """The development relay and the mailbox it fills."""

    relay: CaptureRelay
    mailbox: Mailbox


class Service:
    """Everything that runs in one process, without the HTTP server around it."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: Store,
        relays: Router,
        templates: TemplateLibrary,
        signing: Signing,
        capture: Capture | None,
        holder: str,
        ledger: StoreLedger,
        metrics: Metrics,
        tracing: Tracing = OFF,
    ) -> None:
        self.tracing = tracing
        metrics.storage_healthy.set_function(store.healthy)
        self.settings, self.clock, self.store, self.relays = settings, clock, store, relays
        self.templates, self.signing, self.capture = templates, signing, capture
        self.ledger, self.metrics = ledger, metrics
        self.watch = RelayWatch(clock, store, relays, holder, metrics)
        self.signals = Signals()
        self.batches = Turns(_batches_at_once(settings), settings.batch_wait)
        self.readiness = Readiness(store, settings.role)
        self.readiness.held = settings.hold
        hindered = Hindered(clock)
        preparer = Preparer(settings, clock, store, templates, relays, signing, tracing)
        self.readiness.guard = preparer.guard.active
        self.keys = Keys(clock, store)
        self.messages = Messages(settings, clock, store, relays, self.signals)
        self.submitter = Submitter(
            settings, clock, store, preparer, self.readiness, self.signals, self.metrics, tracing
        )
        self.dispatcher = (
            Dispatcher(
                settings,
                clock,
                store,
                relays,
                self.signals,
                self.readiness,
                self.metrics,
                signing,
                holder,
                tracing,
                hindered,
            )
            if settings.role != "api"
            else None
        )
        wake = self.dispatcher.wake if self.dispatcher else _nothing
        self._janitor = Janitor(
            settings, clock, store, relays, self.readiness, self.metrics, wake, self.watch, holder, hindered
        )
        self._relay_files = RelayFiles(settings, clock, relays, self.metrics, capture.relay.url if capture else None)
        self.failed = False  # a loop has ended that never should
        self.on_failure: Callable[[], None] = lambda: None
        self._stop_by: float | None = None  # by the monotonic clock, once it is stopping
        self._loops: list[asyncio.Task[None]] = []
        self._reloads: set[asyncio.Future[None]] = set()

    @classmethod
    async def start(
        cls, settings: Settings, *, capture: bool = False, clock: Clock = SYSTEM, tracing: Tracing | None = None
    ) -> Self:
        """Open the store, load templates and relays, start the loops.

        Raises ConfigurationError with a sentence that names what to set, StorageUnavailable.
        """
        tracing = _start_tracing(settings) if tracing is None else tracing
        if clock is SYSTEM:
            clock = SteadyClock(SYSTEM, settings.clock_jump, settings.clock_patience)
        captured = await _start_capture(clock) if capture else None
        holder = clock.new_id(f"{socket.gethostname()}-{os.getpid()}-")
        metrics = Metrics()
        bounds = replace(bounds_of(settings), wait=settings.database_wait)  # which commands do without
        store = open_store(settings.database_url, clock, holder=holder, bounds=bounds, metrics=metrics)
        ledger = StoreLedger(store, holder, metrics)
        relays = open_relays(settings, clock, captured.relay.url if captured else None, ledger)
        templates = TemplateLibrary.load(
            templates_directory(settings),
            store,
            clock,
            watch=settings.templates_watch,
            published_for=settings.templates_refresh,
            kept=settings.templates_kept,
        )
        signing = Signing(settings.dkim_file)
        await store.open()
        clock.begin(await store.newest_moment(), await store.last_ping())
        await templates.number()
        service = cls(settings, clock, store, relays, templates, signing, captured, holder, ledger, metrics, tracing)
        await service._hold_a_copy()
        for name, meant in unknown_settings().items():
            log.warning(Log.UNKNOWN_SETTING, name=name, did_you_mean=meant)
        service._warn_of_gaps()
        await service._bootstrap()
        await service._janitor.exchange_offers()
        await ledger.refresh()  # what broke or was paused before stays so
        service._start_loops()
        keys = [key.label for key in signing.ring.keys]
        log.info(Log.STARTED, role=settings.role, relays=relays.names(), guard=service.readiness.guard, dkim=keys)
        return service

    async def _hold_a_copy(self) -> None:
        """What waits in a restored backup was perhaps sent since it was taken: its owner looks first."""
        if (at := await self.store.copied_at()) is not None:
            self.readiness.held = True
            log.warning(Log.STORE_IS_A_COPY, taken_at=rfc3339(at), remedy="`postroom queue`, `postroom queue release`")

    def _warn_of_gaps(self) -> None:
        """Domains that are meant to be signed and, from some moment on, are not."""
        for domain, at in self.signing.ring.gaps(self.clock.now()):
            log.warning(Log.DKIM_GAP, domain=domain, unsigned_from=rfc3339(at))

    async def _bootstrap(self) -> None:
        file = self.settings.bootstrap_key_file
        if file is not None and await self.keys.bootstrap(_read_secret("POSTROOM_BOOTSTRAP_KEY_FILE", file)):
            log.info(Log.BOOTSTRAP_KEY, file=str(file))
        if self.settings.auth == "keys" and not await self.keys.list(None):
            remedy = "nobody can use the API: `postroom keys create NAME`, or POSTROOM_BOOTSTRAP_KEY_FILE"
            log.warning(Log.NO_KEYS, remedy=remedy)

    def _start_loops(self) -> None:
        loops = [self._janitor.run(), self._relay_files.run(), self.ledger.run()]
        if self.dispatcher is not None:
            self.store.on_hint(self.dispatcher.wake)
            loops += [self.dispatcher.run(), self.dispatcher.heartbeat()]
        for loop in loops:
            task = asyncio.create_task(loop)
            task.add_done_callback(self._loop_ended)
            self._loops.append(task)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """A loop that ends by an error would leave mail lying: say so and end, so that we are restarted."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical(Log.LOOP_FAILED, exc_info=error)
            self.failed = True
            self.on_failure()
            self.readiness.draining = True

    def http(self) -> ASGIApp:
        """The HTTP application of this process."""
        context = Context(
            settings=self.settings,
            clock=self.clock,
            store=self.store,
            submitter=self.submitter,
            messages=self.messages,
            keys=self.keys,
            templates=self.templates,
            relays=self.relays,
            readiness=self.readiness,
            metrics=self.metrics,
            watch=self.watch,
            batches=self.batches,
            tracing=self.tracing,
        )
        app = api.build_app(context)
        if self.capture is not None:
            app.mount("/inbox", inbox_app(self.capture.mailbox))
            app.add_route("/inbox", _to_inbox)
        return api.around(app, context)

    def reload(self) -> None:
        """Read templates, DKIM keys and relays again, in the background. What is bad is refused and logged; its old
        form stays.
        """
        task = asyncio.ensure_future(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        await self._relay_files.reload()
        try:
            await asyncio.to_thread(self.signing.reload)
            log.info(Log.DKIM_RELOADED, keys=[key.label for key in self.signing.ring.keys])
            self._warn_of_gaps()
        except PostroomError as error:
            log.error(Log.DKIM_REFUSED, detail=error.detail)
        try:
            await self.templates.reload()
        except (PostroomError, OSError) as error:
            log.error(Log.TEMPLATES_REFUSED, detail=str(error))

    def stop_claiming(self) -> None:
        """Claim nothing from here on. The grace runs from now, for requests and transactions at the same time."""
        if self._stop_by is None:
            self._stop_by = self.clock.monotonic() + self.settings.drain_grace
        self.signals.stop()
        self.batches.stop()
        if self.dispatcher is not None:
            self.dispatcher.stop_claiming()

    def _grace_left(self) -> float:
        """Seconds. A second is always left, for the last commits."""
        return max((self._stop_by or 0.0) - self.clock.monotonic(), 1.0)

    async def stop(self) -> None:
        """Finish what is in flight within the grace, give leases back, close."""
        self.readiness.draining = True
        self.readiness.accepting = False
        log.info(Log.STOPPING)
        self.stop_claiming()
        await self.relays.close(self._grace_left())
        if self.dispatcher is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace_left()):
                    await self.dispatcher.settle_all()
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.ledger.close(self._grace_left())
        await self.store.close()
        if self.capture is not None:
            await self.capture.relay.stop()
        await _close_tracing(self.tracing)
        log.info(Log.STOPPED)


def _batches_at_once(settings: Settings) -> int | None:
    """Two batches keep the file from the sender's process for longer than one after the other does, and gain nothing."""
    if settings.batches_at_once is None and settings.role == "api" and settings.database_url.startswith(SQLITE):
        return 1
    return settings.batches_at_once


def _start_tracing(settings: Settings) -> Tracing:
    """OFF unless there is an endpoint. Raises ConfigurationError."""
    endpoint = settings.otel_endpoint or standard_otel_endpoint()
    if endpoint is None:
        return OFF
    try:
        tracing = open_tracing(endpoint, role=settings.role)
    except ImportError:
        remedy = "install postroom[otel]: OpenTelemetry is not here"
        if settings.otel_endpoint:
            raise ConfigurationError(f"POSTROOM_OTEL_ENDPOINT: {remedy}") from None
        log.warning(Log.TRACING_MISSING, remedy=f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {remedy}")
        return OFF
    log.info(Log.TRACING, endpoint=endpoint)
    return tracing


async def _close_tracing(tracing: Tracing) -> None:
    """Hand over the last spans, in a thread that holds up no exit."""
    if tracing.on:
        closing = threading.Thread(target=tracing.close, args=(_LAST_SPANS,), daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _LAST_SPANS)


async def _to_inbox(request: Request) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/inbox/")


def _nothing() -> None:
    """An api process has no dispatcher to wake."""


async def _start_capture(clock: Clock) -> Capture:
    mailbox = Mailbox()
    relay = CaptureRelay(mailbox, clock)
    await relay.start()
    return Capture(relay, mailbox)


def _read_secret(name: str, file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"{name}: {file}: {error.strerror}") from None
