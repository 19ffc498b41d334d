"""The store against a model of a page: whatever is done in whatever order, states, fences, keys and counts agree.

Hypothesis draws the operations. The model is a dict of recipients and a few rules; it knows nothing of SQL, groups or
indexes. Reopening the store is one of the operations, so all that counts must have been on the disk.
"""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from service.errors import ContentPurged
from service.mail.lifecycle import OPEN, PENDING, Event, State, apply, sources
from service.store import open_store
from service.store.port import Store
from service.store.shown import MessageFilter, Suppression
from service.store.values import Accepted, Delivery, IdempotencyKey, KeyMismatch, Replayed, RescuePolicy, Want
from tests.conformance.store.conftest import URLS, done_with
from tests.support.clock import EPOCH, SteppedClock
from tests.support.store_data import accept_of, new_message, settlement_of

T = TypeVar("T")
POLICY = RescuePolicy(in_doubt_delay=100, max_in_doubt=1, max_kills=4)
LEASE = 60.0  # seconds
ROUTES = ("acme|a|", "acme|b|")
ADDRESSES = ("ada@example.org", "bob@example.org", "cy@example.net")
RESULTS = (Event.ACCEPTED, Event.REFUSED, Event.DEFER, Event.NOT_STARTED, Event.FAULT, Event.IN_DOUBT, Event.PARK)


@dataclass
class Recipient:
    """What the model knows of one recipient."""

    number: int
    n: int
    email: str
    route: str
    priority: int
    expires_at: int
    state: State
    due_at: int | None
    attempts: int = 0
    in_doubt: int = 0
    attempt: int | None = None


@dataclass
class Attempt:
    """A lease, and until when it holds."""

    delivery: Delivery
    lease_until: int


