"""PostgreSQL alone: what a network between us and the disk can do, and what several replicas can do to each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from service.clock import SYSTEM
from service.errors import ConfigurationError, StorageUnavailable
from service.mail.lifecycle import Event, State
from service.store import open_store
from service.store.bounds import Bounds
from service.store.postgres import session as sessions
from service.store.postgres.migrations import migrate_database
from service.store.postgres.session import Session
from service.store.postgres.statements import COMMIT, Statement
from service.store.postgres.store import PostgresStore
from service.store.postgres.transaction import opening
from service.store.values import Accepted, IdempotencyKey, Replayed, RescuePolicy, Want
from tests.support.clock import EPOCH, SteppedClock
from tests.support.postgres import shared_server
from tests.support.sending import quota
from tests.support.store_data import HOUR, ROUTE, accept_of, claim_all, new_message, settlement_of, states, take_of
from tests.support.waiting import until

POLICY = RescuePolicy(in_doubt_delay=900, max_in_doubt=2, max_kills=10)
Opener = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture
def url() -> Iterator[str]:
    made = shared_server().new_database()
    yield made
    shared_server().give_back(made)


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Opener]:
    """Open a store on the database, as one more replica."""
    stores: list[PostgresStore] = []

    async def opener(holder: str = "me", clock: Any = None, **bounds: Any) -> PostgresStore:
        store = PostgresStore(url, clock or SteppedClock(), holder, Bounds(**bounds))
        await store.open()
        stores.append(store)
        return store

    yield opener
    for store in stores:
        await store.close()


@pytest.fixture
async def store(opened: Opener) -> PostgresStore:
    return await opened()


class Line:
    """The line to the server. `cut`: after how many more commits the answer is lost, with the connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cut = self.undo = 0
        run = Session.run

        async def through(session: Session, statements: Sequence[Statement]) -> Any:
            commits = COMMIT in statements and any(each.name.startswith(("accept", "claim")) for each in statements)
            if commits and self.undo:
                self.undo -= 1
                raise psycopg.errors.DeadlockDetected("as PostgreSQL says it")
            answer = await run(session, statements)
            if commits and self.cut:
                self.cut -= 1
                session.abort()
                raise psycopg.OperationalError("the line is cut")
            return answer

        monkeypatch.setattr(Session, "run", through)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


# --- what is not known ------------------------------------------------------------------------------------------------


async def test_an_accept_without_an_answer_is_refused_and_its_repeat_finds_what_became_of_it(
    store: PostgresStore, line: Line
) -> None:
    line.cut = 1
    with pytest.raises(StorageUnavailable):
        await store.accept(accept_of(new_message(1), key="k"))
    assert await store.accept(accept_of(new_message(2), key="k")) == Replayed(b"answer k")
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 1}


async def test_a_claim_without_an_answer_is_given_back_and_has_cost_nothing(store: PostgresStore, line: Line) -> None:
    limit = quota("5/h", guard=0, headroom=0)
    wants = [Want(ROUTE, "r", 3, quotas=(limit,))]
    await store.accept(accept_of(*(new_message(n) for n in range(1, 4))))
    line.cut = 1
    with pytest.raises(StorageUnavailable):
        await store.claim(lambda: wants, "me", lambda: EPOCH + HOUR, 60)
    found = (await store.claim(lambda: wants, "me", lambda: EPOCH + HOUR, 60)).deliveries
    assert [each.id for each in found] == [new_message(n).id for n in (1, 2, 3)]
    assert {each.attempts for delivery in found for each in delivery.recipients} == {0}
    assert (await store.quota_use([limit], EPOCH + HOUR))[0].used == 3
    assert await store.heartbeat("me", EPOCH + HOUR, 60) == 3, "nobody keeps alive what was lost"


async def test_a_settlement_without_an_answer_is_found_out_by_its_fence(store: PostgresStore, line: Line) -> None:
    await store.accept(accept_of(new_message(1)))
    (delivery,) = await claim_all(store)
    settlement = settlement_of(delivery, Event.ACCEPTED)
    line.cut = 1
    with pytest.raises(StorageUnavailable):
        await store.settle(settlement)
    assert await store.settle(settlement) == 0
    assert await states(store, delivery.id) == [State.SENT]


async def test_what_was_undone_for_the_sake_of_another_is_repeated_a_few_times(
    store: PostgresStore, line: Line
) -> None:
    line.undo = 3
    assert await store.accept(accept_of(new_message(1))) == Accepted()
    line.undo = 100
    with pytest.raises(StorageUnavailable):
        await store.accept(accept_of(new_message(2)))
    line.undo = 0
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 1}


