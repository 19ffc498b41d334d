"""`postroom migrate` as an operator runs it."""

from pathlib import Path

import psycopg
import pytest

from service.store.queries import load_migrations
from tests.support.commands import Done, run
from tests.support.postgres import shared_server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """No schema yet."""
    return f"sqlite:///{tmp_path}/post.db" if request.param == "sqlite" else shared_server().bare_database()


def migrate(folder: Path, url: str, *options: str) -> Done:
    return run(["migrate", *options], folder, {"POSTROOM_DATABASE_URL": url})


def test_the_schema_is_made_and_what_was_done_is_told(tmp_path: Path, url: str) -> None:
    steps = load_migrations("sqlite" if url.startswith("sqlite") else "postgres")
    first = migrate(tmp_path, url, "--phase", "pre")
    assert first.out.splitlines() == [f"applied {step.title}" for step in steps] + ["The schema is up to date."]
    for options in ((), ("--phase", "pre"), ("--phase", "post"), ("--force",)):
        again = migrate(tmp_path, url, *options)
        assert (again.status, again.out) == (0, "The schema is up to date.\n"), options


def test_a_step_that_is_missing_is_named_to_who_asks_for_the_later_phase(tmp_path: Path) -> None:
    url = shared_server().bare_database()
    assert migrate(tmp_path, url).status == 0
    last = load_migrations("postgres")[-1]
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM schema_steps WHERE number = %s", [last.number])
    refused = migrate(tmp_path, url, "--phase", "post")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.endswith(f"step {last.title} is missing; run `postroom migrate --phase pre` first\n")


def test_a_store_that_can_not_be_had_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (f"sqlite:///{tmp_path}/file/post.db", "postgresql://someone:hunter2@127.0.0.1:1/nowhere"):
        refused = migrate(tmp_path, url)
        assert refused.status == 1
        assert "POSTROOM_DATABASE_URL" in refused.err
        assert "hunter2" not in refused.err
        assert "Traceback" not in refused.err


def test_a_server_that_may_lose_what_it_committed_gets_no_schema(tmp_path: Path) -> None:
    url = shared_server().bare_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off".encode())
        refused = migrate(tmp_path, url)
        assert refused.status == 1
        assert "synchronous_commit=off" in refused.err
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