class StoreModel(RuleBasedStateMachine):
    """One account, two routes, a handful of addresses."""

    url_of: Any = None
    deliveries = Bundle("deliveries")

    @initialize()
    def open_empty(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.url = self.url_of(Path(self.folder))
        self.runner = asyncio.Runner()
        self.now = EPOCH
        self.opened = 0
        self.reopen()
        self.recipients: list[Recipient] = []
        self.keys: dict[str, bytes] = {}
        self.open_attempts: dict[int, Attempt] = {}
        self.suppressed: set[str] = set()
        self.erased: set[int] = set()
        self.kills: Counter[int] = Counter()
        self.last_attempt = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.store.close())
            self.runner.close()
            done_with(self.url)
            shutil.rmtree(self.folder)

    def of(self, number: int) -> list[Recipient]:
        return [each for each in self.recipients if each.number == number]

    def numbers(self) -> list[int]:
        return sorted({each.number for each in self.recipients})

    def move(self, each: Recipient, event: Event, due_at: int | None = None) -> None:
        each.state = apply(each.state, event)
        each.due_at = due_at if each.state in PENDING else None

    # --- operations ----------------------------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        """Close and open again, as a restart after a clean stop. The holder's name stays, and so do its leases."""
        if self.opened:
            self.run(self.store.close())
        self.opened += 1
        self.store: Store = open_store(self.url, SteppedClock(), holder="me")
        self.run(self.store.open())

    @rule(seconds=st.sampled_from([1, 30, 61, 150, 2000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1000

    @rule(
        to=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3, unique=True),
        route=st.sampled_from(ROUTES),
        priority=st.integers(0, 2),
        delay=st.sampled_from([0, 0, 0, 50]),
        ttl=st.sampled_from([40, 400, 4000]),
        key=st.one_of(st.none(), st.sampled_from(["k1", "k2", "k3"])),
        print_=st.sampled_from([b"one", b"two"]),
    )
    def accept(
        self, to: list[str], route: str, priority: int, delay: int, ttl: int, key: str | None, print_: bytes
    ) -> None:
        number = (self.numbers() or [0])[-1] + 1
        due_at, expires_at = self.now + delay * 1000, self.now + (delay + ttl) * 1000
        message = new_message(
            number, tuple(to), route=route, priority=priority, created_at=self.now, due_at=due_at, expires_at=expires_at
        )
        answer = self.run(self.store.accept(accept_of(message, key=key, print_=print_)))
        if key in self.keys:
            assert answer == (Replayed(b"answer " + key.encode()) if self.keys[key] == print_ else KeyMismatch())
            return
        assert answer == Accepted()
        if key is not None:
            self.keys[key] = print_
        for n, email in enumerate(to):
            self.recipients.append(
                Recipient(number, n, email, route, priority, expires_at, State.QUEUED, due_at)
            )  # fmt: skip

    @rule(
        target=deliveries,
        limits=st.lists(st.tuples(st.sampled_from(ROUTES), st.integers(1, 3)), min_size=1, max_size=2),
    )
    def claim(self, limits: list[tuple[str, int]]) -> Any:
        wants = [Want(route, "r", limit) for route, limit in limits]
        expected = self.expect_claim(wants)
        got = self.run(self.store.claim(lambda: wants, "me", lambda: self.now, LEASE)).deliveries
        assert [(each.id, [r.n for r in each.recipients]) for each in got] == [
            (new_message(number).id, [each.n for each in due]) for number, due in expected
        ]
        for delivery, (_, due) in zip(got, expected, strict=True):
            assert delivery.attempt > self.last_attempt, "a fence only grows"
            self.last_attempt = delivery.attempt
            assert [(r.attempts, r.in_doubt) for r in delivery.recipients] == [(r.attempts, r.in_doubt) for r in due]
            self.open_attempts[delivery.attempt] = Attempt(delivery, self.now + int(LEASE * 1000))
            for each in due:
                self.move(each, Event.CLAIM)
                each.attempt = delivery.attempt
        return multiple(*got)

    def expect_claim(self, wants: list[Want]) -> list[tuple[int, list[Recipient]]]:
        found: list[tuple[int, list[Recipient]]] = []
        left = [want.limit for want in wants]
        taken: set[int] = set()
        for priority in range(3):
            for index, want in enumerate(wants):
                lane = [
                    each
                    for each in self.recipients
                    if each.due_at is not None
                    and each.due_at <= self.now
                    and (each.route, each.priority) == (want.route, priority)
                ]
                lane.sort(key=lambda each: (each.due_at, each.number, each.n))
                for number in dict.fromkeys(each.number for each in lane):
                    if left[index] == 0:
                        break
                    if number in taken:
                        continue
                    due = self.sendable(number)
                    if due:
                        taken.add(number)
                        found.append((number, due))
                        left[index] -= 1
        return found

    def sendable(self, number: int) -> list[Recipient]:
        due: list[Recipient] = []
        for each in self.of(number):
            if each.due_at is None or each.due_at > self.now:
                continue
            if each.expires_at <= self.now:
                self.move(each, Event.EXPIRE)
            elif each.email in self.suppressed:
                self.move(each, Event.SUPPRESS)
            else:
                due.append(each)
        return due

    @rule(delivery=consumes(deliveries), event=st.sampled_from(RESULTS), suppress=st.booleans(), twice=st.booleans())
    def settle(self, delivery: Delivery, event: Event, suppress: bool, twice: bool) -> None:
        waits = event in (Event.DEFER, Event.NOT_STARTED, Event.IN_DOUBT)
        due_at = self.now + 20_000 if waits else None
        reason = "bad_address" if suppress and event is Event.REFUSED else None
        settlement = settlement_of(delivery, event, at=self.now, due_at=due_at, suppress=reason)
        held = [each for each in self.recipients if each.attempt == delivery.attempt and each.state is State.SENDING]
        assert self.run(self.store.settle(settlement)) == len(held)
        if held:
            assert self.open_attempts.pop(delivery.attempt)
        for each in held:
            self.move(each, event, due_at)
            each.attempts += event is not Event.NOT_STARTED
            each.in_doubt += event in (Event.IN_DOUBT, Event.PARK)
            if reason:
                self.suppressed.add(each.email)
        if twice:
            assert self.run(self.store.settle(settlement)) == 0, "an attempt is closed once"

    @rule()
    def heartbeat(self) -> None:
        assert self.run(self.store.heartbeat("me", self.now, LEASE)) == len(self.open_attempts)
        for attempt in self.open_attempts.values():
            attempt.lease_until = self.now + int(LEASE * 1000)

    @rule()
    def rescue(self) -> None:
        over = [number for number, attempt in self.open_attempts.items() if attempt.lease_until < self.now]
        assert self.run(self.store.rescue(self.now, POLICY)) == len(over)
        for fence in over:
            del self.open_attempts[fence]
            held = [each for each in self.recipients if each.attempt == fence and each.state is State.SENDING]
            self.kills[held[0].number] += 1
            for each in held:
                if self.kills[each.number] >= POLICY.max_kills:
                    self.move(each, Event.FAULT)
                elif each.in_doubt >= POLICY.max_in_doubt:
                    self.move(each, Event.PARK)
                else:
                    due_at = min(self.now + int(POLICY.in_doubt_delay * 1000), each.expires_at)
                    self.move(each, Event.IN_DOUBT, due_at)
                each.attempts += 1
                each.in_doubt += 1

    @rule(limit=st.integers(1, 4))
    def expire(self, limit: int) -> None:
        over = [each for each in self.recipients if each.due_at is not None and each.expires_at <= self.now]
        over.sort(key=lambda each: (each.expires_at, each.number, each.n))
        assert self.run(self.store.expire(self.now, limit)) == len(over[:limit])
        for each in over[:limit]:
            self.move(each, Event.EXPIRE)

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if numbers := self.numbers():
            number = numbers[pick % len(numbers)]
            waiting = [each for each in self.of(number) if each.state in PENDING]
            assert self.run(self.store.cancel("acme", new_message(number).id, self.now)) == len(waiting)
            for each in waiting:
                self.move(each, Event.CANCEL)

    @rule(pick=st.integers(0, 99))
    def retry(self, pick: int) -> None:
        if not (numbers := self.numbers()):
            return
        number = numbers[pick % len(numbers)]
        ended = [each for each in self.of(number) if each.state in sources(Event.RETRY)]
        asked = self.store.retry("acme", new_message(number).id, self.now, self.now, self.now + 400_000)
        if ended and number in self.erased:
            with pytest.raises(ContentPurged):
                self.run(asked)
            return
        assert self.run(asked) == len(ended)
        for each in ended:
            self.move(each, Event.RETRY, self.now)
            each.expires_at, each.attempts, each.in_doubt, each.attempt = self.now + 400_000, 0, 0, None
        if ended:
            self.kills[number] = 0

    @rule(pick=st.integers(0, 99))
    def erase(self, pick: int) -> None:
        if numbers := self.numbers():
            number = numbers[pick % len(numbers)]
            assert self.run(self.store.erase("acme", new_message(number).id, self.now)) is True
            self.erased.add(number)
            for each in self.of(number):
                if each.state in PENDING:
                    self.move(each, Event.CANCEL)

    @rule(email=st.sampled_from(ADDRESSES))
    def suppress(self, email: str) -> None:
        entry = Suppression(email, "bad_address", "api", self.now, None, "")
        assert self.run(self.store.add_suppression("acme", entry)) is (email not in self.suppressed)
        self.suppressed.add(email)

    @rule(email=st.sampled_from(ADDRESSES))
    def allow(self, email: str) -> None:
        assert self.run(self.store.remove_suppressions("acme", email, None)) == (email in self.suppressed)
        self.suppressed.discard(email)

    # --- what holds after each of them -----------------------------------------------------------------------------

    @invariant()
    def every_recipient_is_as_the_model_says(self) -> None:
        for number in self.numbers():
            view = self.run(self.store.get_message("acme", new_message(number).id))
            assert view is not None
            own = self.of(number)
            assert [(r.state, r.due_at, r.attempts, r.in_doubt) for r in view.recipients] == [
                (r.state, r.due_at, r.attempts, r.in_doubt) for r in own
            ]
            assert (view.closed_at is None) == any(each.state in OPEN for each in own)
            assert (self.run(self.store.get_content("acme", view.id)) is None) == (number in self.erased)

    @invariant()
    def the_counts_are_exact(self) -> None:
        counts = {state: count for state, count in self.run(self.store.stats(self.now)).counts.items() if count}
        assert counts == Counter(each.state for each in self.recipients)

    @invariant()
    def the_lanes_are_those_that_wait(self) -> None:
        first: dict[tuple[str, int], int] = {}
        for each in self.recipients:
            if each.due_at is not None:
                lane = (each.route, each.priority)
                first[lane] = min(each.due_at, first.get(lane, each.due_at))
        lanes = self.run(self.store.due_routes())
        assert {(lane.route, lane.priority): lane.due_at for lane in lanes} == first
        assert len(lanes) == len(first)

    @invariant()
    def keys_answer_as_they_were_first_answered(self) -> None:
        for key, print_ in self.keys.items():
            found = self.run(self.store.find_answer("acme", IdempotencyKey(key, print_)))
            assert found == Replayed(b"answer " + key.encode())

    @invariant()
    def lists_by_state_name_the_messages_that_have_it(self) -> None:
        for state in (State.QUEUED, State.SENDING, State.SENT, State.UNKNOWN):
            views = self.run(self.store.list_messages("acme", MessageFilter(status=state.value), 100, None))
            numbers = sorted({each.number for each in self.recipients if each.state is state}, reverse=True)
            assert [view.id for view in views] == [new_message(number).id for number in numbers]


EXAMPLES = {"sqlite": 40, "postgres": 5}  # a server needs a round trip for what a file answers in microseconds


@pytest.mark.parametrize("kind", sorted(URLS))
def test_the_store_agrees_with_a_small_model(kind: str) -> None:
    machine = type("Machine", (StoreModel,), {"url_of": staticmethod(URLS[kind])})
    given = settings(
        max_examples=EXAMPLES[kind],
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(machine, settings=given)
