"""Submissions in, one durable commit, answers out.

Submitting is: has this key been answered? prepare every message; take from the limiters and store all of it in one
transaction; only then is there an answer. Idempotency and limits are decided inside that transaction, so they hold
over processes and kills; what this file adds is only that a twin in flight waits for the first instead of working
twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from service import failpoints
from service.clock import Clock
from service.durations import Rate, parse_rate
from service.errors import (
    ConcurrentIdempotentRequests,
    FieldProblem,
    InternalError,
    InvalidIdempotentRequest,
    PayloadTooLarge,
    PostroomError,
    QueueFull,
    RateLimitExceeded,
    ShuttingDown,
    StorageUnavailable,
    ValidationFailed,
)
from service.mail.address import email_key
from service.mail.lifecycle import State
from service.mail.render import Rendered, Template
from service.settings import Settings
from service.spool.health import Readiness
from service.spool.prepare import Preparer, check_variables
from service.spool.signals import Signals
from service.spool.suppressing import Suppressions
from service.spool.values import Answer, Caller, ItemResult, Prepared, Preview, Submission
from service.store.port import Store
from service.store.values import (
    Accept,
    Accepted,
    AcceptResult,
    IdempotencyKey,
    ItemKey,
    KeyMismatch,
    Limited,
    Replayed,
    Take,
)
from service.telemetry import Metrics
from service.tracing import OFF, Tracing

_MOST_TOLD = 500  # faults of a batch
_ASKED_AT_ONCE = 25  # messages of a batch for which the suppression list is asked together
_HELD_UP = 0.001  # seconds for which a batch may keep the loop from others
RETRY_SOON = 1.0  # seconds, in Retry-After of a 409 or 503: the least that it can say, so no setting


class Submitter:
    """The use case behind POST /send and POST /send/batch."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: Store,
        preparer: Preparer,
        readiness: Readiness,
        signals: Signals,
        metrics: Metrics,
        tracing: Tracing = OFF,
    ) -> None:
        self._settings, self._clock, self._store, self._tracing = settings, clock, store, tracing
        self._preparer, self._readiness, self._signals, self._metrics = preparer, readiness, signals, metrics
        self._in_flight: dict[tuple[str, str], asyncio.Event] = {}
        self._storing = 0  # submissions whose commit is waited for
        off = settings.recipient_limit.strip().lower() in {"off", "none", ""}
        self._recipient_rate: Rate | None = None if off else parse_rate(settings.recipient_limit)

    async def preview(self, submission: Submission, caller: Caller) -> Preview:
        """A dry run: everything but the store."""
        return await self._preparer.preview(submission, caller)

    def render(self, template: Template, variables: Mapping[str, Any], locale: str | None) -> Rendered:
        """Check the variables and render, for a preview. Raises TemplateVariablesInvalid, TemplateRenderError."""
        check_variables(template, variables, "/variables")
        return self._preparer.render(template, variables, locale)

    async def submit(
        self,
        make: Callable[[], Submission],
        caller: Caller,
        key: IdempotencyKey | None,
        shape: Callable[[Prepared], bytes],
    ) -> Answer:
        """One message. `make` may raise its faults; a repeat is answered though it has some by now, such as its time.

        Raises RequestError (nothing was stored) or ServiceError (no 202 may be given).
        """

        async def work() -> Answer:
            prepared = await self._preparer.prepare(make(), caller)
            return await self._store_all([prepared], shape(prepared), caller, key)

        return await self._once(caller.account, key, work)

    async def submit_batch(
        self,
        items: Sequence[Submission | PostroomError],
        caller: Caller,
        key: IdempotencyKey | None,
        *,
        partial: bool,
        shape: Callable[[Sequence[ItemResult]], bytes],
        shape_item: Callable[[Prepared], bytes],
    ) -> Answer:
        """Many messages in one transaction: all of them or, when `partial`, those without a fault.

        `shape_item` makes the answer that is kept under an item's own key.

        Raises ValidationFailed with pointers under `/messages/N` when any item has a fault and not `partial`.
        """

        async def work() -> Answer:
            results = await self._prepare_items(items, caller, shape_item)
            if not partial:
                _reject_all(results)
            good = [result.prepared for result in results if result.prepared is not None]
            return await self._store_all(good, shape(results), caller, key)

        return await self._once(caller.account, key, work)

    async def _once(self, account: str, key: IdempotencyKey | None, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run `work` unless the key has an answer; a twin in flight is waited for.

        Few requests are repeats, and storing finds those out: the key is asked for before only where a twin was in
        flight, and after where `work` finds a fault that the request did not have when it was answered.
        """
        self.check_open()
        if key is None:
            return await work()
        slot = (account, key.key)
        if slot in self._in_flight:
            await self._wait_for_twin(slot)
            if (kept := await self._kept(account, key)) is not None:
                return kept
        if slot in self._in_flight:  # another repeat was woken before us
            raise ConcurrentIdempotentRequests(retry_after=RETRY_SOON)
        done = self._in_flight[slot] = asyncio.Event()
        try:
            return await work()
        except StorageUnavailable:
            raise
        except PostroomError:
            if (kept := await self._kept(account, key)) is not None:
                return kept
            raise
        finally:
            del self._in_flight[slot]
            done.set()

    def check_open(self) -> None:
        """Raises ShuttingDown, QueueFull."""
        if not self._readiness.accepting:
            raise ShuttingDown(retry_after=RETRY_SOON)
        if self._readiness.waiting_recipients >= self._settings.max_queued:
            raise QueueFull(retry_after=10)

    async def _wait_for_twin(self, slot: tuple[str, str]) -> None:
        try:
            async with asyncio.timeout(self._settings.idempotency_wait):
                await self._in_flight[slot].wait()
        except TimeoutError:
            raise ConcurrentIdempotentRequests(retry_after=RETRY_SOON) from None

    async def _kept(self, account: str, key: IdempotencyKey) -> Answer | None:
        match await self._store.find_answer(account, key):
            case Replayed(answer):
                self._metrics.replayed.inc()
                return Answer(answer, replayed=True)
            case KeyMismatch():
                raise InvalidIdempotentRequest
            case _:
                return None

    async def _prepare_items(
        self, items: Sequence[Submission | PostroomError], caller: Caller, shape_item: Callable[[Prepared], bytes]
    ) -> list[ItemResult]:
        results: list[ItemResult] = []
        total, pause_at = 0, self._clock.monotonic() + _HELD_UP
        for number, item in enumerate(items):
            if number % _ASKED_AT_ONCE == 0:
                some = [each for each in items[number : number + _ASKED_AT_ONCE] if isinstance(each, Submission)]
                suppressions = await self._preparer.ask_ahead(some, caller)
            result = await self._prepare_item(item, caller, shape_item, suppressions)
            results.append(result)
            if result.prepared is not None:
                total += result.prepared.message.size
            if total > self._settings.max_batch_bytes:
                raise PayloadTooLarge(f"The batch composes to more than {self._settings.max_batch_bytes} octets.")
            if self._clock.monotonic() >= pause_at:
                await self._store.make_way()
                pause_at = self._clock.monotonic() + _HELD_UP
        return results

    async def _prepare_item(
        self,
        item: Submission | PostroomError,
        caller: Caller,
        shape_item: Callable[[Prepared], bytes],
        suppressions: Suppressions,
    ) -> ItemResult:
        if isinstance(item, PostroomError):
            return ItemResult(error=item)
        try:
            if item.idempotency_key is None:
                return ItemResult(prepared=await self._preparer.prepare(item, caller, suppressions))
            own = IdempotencyKey(item.idempotency_key, item.fingerprint)
            if (kept := await self._kept(caller.account, own)) is not None:
                return ItemResult(replayed=kept.body)
            prepared = await self._preparer.prepare(item, caller, suppressions)
            kept_item = ItemKey(own.key, own.fingerprint, shape_item(prepared))
            return ItemResult(prepared=replace(prepared, message=replace(prepared.message, item=kept_item)))
        except PostroomError as error:
            return ItemResult(error=error)

    async def _store_all(
        self, prepared: Sequence[Prepared], answer: bytes, caller: Caller, key: IdempotencyKey | None
    ) -> Answer:
        if not prepared:
            before = await self._kept(caller.account, key) if key is not None else None
            return before or Answer(answer)
        now = self._clock.now()
        trace = self._tracing.traceparent()
        accept = Accept(
            account=caller.account,
            messages=[replace(each.message, traceparent=trace) if trace else each.message for each in prepared],
            now=now,
            answer=answer,
            key=key,
            key_expires_at=self._clock.told() + int(self._settings.idempotency_retention * 1000),
            takes=self._takes(prepared, caller),
        )
        with self._tracing.step("commit", {"postroom.messages": len(prepared)}):
            result = await self._accept(accept)
        failpoints.passed("accept.after_commit")
        match result:
            case Accepted():
                self._hint(prepared)
                return Answer(answer)
            case Replayed(kept):
                self._metrics.replayed.inc()
                return Answer(kept, replayed=True)
            case KeyMismatch():
                raise InvalidIdempotentRequest
            case Limited(take, retry_after):
                raise _limited(take, retry_after)
        raise InternalError

    async def _accept(self, accept: Accept) -> AcceptResult:
        """Where nothing else is being stored, the dispatcher is told before: then its claim shares the commit."""
        if not self._storing:
            for route, priority in {
                (each.route, each.priority) for each in accept.messages if each.due_at <= accept.now
            }:
                self._signals.coming(route, priority, accept.now)
        self._storing += 1
        try:
            return await self._store.accept(accept)
        finally:
            self._storing -= 1

    def _takes(self, prepared: Sequence[Prepared], caller: Caller) -> list[Take]:
        takes: list[Take] = []
        if caller.rate is not None:
            takes.append(Take(f"key:{caller.key_id}", caller.rate, len(prepared)))
        if self._recipient_rate is not None:
            takes += [
                Take(f"to:{caller.account}:{email_key(each.email)}", self._recipient_rate, 1, each.email)
                for one in prepared
                for each in one.message.recipients
                if each.state is State.QUEUED
            ]
        return takes

    def _hint(self, prepared: Sequence[Prepared]) -> None:
        self._metrics.accepted.inc(len(prepared))
        for each in prepared:
            message = each.message
            self._signals.queued(message.route, message.priority, message.due_at, message.id)


def _reject_all(results: Sequence[ItemResult]) -> None:
    faults: list[FieldProblem] = []
    for index, result in enumerate(results):
        if result.error is None:
            continue
        if result.error.status >= 500:
            raise result.error
        problems = result.error.errors or (FieldProblem("#", result.error.code, result.error.detail),)
        faults += [problem.under(f"/messages/{index}") for problem in problems]
    if faults:
        words = "Nothing was accepted: some messages of the batch have faults."
        if len(faults) > _MOST_TOLD:
            words += f" The first {_MOST_TOLD} of {len(faults)} are told."
        raise ValidationFailed(words, errors=faults[:_MOST_TOLD])


def _limited(take: Take, retry_after: float) -> RateLimitExceeded:
    if take.pointer:
        return RateLimitExceeded(
            f"{take.pointer} already gets {take.rate.count} messages in {take.rate.window:g} s"
            " (POSTROOM_RECIPIENT_LIMIT).",
            retry_after=retry_after,
        )
    return RateLimitExceeded(
        f"This key may send {take.rate.count} messages in {take.rate.window:g} s.", retry_after=retry_after
    )
