"""PostgreSQL: versions that run together. Steps that take something away wait for who would miss it; nobody slips in."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from service.clock import SYSTEM
from service.errors import ConfigurationError
from service.store import open_store
from service.store.bounds import Bounds
from service.store.migrate import Outcome, Wanted
from service.store.postgres import migrations
from service.store.postgres import store as stores
from service.store.postgres.migrations import migrate_database, newest_step
from service.store.postgres.store import PostgresStore
from service.store.queries import Migration, Phase, load_migrations
from tests.support.clock import SteppedClock
from tests.support.postgres import shared_server
from tests.support.store_data import accept_of, new_message
from tests.support.waiting import until

STEPS = load_migrations("postgres")
TAKING = Migration(STEPS[-1].number + 1, "takes", "-- post\nALTER TABLE holders ADD COLUMN taken text")
CHANGING = "SELECT pg_advisory_xact_lock(7310003)"
Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def url() -> Iterator[str]:
    """Other tests get the schema back as it was."""
    made = shared_server().new_database()
    yield made
    with psycopg.connect(made) as connection:
        connection.execute("ALTER TABLE holders DROP COLUMN IF EXISTS taken")
        connection.execute("DELETE FROM schema_steps WHERE number > %s", [STEPS[-1].number])
    shared_server().give_back(made)


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as made:
        yield made


def holders(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT holder FROM holders ORDER BY holder").fetchall()]


async def opened(url: str, holder: str) -> PostgresStore:
    store = PostgresStore(url, SteppedClock(), holder, Bounds())
    await store.open()
    return store


async def test_a_step_of_phase_post_waits_for_the_processes_that_do_not_know_it(
    url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await opened(url, "old")
    connection.execute("INSERT INTO holders (holder, seen_at) VALUES ('killed long ago', 1)")
    monkeypatch.setattr(migrations, "load_migrations", lambda _: (*STEPS, TAKING))
    new = await opened(url, "new")
    for wanted in (Wanted(), Wanted(Phase.PRE)):
        assert migrate_database(url, 5, wanted).left == [TAKING.title]
    with pytest.raises(ConfigurationError, match=f"{TAKING.title} .* still runs: old. Stop it"):
        migrate_database(url, 5, Wanted(Phase.POST))
    await old.close()
    assert migrate_database(url, 5) == Outcome([TAKING.title])
    await new.close()


async def test_a_step_that_is_forced_waits_for_nobody(
    url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await opened(url, "old")
    monkeypatch.setattr(migrations, "load_migrations", lambda _: (*STEPS, TAKING))
    assert migrate_database(url, 5, Wanted(Phase.POST, force=True)) == Outcome([TAKING.title])
    await old.close()


async def test_a_process_that_was_overtaken_by_a_newer_schema_does_not_enter(
    url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step comes between its look at the schema and its row in `holders`: there nobody could see it yet."""
    migrated = migrate_database

    def overtaken(*given: Any) -> Outcome:
        found = migrated(*given)
        connection.execute("INSERT INTO schema_steps VALUES (9999, 'of a later version', false)")
        return found

    monkeypatch.setattr(stores, "migrate_database", overtaken)
    with pytest.raises(ConfigurationError, match="the schema has step 9999, which this version does not know"):
        await opened(url, "old")
    assert holders(connection) == []


async def test_a_process_enters_when_a_change_of_the_schema_is_over(url: str, connection: Connection) -> None:
    store = await opened(url, "me")
    connection.execute("DELETE FROM holders")
    with psycopg.connect(url) as changing:
        changing.execute(CHANGING)
        entering = asyncio.create_task(store._database.write(store._enter))

        def waits() -> bool:
            return bool(
                connection.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall()
            )

        await until(waits)
        assert holders(connection) == []
    await entering
    assert holders(connection) == ["me"]
    await store.close()


async def test_a_process_that_only_accepts_says_that_it_lives_until_it_has_left(
    url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SILENT_AFTER", 0.04)
    store = open_store(url, SYSTEM, holder="me")
    await store.open()
    connection.execute("UPDATE holders SET seen_at = 0")
    await until(lambda: connection.execute("SELECT 1 FROM holders WHERE seen_at > 0").fetchone() is not None)
    await store.close()
    assert holders(connection) == []


def test_every_step_says_what_it_is_to_the_version_before() -> None:
    """On PostgreSQL versions run together, so there is no third kind."""
    assert all(step.additive or step.phase is Phase.POST for step in STEPS)
    assert newest_step() == STEPS[-1].number


async def test_a_role_that_may_not_make_tables_uses_a_schema_that_is_there(url: str, connection: Connection) -> None:
    connection.execute("DROP ROLE IF EXISTS clerk")
    connection.execute("CREATE ROLE clerk LOGIN")
    connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is from PostgreSQL 15 on
    connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk")
    connection.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk")
    try:
        store = await opened(url.replace("postgres@", "clerk@"), "one")
        assert (await store.accept(accept_of(new_message(1)))) is not None
        await store.close()
    finally:
        connection.execute("DROP OWNED BY clerk")
        connection.execute("DROP ROLE clerk")


@pytest.mark.parametrize(
    "password", ["s3cr%etword", "s3cret word", "s3cret%zz", "pass@s3cret", "s3cret/word", "5432/s3cret", "p/@s3cret"]
)
def test_a_url_that_is_none_is_refused_and_its_password_is_not_shown(password: str) -> None:
    url = f"postgresql://postroom:{password}@127.0.0.1/postroom"
    for attempt in (
        lambda: open_store(url, SYSTEM, holder="me"),
        lambda: open_store("postgresql://me@h/d", SYSTEM, holder="me", bounds=Bounds(listen_url=url)),
        lambda: migrate_database(url, 1),
    ):
        with pytest.raises(ConfigurationError, match="%25") as caught:
            attempt()
        assert "s3cr" not in caught.value.detail
