"""The SQL: names fit the port, every statement is used, and no hot one scans or sorts."""

import re
from pathlib import Path

import apsw
import pytest

from service.mail.lifecycle import OPEN, PENDING, Event, State, sources
from service.store.port import Store
from service.store.queries import load_queries
from service.store.sqlite.files import connect_writer, migrate_file

ROOT = Path(__file__).resolve().parents[2]
QUERIES = load_queries("sqlite")
# Housekeeping and lists of keys may look at more rows; these are what every message pays for.
COLD = {
    "list_keys: all",
    "add_key: any",
    "published_templates: all",
    "stats: counters",
    "waiting: lanes",  # asked by an operator: every waiting recipient
    "waiting: first",
    "waiting: attempts",
    "offers: all",
    "relay_accounts: troubles",  # a few rows for each account of a relay, and so are these
    "relay_accounts: logins",
    "relay_views: since",
    "purge_relays: views",
    "purge_relays: troubles",
    "purge_log: states",  # the rows of one message
    "rescue: holders",  # a partial index that holds only open attempts
    "newest_moment: line",  # the last row alone
}
# What is read whole and stands in no table: the recursion of due_routes, a batch of keys, the metadata asked for.
OF_NO_TABLE = {"SCAN CONSTANT ROW", "SCAN lanes", "SCAN q", "SCAN w VIRTUAL TABLE INDEX 1:"}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> apsw.Connection:
    path = str(tmp_path_factory.mktemp("sql") / "plan.db")
    migrate_file(path)
    return connect_writer(path)


def test_every_name_begins_with_a_method_of_the_port() -> None:
    methods = {name for name in vars(Store) if not name.startswith("_")}
    assert {name.partition(":")[0] for name in QUERIES} <= methods


def test_every_statement_is_used_somewhere() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "service" / "store" / "sqlite").glob("*.py"))
    used = set(re.findall(r'"([a-z_]+: [a-z_ ]+)"', code))
    built = {name for name in QUERIES if name.startswith(("list_messages: ", "purge_log: "))}  # named by an f-string
    assert set(QUERIES) - built <= used
    assert used <= set(QUERIES)


def test_every_statement_tells_its_purpose_and_its_index() -> None:
    text = (ROOT / "service/store/sql/sqlite/queries.sql").read_text()
    for name, following in re.findall(r"^-- ([a-z_]+: [a-z_ ]+) --\n(.*)$", text, re.M):
        assert following.startswith("-- "), name


def plan_of(connection: apsw.Connection, name: str) -> list[str]:
    """The steps by which SQLite answers a statement."""
    bindings = dict.fromkeys(re.findall(r":(\w+)", QUERIES[name]))
    values = bindings or (None,) * QUERIES[name].count("?")
    return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + QUERIES[name], values)]


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_a_statement_is_served_by_the_index_that_it_names_and_by_no_other(
    connection: apsw.Connection, name: str
) -> None:
    """A search in the wrong index is no scan, and yet reads a whole backlog for one message."""
    indexes = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    comment = " ".join(re.findall(r"-- (.*)$", QUERIES[name], re.M))
    plan = " ".join(plan_of(connection, name))
    named = {index for index in indexes if re.search(rf"\b{index}\b", comment)}
    used = {index for index in indexes if re.search(rf"\b{index}\b", plan) and "autoindex" not in index}
    assert used == named, plan


SPAN = re.compile(r"\brid >= :")


@pytest.mark.parametrize("name", sorted(name for name in QUERIES if SPAN.search(QUERIES[name])))
def test_the_recipients_of_one_message_are_found_by_their_row_numbers(connection: apsw.Connection, name: str) -> None:
    assert any("rowid>? AND rowid<?" in step for step in plan_of(connection, name))


@pytest.mark.parametrize("name", sorted(set(QUERIES) - COLD))
def test_no_hot_statement_scans_or_sorts(connection: apsw.Connection, name: str) -> None:
    plan = plan_of(connection, name)
    for step in plan:
        assert not step.startswith("SCAN") or step in OF_NO_TABLE, plan
        assert "TEMP B-TREE" not in step, plan


def test_the_library_carries_a_sqlite_outside_the_range_of_the_wal_reset_bug() -> None:
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("settle: close", OPEN),
        ("settle: recipient", {State.SENDING}),
        ("rescue: recipients", {State.SENDING}),
        ("retry: ended", set(sources(Event.RETRY))),
        ("reschedule: recipients", {State.QUEUED}),
    ],
)
def test_a_state_that_a_statement_starts_from_is_what_the_table_of_transitions_says(
    name: str, states: set[State]
) -> None:
    """Target states are bound from lifecycle.apply; where a statement names its sources, they must not drift."""
    assert set(re.findall(r"'([a-z]+)'", QUERIES[name])) == {state.value for state in states}


def test_no_statement_writes_a_state_of_its_own_choice() -> None:
    for name, text in QUERIES.items():
        if "UPDATE recipients" not in text:
            continue
        for assigned in re.findall(r"\bstate = (\S+?)[,\s]", text.partition("WHERE")[0]):
            assert assigned == "?", name


def test_the_queue_holds_exactly_the_states_that_can_be_claimed() -> None:
    schema = (ROOT / "service/store/sql/sqlite/migrations/0001_initial.sql").read_text()
    check = re.search(r"CHECK \(\(due_at IS NOT NULL\) = \(state IN \(([^)]*)\)\)\)", schema)
    assert check is not None
    assert set(re.findall(r"'([a-z]+)'", check[1])) == {state.value for state in PENDING}
