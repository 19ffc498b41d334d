"""The real dispatcher and the real store with relays that are models: a provider that counts, and an account on it."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.mail.envelope import Offer
from service.mail.outcome import Failure, Phase, Verdict
from service.mail.quota import HIGH, Per, Quota, parse_quota
from service.mail.reply import Reply
from service.mail.seal import SenderRule
from service.relay.policy import policy_for
from service.relay.port import Health, Outgoing, RecipientResult, RelayStatus, Report
from service.settings import load
from service.spool.dispatch import Dispatcher
from service.spool.health import Readiness
from service.spool.signals import Signals
from service.spool.signing import Signing
from service.store import open_store
from service.store.port import Store
from service.store.values import Claimed, NewMessage
from service.telemetry import Metrics
from tests.support.clock import SteppedClock
from tests.support.store_data import accept_of

THANKS = Reply(250, "", "queued")
TOO_MUCH = Reply(451, "4.7.0", "too much mail in a minute")


def quota(text: str, per: Per = Per.RELAY, *, zone: str = "", guard: float = 1.0, headroom: float = 0.1, account: str = "me@r") -> Quota:  # fmt: skip
    """A relay's quota as the relays file would give it."""
    return parse_quota(text, per, zone, guard, headroom, account)


@dataclass
class Provider:
    """Answers 451 to whatever is more than `count` in the `window` seconds that end with it."""

    count: int
    window: float
    seen: list[float] = field(default_factory=list)
    refused: int = 0

    def reply(self, at: float) -> Reply:
        """What it says to a message that reaches it now."""
        if sum(moment > at - self.window for moment in self.seen) >= self.count:
            self.refused += 1
            return TOO_MUCH
        self.seen.append(at)
        return THANKS


class ModelRelay:
    """One account. Its transactions take as long as `takes` says; the provider sees each somewhere within."""

    def __init__(
        self,
        name: str,
        clock: SteppedClock,
        quotas: Sequence[Quota] = (),
        provider: Provider | None = None,
        connections: int = 5,
        takes: Callable[[], float] = lambda: 0.2,
    ) -> None:
        self.name, self.quotas, self.endpoint = name, tuple(quotas), f"{name}:25"
        self.rule, self.policy = SenderRule(name), policy_for("")
        self.provider = provider or Provider(2**31, 1)
        self.max_size = self.max_recipients = None
        self.offer: Offer | None = None
        self.started: list[tuple[int, int]] = []  # when (ms), and of what priority
        self.pausing = False
        self._clock, self._connections, self._takes = clock, connections, takes
        self._busy = 0
        self._waiting: list[tuple[Outgoing, Callable[[Report], None]]] = []
        self._in_flight: dict[int, tuple[Outgoing, Callable[[Report], None], tuple[asyncio.TimerHandle, ...]]] = {}
        self._told: list[Callable[[], None]] = []
        self._random = random.Random(name)

    def free(self, now: int) -> int:
        return 0 if self.pausing else max(self._connections - self._busy, 0)

    def ahead(self, now: int) -> int:
        return 0 if self.pausing else max(self._busy - len(self._waiting), 0)

    def spare(self, now: int) -> bool:
        urgent = any(outgoing.priority == HIGH for outgoing, _ in self._waiting)
        return self._busy > 0 and not self.pausing and not urgent

    def start(self, outgoing: Outgoing, done: Callable[[Report], None]) -> None:
        if self._busy >= self._connections:
            self._waiting.append((outgoing, done))
            self._waiting.sort(key=lambda each: each[0].priority)
            return
        self._busy += 1
        took = self._takes()
        loop = asyncio.get_running_loop()
        seen = loop.create_future()
        arrives = loop.call_later(took * self._random.random(), lambda: seen.set_result(self._arrive(outgoing)))
        ends = loop.call_later(took, lambda: self._end(outgoing, seen.result(), done))
        self._in_flight[outgoing.key] = (outgoing, done, (arrives, ends))

    def _arrive(self, outgoing: Outgoing) -> Reply:
        self.started.append((self._clock.now(), outgoing.priority))
        return self.provider.reply(self._clock.monotonic())

    def _end(self, outgoing: Outgoing, reply: Reply, done: Callable[[Report], None]) -> None:
        self._busy -= 1
        del self._in_flight[outgoing.key]
        done(Report([RecipientResult(Phase.DOT, reply) for _ in outgoing.envelope.forward_paths], True, True))
        if self._waiting:
            self.start(*self._waiting.pop(0))
        for callback in self._told:
            callback()

    def give_back_waiting(self) -> None:
        """What waits for a connection is given back without MAIL FROM."""
        waiting, self._waiting = self._waiting, []
        for outgoing, done in waiting:
            results = [
                RecipientResult(Phase.CONNECT, failure=Failure.SHUTDOWN) for _ in outgoing.envelope.forward_paths
            ]
            done(Report(results, False, False))

    def close(self) -> None:
        """As a pool does without grace: what waits is given back, what is in flight is cut off, and all of it is told."""
        self.pausing = True
        self.give_back_waiting()
        in_flight, self._in_flight = self._in_flight, {}
        for outgoing, done, timers in in_flight.values():
            for timer in timers:
                timer.cancel()
            cut_off = RecipientResult(Phase.DATA, failure=Failure.SHUTDOWN)
            done(Report([cut_off for _ in outgoing.envelope.forward_paths], True, False))

    def on_capacity(self, callback: Callable[[], None]) -> None:
        self._told.append(callback)

    def blame(self, verdict: Verdict, report: Report, reason: str) -> int | None:
        return None

    def judged(
        self, message: str, verdicts: Sequence[Verdict], report: Report, recipients: Sequence[str] = ()
    ) -> Sequence[Verdict]:
        return verdicts  # it learns nothing

    def alert(self, kind: str, detail: str) -> None:
        """Nobody watches it."""

    def told(self, offer: Offer) -> None:
        self.offer = offer

    def status(self, now: int) -> RelayStatus:
        health = Health.PAUSED if self.pausing else Health.OPEN
        return RelayStatus(self.name, self.name, 25, "none", "", health, "", None, 0, 5, self._busy, 0, "", "")


