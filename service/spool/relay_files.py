"""Relays are configured anew while the service runs: when their files change, and on SIGHUP.

What is bad is refused as a whole, logged with its sentence and shown by a metric; the relays stay as they were. What is
good is taken by the router, which lets what is in flight finish. Mail that waits stays where it is: its route says by which
relays it may go, whatever they are now.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import asdict

from service.clock import Clock
from service.errors import PostroomError
from service.relay import reload_relays
from service.relay.router import Reloaded, Router
from service.relay.watch import Watch
from service.settings import Settings
from service.telemetry import Log, Metrics, get_logger

log = get_logger()


class RelayFiles:
    """Keeps a router up to date. extra_url: of the relay that captures all mail."""

    def __init__(
        self, settings: Settings, clock: Clock, router: Router, metrics: Metrics, extra_url: str | None = None
    ) -> None:
        self._settings, self._router, self._metrics, self._extra_url = settings, router, metrics, extra_url
        self._watch = Watch(settings, clock)
        self._one_at_a_time = asyncio.Lock()
        self._refused = asyncio.Event()
        router.on_refused_secret(self._refused.set)
        metrics.relays_current.set(1)
        self._count_from_zero(router.names())

    async def run(self) -> None:
        """Look for changes, for ever; never when POSTROOM_RELAYS_REFRESH is 0. It begins when the ledger is known.

        A secret that was refused may have been renewed during its login, so then it looks at once.
        """
        self._try_renewed()
        while self._settings.relays_refresh > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.relays_refresh):
                    await self._refused.wait()
            self._refused.clear()
            if await asyncio.to_thread(self._watch.look):
                await self.reload(asked=False)
            else:
                self._try_renewed()

    def _try_renewed(self) -> None:
        if renewed := self._router.tokens_renewed():
            self._tell(Reloaded(renewed=renewed))

    async def reload(self, *, asked: bool = True) -> None:
        """Read the configuration and take it. asked: told in the log even when it is what it was."""
        async with self._one_at_a_time:
            try:
                reloaded = await reload_relays(self._router, self._settings, self._extra_url)
            except PostroomError as error:
                self._refuse(error.detail)
            except Exception as error:  # whatever a file holds, the relays that there are go on
                self._refuse(f"{type(error).__name__} while it was read")
            else:
                self._took(reloaded, asked)

    def _refuse(self, sentence: str) -> None:
        log.error(Log.RELAYS_REFUSED, detail=sentence)
        self._metrics.relays_reloads.labels("refused").inc()
        self._metrics.relays_current.set(0)

    def _took(self, reloaded: Reloaded, asked: bool) -> None:
        self._metrics.relays_reloads.labels("changed" if reloaded.anything else "unchanged").inc()
        self._metrics.relays_current.set(1)
        for name in reloaded.removed:
            self._metrics.forget_relay(name)
        self._count_from_zero((*reloaded.added, *reloaded.changed))
        if asked or reloaded.anything:
            self._tell(reloaded)

    def _count_from_zero(self, relays: Iterable[str]) -> None:
        if self._settings.role != "api":  # which gets no replies
            for name in relays:
                self._metrics.know_relay(name, self._router.get(name).policy.refusals())

    def _tell(self, reloaded: Reloaded) -> None:
        log.info(Log.RELAYS_RELOADED, relays=self._router.names(), **asdict(reloaded))