async def test_connections_that_died_while_nobody_used_them_cost_no_request(store: PostgresStore, url: str) -> None:
    await store.accept(accept_of(new_message(1)))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert await store.accept(accept_of(new_message(2))) == Accepted()
    assert [each.id for each in await claim_all(store)] == [new_message(1).id, new_message(2).id]
    assert await store.get_message("acme", new_message(2).id) is not None
    assert store.healthy()


async def test_who_gives_up_waiting_for_an_answer_leaves_the_connection_in_order(opened: Opener) -> None:
    store = await opened(connections=1)
    await store.accept(accept_of(new_message(1)))
    for _ in range(20):
        reading = asyncio.ensure_future(store.get_message("acme", new_message(1).id))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert await states(store, new_message(1).id) == [State.QUEUED]


# --- one group --------------------------------------------------------------------------------------------------------


async def test_those_who_come_while_a_commit_runs_share_the_next_one(store: PostgresStore) -> None:
    before = store.groups()
    await asyncio.gather(*(store.accept(accept_of(new_message(n))) for n in range(1, 61)))
    assert store.groups() - before <= 4


async def test_one_that_the_database_refuses_does_not_fail_the_others_of_its_group(store: PostgresStore) -> None:
    twin = replace(new_message(3), id=new_message(1).id)
    asked = [accept_of(new_message(1)), accept_of(new_message(2)), accept_of(twin, key="k"), accept_of(new_message(4))]
    results = await asyncio.gather(*map(store.accept, asked), return_exceptions=True)
    assert [type(each) for each in results] == [Accepted, Accepted, psycopg.errors.UniqueViolation, Accepted]
    assert (await store.stats(EPOCH)).counts == {State.QUEUED: 3}
    assert await store.find_answer("acme", IdempotencyKey("k", b"f")) is None


async def test_reads_that_share_a_round_trip_fail_each_for_itself(store: PostgresStore) -> None:
    good, bad = Statement("good", "SELECT 1", ()), Statement("bad", "SELECT 1 / 0", ())
    database = store._database
    asked = [database.read(bad if number % 5 == 0 else good) for number in range(40)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, psycopg.errors.DivisionByZero)]
    assert failed == list(range(0, 40, 5))
    assert answers[1:5] == [[[(1,)]]] * 4


async def test_a_key_whose_first_claimant_was_refused_goes_to_the_next_of_the_same_group(store: PostgresStore) -> None:
    await store.accept(accept_of(new_message(1), takes=[take_of("t", 1, 60)]))
    refused = store.accept(accept_of(new_message(2), key="k", print_=b"first", takes=[take_of("t", 1, 60)]))
    second = store.accept(accept_of(new_message(3), key="k", print_=b"second"))
    third = store.accept(accept_of(new_message(4), key="k", print_=b"second"))
    _, *answers = await asyncio.gather(refused, second, third)
    assert answers == [Accepted(), Replayed(b"answer k")]
    assert await store.find_answer("acme", IdempotencyKey("k", b"second")) == Replayed(b"answer k")


async def test_a_character_that_postgresql_can_not_hold_is_kept_as_its_replacement(store: PostgresStore) -> None:
    message = new_message(1, subject="a\0b", metadata=(("k", "v\0"),), tags=(("t", "\ud800"),))
    assert await store.accept(accept_of(message)) == Accepted()
    (delivery,) = await claim_all(store)
    settled = settlement_of(delivery, Event.DEFER, due_at=EPOCH + 2 * HOUR)
    results = [replace(each, text="no\0") for each in settled.recipients]
    assert await store.settle(replace(settled, recipients=results)) == 1
    view = await store.get_message("acme", message.id)
    assert view is not None
    assert (view.subject, view.recipients[0].last_text) == ("a\ufffdb", "no\ufffd")


# --- several replicas -------------------------------------------------------------------------------------------------


async def test_twins_at_two_replicas_make_one_message(store: PostgresStore, opened: Opener) -> None:
    other = await opened("other")
    asked = [each.accept(accept_of(new_message(2 * n + i), key=f"k{n}"))
             for n in range(1, 31) for i, each in enumerate((store, other))]  # fmt: skip
    answers = await asyncio.gather(*asked)
    assert answers.count(Accepted()) == 30
    assert sum(isinstance(each, Replayed) for each in answers) == 30