class ModelRelays:
    """All may carry everything, in the order given, or turn by turn."""

    def __init__(self, *relays: ModelRelay, turns: bool = False) -> None:
        self._relays, self._turns, self._turn = {relay.name: relay for relay in relays}, turns, 0

    def names(self) -> tuple[str, ...]:
        return tuple(self._relays)

    def get(self, name: str) -> ModelRelay:
        return self._relays[name]

    def candidates(self, sender: str, pinned: str | None, needs: Sequence[str] = ()) -> tuple[ModelRelay, ...]:
        relays = tuple(self._relays.values())
        self._turn += self._turns
        first = self._turn % len(relays)
        return (*relays[first:], *relays[:first])

    def close(self) -> None:
        for relay in self._relays.values():
            relay.close()

    def preferred(self, names: Sequence[str], now: int) -> Sequence[str]:
        return names

    def sender_decides(self) -> bool:
        return False

    def on_capacity(self, callback: Callable[[], None]) -> None:
        for relay in self._relays.values():
            relay.on_capacity(callback)


@dataclass
class Sending:
    """A dispatcher at work."""

    store: Store
    signals: Signals
    dispatcher: Dispatcher
    clock: SteppedClock
    claims: Counter[str] = field(default_factory=Counter)  # how often each relay was asked for

    async def accept(self, *messages: NewMessage) -> None:
        """Queue them now."""
        for start in range(0, len(messages), 500):
            batch = messages[start : start + 500]
            await self.store.accept(accept_of(*batch))
            for each in batch:
                self.signals.queued(each.route, each.priority, self.clock.now())


@contextlib.asynccontextmanager
async def sending(folder: Path, clock: SteppedClock, relays: ModelRelays) -> AsyncIterator[Sending]:
    """The dispatcher over a store in `folder`."""
    store = open_store(f"sqlite:///{folder}/post.db", clock, holder="me")
    await store.open()
    signals, settings = Signals(), load()
    given: Any = relays
    dispatcher = Dispatcher(
        settings, clock, store, given, signals, Readiness(store, "all"), Metrics(), Signing(None), "me"
    )
    made = Sending(store, signals, dispatcher, clock)
    _count_claims(made)
    loops = [asyncio.create_task(work) for work in (dispatcher.run(), dispatcher.heartbeat())]
    try:
        yield made
    finally:
        # in the order of a service that stops: nothing is told to a dispatcher that is gone
        dispatcher.stop_claiming()
        relays.close()
        await dispatcher.settle_all()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await store.close()


def _count_claims(made: Sending) -> None:
    claim = made.store.claim

    async def counting(wants: Any, *rest: Any) -> Claimed:
        def told() -> Any:
            asked = wants()
            made.claims.update(want.relay for want in asked)
            return asked

        return await claim(told, *rest)

    made.store.claim = counting  # type: ignore[method-assign]


async def until(clock: SteppedClock, done: Callable[[], bool], *, at_most: float) -> float:
    """Seconds of the clock until `done`; looks every tenth of one."""
    began = clock.monotonic()
    while not done():
        assert clock.monotonic() - began < at_most, "it takes too long"
        await asyncio.sleep(0.1)
    return clock.monotonic() - began