async def until_waiting(url: str, count: int) -> None:
    """Until so many transactions wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(2000):
            if await (await connection.execute(query)).fetchone() == (count,):
                return
            await asyncio.sleep(0.01)
    pytest.fail("they do not wait for each other")


async def test_replicas_that_need_the_same_limiters_in_any_order_never_lock_each_other_up(
    store: PostgresStore, opened: Opener, url: str
) -> None:
    other = await opened("other")
    takes = [take_of(f"bucket {n}", 1000, 60) for n in range(8)]
    await store.accept(accept_of(new_message(1), takes=takes))
    async with await psycopg.AsyncConnection.connect(url) as blocker:
        await blocker.execute("SELECT 1 FROM limits WHERE bucket = 'bucket 4' FOR UPDATE")
        one = asyncio.ensure_future(store.accept(accept_of(new_message(2), takes=takes)))
        await until_waiting(url, 1)
        two = asyncio.ensure_future(other.accept(accept_of(new_message(3), takes=takes[::-1])))
        await until_waiting(url, 2)
    assert [await one, await two] == [Accepted(), Accepted()]
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row == (0,)


async def test_of_two_replicas_that_end_a_message_together_one_closes_it(
    store: PostgresStore, opened: Opener, url: str
) -> None:
    """Each has sent to one of its two recipients, and neither sees the other's result before it is committed."""
    other = await opened("other")
    for first in range(1, 30, 10):
        numbers = range(first, first + 10)
        await store.accept(accept_of(*(new_message(n, ("a@x.example", "b@x.example")) for n in numbers)))
        shares = []
        for each, holder in ((store, "me"), (other, "other")):
            limit = quota("1000/h", guard=0, headroom=0, account=holder)  # or the quota would make one wait
            wants = [Want(ROUTE, "r", 10, quotas=(limit,), max_recipients=1)]
            claimed = await each.claim(lambda wants=wants: wants, holder, lambda: EPOCH + HOUR, 60)
            shares.append((each, claimed.deliveries))
        async with await psycopg.AsyncConnection.connect(url) as blocker:
            await blocker.execute("LOCK TABLE events IN SHARE MODE")
            settling = [
                asyncio.ensure_future(each.settle(settlement_of(delivery, Event.ACCEPTED)))
                for each, deliveries in shares
                for delivery in deliveries
            ]
            await until_waiting(url, 2)
        assert await asyncio.gather(*settling) == [1] * 20
        views = [await store.get_message("acme", new_message(n).id) for n in numbers]
        assert all(view is not None and view.closed_at == EPOCH + HOUR for view in views)


async def test_a_shared_piece_is_never_taken_away_from_one_who_is_about_to_need_it(
    store: PostgresStore, opened: Opener
) -> None:
    other = await opened("other")
    pieces = (b"head\r\n", b"x" * 70_000, b"tail\r\n")

    def sharing(number: int) -> Any:
        return new_message(number, content=pieces, size=sum(map(len, pieces)))

    await store.accept(accept_of(sharing(1)))
    for number in range(1, 30):
        await asyncio.gather(
            store.erase("acme", new_message(number).id, EPOCH), other.accept(accept_of(sharing(number + 1)))
        )
        content = await store.get_content("acme", new_message(number + 1).id)
        assert content is not None
        assert b"".join(content) == b"".join(pieces)


async def test_a_lease_counts_on_the_servers_clock_whatever_a_replica_thinks_the_time_is(
    url: str, opened: Opener
) -> None:
    store, other = await opened(clock=SYSTEM), await opened("other", clock=SYSTEM)
    now = SYSTEM.now()
    await store.accept(accept_of(new_message(1, expires_at=now + 99 * HOUR)))
    await claim_all(store, at=now, lease=60)
    assert await other.rescue(now + 10 * HOUR, POLICY) == 0, "its own clock is hours ahead"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE attempts SET lease_until = lease_until - 61000")
    assert await other.rescue(now - 10 * HOUR, POLICY) == 1


async def test_two_replicas_that_rescue_at_once_close_each_orphan_once(store: PostgresStore, opened: Opener) -> None:
    other = await opened("other")
    await store.accept(accept_of(*(new_message(n) for n in range(1, 41))))
    await claim_all(store, lease=1)
    rescued = await asyncio.gather(*(each.rescue(EPOCH + 2 * HOUR, POLICY) for each in (store, other, store, other)))
    assert sum(rescued) == 40
    view = await store.get_message("acme", new_message(1).id)
    assert view is not None
    assert (view.recipients[0].attempts, view.recipients[0].in_doubt) == (1, 1)


async def test_of_two_replicas_that_start_on_an_empty_store_one_makes_the_first_key(
    store: PostgresStore, opened: Opener
) -> None:
    from service.store.shown import ApiKey

    other = await opened("other")
    keys = [ApiKey(f"key_{n}", f"pr_{n}", b"d", "acme", "", (), (), None, EPOCH, None, None) for n in range(8)]
    made = await asyncio.gather(*((store, other)[n % 2].add_key(key, only_if_none=True) for n, key in enumerate(keys)))
    assert made.count(True) == 1


# --- the server and the schema ----------------------------------------------------------------------------------------

GOOD = (180000, "on", "on", "on", "read committed", False, "UTF8", "off")


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (0, 130011, "PostgreSQL 14"),
        (1, "off", "fsync"),
        (2, "off", "full_page_writes"),
        (3, "off", "synchronous_commit"),
        (3, "local", "synchronous_commit"),
        (4, "serializable", "isolation"),
        (6, "SQL_ASCII", "UTF8"),
    ],
)
def test_a_server_that_may_lose_what_it_committed_is_refused(place: int, value: Any, word: str) -> None:
    sessions.check_server(*GOOD)
    said = [*GOOD]
    said[place] = value
    with pytest.raises(ConfigurationError, match=word):
        sessions.check_server(*said)


async def test_a_server_that_was_made_read_only_is_not_relied_on_until_it_takes_writes_again(
    store: PostgresStore, url: str
) -> None:
    name = url.rpartition("/")[2]

    def say(setting: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {setting}".encode())
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    say("on")
    with pytest.raises(StorageUnavailable):
        await store.accept(accept_of(new_message(1)))
    assert not store.healthy()
    say("off")
    await until(store.healthy)
    assert isinstance(await store.accept(accept_of(new_message(1))), Accepted)


async def test_a_database_without_synchronous_commits_is_refused_as_it_is(url: str) -> None:
    name = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
        try:
            with pytest.raises(ConfigurationError, match="synchronous_commit=off"):
                await open_store(url, SteppedClock(), holder="me").open()
        finally:
            connection.execute(f"ALTER DATABASE {name} RESET synchronous_commit".encode())


async def test_a_commit_is_synced_whatever_the_connection_of_a_pooler_says(store: PostgresStore, url: str) -> None:
    """A default that was changed after we looked holds for connections that are made later."""
    with psycopg.connect(url) as connection:
        connection.execute("SET synchronous_commit = off")
        bounds = opening(Bounds())
        psycopg.RawCursor(connection).execute(bounds.text.encode(), bounds.values)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


async def test_a_server_that_is_not_there_is_a_sentence_without_the_password(url: str) -> None:
    store = open_store("postgresql://someone:hunter2@127.0.0.1:1/nowhere", SteppedClock(), holder="me")
    with pytest.raises(StorageUnavailable) as refused:
        await store.open()
    assert "POSTROOM_DATABASE_URL" in str(refused.value)
    assert "hunter2" not in str(refused.value)


async def test_processes_that_start_at_once_on_an_empty_database_make_the_schema_once() -> None:
    url = shared_server().bare_database()
    await asyncio.gather(*(asyncio.to_thread(migrate_database, url, 5) for _ in range(4)))
    with psycopg.connect(url) as connection:
        numbers = [row[0] for row in connection.execute("SELECT number FROM schema_steps ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(("additive", "works"), [(True, True), (False, False)])
async def test_a_process_of_the_version_before_works_on_a_newer_schema_if_its_steps_only_add(
    url: str, opened: Opener, additive: bool, works: bool
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_steps VALUES (9999, 'of a later version', %s)", [additive])
        connection.execute("ALTER TABLE messages ADD COLUMN later text")
        try:
            if works:
                store = await opened()
                assert await store.accept(accept_of(new_message(1))) == Accepted()
                assert len(await claim_all(store)) == 1
            else:
                with pytest.raises(ConfigurationError, match="9999"):
                    await opened()
        finally:
            connection.execute("ALTER TABLE messages DROP COLUMN later")
            connection.execute("DELETE FROM schema_steps WHERE number = 9999")


async def test_hints_that_do_not_get_through_are_noticed_and_the_queue_is_polled(url: str, opened: Opener) -> None:
    """As behind a pooler in transaction mode: LISTEN succeeds, and nothing is heard."""
    deaf = shared_server().bare_database()
    store = await opened(listen_url=deaf)
    await store.accept(accept_of(new_message(1)))
    assert not store.hints_work()
    assert len(await claim_all(store)) == 1
    assert store.healthy()
