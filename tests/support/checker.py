"""States whether Postroom kept its promises, from three records that it does not write itself or that are read past it.

The store is read with the database's driver and SQL of this file, so that a fault of service/store can't hide itself; what
the relay took is the sink's own file; what the service promised is what the client noted of its 202s. Each broken promise
is a sentence. It decides nothing about how the run came to be.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
import psycopg

SPAN = 1000  # recipients of one message in the numbering of rows
_OPEN = {"queued", "deferred", "sending"}
_DOUBT, _POISON = "in-doubt", "poison"
_SHOWN = 3  # examples in a sentence


@dataclass(frozen=True, slots=True)
class Promise:
    """A 202: what it said, and what had been asked."""

    id: str
    message_id: str
    recipients: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A message that the sink took, with the forward-paths of that transaction."""

    message_id: str
    recipients: tuple[str, ...]


@dataclass(slots=True)
class Records:
    """What a run left. `cut`: connections to relays that kills, pauses and steps of the clock may have cut off, in all."""

    database_url: str
    copies: Sequence[Copy]
    promises: Sequence[Promise]
    cut: int


@dataclass(slots=True)
class Verdict:
    """`broken`: sentences. `figures`: what the run came to."""

    broken: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def claim(self, sentence: str, counterexamples: Sequence[object]) -> None:
        """`sentence` tells what is wrong, if there is any counterexample."""
        if counterexamples:
            self.broken.append(f"{sentence}: {len(counterexamples)}, such as {list(counterexamples)[:_SHOWN]}")


class _Store:
    """The rows of a store, of either database, in one snapshot of it."""

    def __init__(self, url: str) -> None:
        ask = _sqlite if url.startswith("sqlite:///") else _postgres
        with_rows = ask(url)
        self.messages = {
            seq: {"id": id, "message_id": message_id, "closed_at": closed, "purged_at": purged, "metadata": metadata}
            for seq, id, message_id, closed, purged, metadata in next(with_rows)
        }
        self.recipients = list(next(with_rows))
        self.attempts = {id: (message, closed_at, result) for id, message, closed_at, result in next(with_rows)}
        self.outcomes = [(*rest, json.loads(data) if data else {}) for *rest, data in next(with_rows)]
        self.counters = {state: int(count) for state, count in next(with_rows) if count}
        self.strays = [table for (table, count) in next(with_rows) for _ in range(count)]
        self.contents = {message for (message,) in next(with_rows)}
        self.faults = [fault for (fault,) in next(with_rows)]


_QUESTIONS = (
    "SELECT seq, id, message_id, closed_at, content_purged_at, metadata FROM messages",
    "SELECT rid, email, state, in_doubt, attempt FROM recipients",
    "SELECT id, message, closed_at, result FROM attempts",
    "SELECT message, n, at, type, attempt, data FROM events WHERE attempt IS NOT NULL ORDER BY seq",
    "SELECT state, sum(count) FROM counters GROUP BY state",
    "SELECT 'blob without a content', count(*) FROM blobs b"
    " WHERE NOT EXISTS (SELECT 1 FROM content_blobs c WHERE c.sha256 = b.sha256)"
    " UNION ALL SELECT 'piece without its blob', count(*) FROM content_blobs c"
    " WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.sha256 = c.sha256)"
    " UNION ALL SELECT 'piece without its content', count(*) FROM content_blobs c"
    " WHERE NOT EXISTS (SELECT 1 FROM contents o WHERE o.message = c.message)"
    " UNION ALL SELECT 'content without its message', count(*) FROM contents c"
    " WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.seq = c.message)"
    " UNION ALL SELECT 'key without its message', count(*) FROM requests r WHERE r.message IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.request = r.seq)",
    "SELECT message FROM contents",
)


def _sqlite(url: str) -> Iterator[Any]:
    connection = apsw.Connection(url.removeprefix("sqlite:///"), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(20_000)
    try:
        with connection:
            for question in _QUESTIONS:
                yield connection.execute(question).fetchall()
            checks: list[tuple[str]] = connection.execute("PRAGMA integrity_check").fetchall()
            yield [row for row in checks if row != ("ok",)]
    finally:
        connection.close()


def _postgres(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for question in _QUESTIONS:
            yield connection.execute(question.encode()).fetchall()
        yield []


def check(records: Records, *, ended: bool) -> Verdict:
    """Everything that must hold at any moment, and when all work has `ended`, what must hold then."""
    store, verdict = _Store(records.database_url), Verdict()
    for part in (_promises, _keys, _copies, _doubts, _fences, _counts, _bytes, _closes):
        part(store, records, verdict)
    if ended:
        _ends(store, verdict)
    verdict.figures["promised"] = len(records.promises)
    verdict.figures["messages"] = len(store.messages)
    verdict.figures["copies"] = sum(len(copy.recipients) for copy in records.copies)
    verdict.figures["may be in doubt"] = records.cut
    verdict.figures.update({f"now {state}": count for state, count in _recount(store).items()})
    return verdict


def _recount(store: _Store) -> Counter[str]:
    return Counter(state for _, _, state, *_ in store.recipients)


def _promises(store: _Store, records: Records, verdict: Verdict) -> None:
    rows = {message["id"]: (seq, message["message_id"]) for seq, message in store.messages.items()}
    addressed: dict[int, set[str]] = defaultdict(set)
    for rid, email, *_ in store.recipients:
        addressed[rid // SPAN].add(email)
    lost = [each.id for each in records.promises if each.id not in rows]
    kept = [each for each in records.promises if each.id in rows]
    verdict.claim("a 202 was given for a message that is not there", lost)
    other = [each.id for each in kept if rows[each.id][1] != each.message_id]
    verdict.claim("a message has another Message-ID than its 202 said", other)
    partial = [each.id for each in kept if addressed[rows[each.id][0]] != set(each.recipients)]
    verdict.claim("a message has other recipients than were asked for", partial)


def _keys(store: _Store, records: Records, verdict: Verdict) -> None:
    """The client puts the key into the metadata too, where Postroom does not look."""
    stored = Counter(_key_in(message["metadata"]) for message in store.messages.values())
    stored.pop(None, None)
    verdict.claim("a key has several messages", [key for key, count in stored.items() if count > 1])
    answered: dict[str, set[str]] = defaultdict(set)
    for each in records.promises:
        answered[each.key].add(each.id)
    verdict.claim("a key was answered with several messages", [key for key, ids in answered.items() if len(ids) > 1])


def _key_in(metadata: str | None) -> str | None:
    """Metadata are kept as pairs of name and value."""
    return dict(json.loads(metadata)).get("key") if metadata else None


def _copies(store: _Store, records: Records, verdict: Verdict) -> None:
    taken = Counter((copy.message_id, email) for copy in records.copies for email in copy.recipients)
    names = {seq: message["message_id"] for seq, message in store.messages.items()}
    known, beyond, unheard = set(), [], []
    for rid, email, state, in_doubt, _ in store.recipients:
        name = (names.get(rid // SPAN, ""), email)
        known.add(name)
        if taken[name] > 1 + in_doubt:
            beyond.append((*name, taken[name], in_doubt))
        if state == "sent" and not taken[name]:
            unheard.append(name)
    verdict.claim("a recipient got more copies than one and one for each attempt in doubt", beyond)
    verdict.claim("a recipient is sent, and the relay never took it", unheard)
    verdict.claim("the relay took what is in no store", sorted(set(taken) - known))
    verdict.figures["second copies"] = sum(count - 1 for count in taken.values())


def _doubts(store: _Store, records: Records, verdict: Verdict) -> None:
    in_doubt_of = {rid: in_doubt for rid, _, _, in_doubt, _ in store.recipients}
    doubtful: set[int] = set()
    counted, poisoned = Counter[int](), dict[int, int]()
    for message, n, _, _, attempt, data in store.outcomes:
        if data.get("class") == _DOUBT:
            doubtful.add(attempt)
            counted[message * SPAN + n] += 1
        elif data.get("class") == _POISON:
            poisoned[message * SPAN + n] = attempt
    # the last attempt at a poison may have been killed before its content could have started
    doubtful |= {attempt for rid, attempt in poisoned.items() if in_doubt_of.get(rid, 0) > counted[rid]}
    if len(doubtful) > records.cut:
        verdict.broken.append(f"{len(doubtful)} attempts are in doubt, and only {records.cut} connections were cut off")
    wrong = [
        rid for rid, in_doubt in in_doubt_of.items() if not counted[rid] <= in_doubt <= counted[rid] + (rid in poisoned)
    ]
    verdict.claim("a recipient's attempts in doubt are not those of its log", wrong)
    verdict.figures["attempts in doubt"] = len(doubtful)


def _fences(store: _Store, records: Records, verdict: Verdict) -> None:
    """A result counts once, when its attempt is closed, and never after that of a later attempt."""
    seen: set[tuple[int, int, int]] = set()
    last: dict[tuple[int, int], int] = {}
    stale, strange = [], []
    for message, n, at, type_, attempt, _ in store.outcomes:
        whose, closed_at, _ = store.attempts.get(attempt, (None, None, None))
        if whose != message or closed_at is None or closed_at != at:
            strange.append((message, n, type_, attempt))
        if (message, n, attempt) in seen or last.get((message, n), 0) > attempt:
            stale.append((message, n, type_, attempt))
        seen.add((message, n, attempt))
        last[message, n] = max(attempt, last.get((message, n), 0))
    verdict.claim("a result was accepted with a stale fence", stale)
    verdict.claim("a result does not belong to the close of its attempt", strange)
    held = [
        rid
        for rid, _, state, _, attempt in store.recipients
        if state == "sending" and (attempt not in store.attempts or store.attempts[attempt][:2] != (rid // SPAN, None))
    ]
    verdict.claim("a recipient is sending without an open attempt of its message", held)


def _counts(store: _Store, records: Records, verdict: Verdict) -> None:
    counted = _recount(store)
    wrong = [state for state in counted.keys() | store.counters if counted[state] != store.counters.get(state, 0)]
    verdict.claim("a counter is not what a recount gives", wrong)


def _bytes(store: _Store, records: Records, verdict: Verdict) -> None:
    verdict.claim("something stands without what owns it", store.strays)
    purged = {seq for seq, message in store.messages.items() if message["purged_at"] is not None}
    verdict.claim("a message has lost its bytes", sorted(store.messages.keys() - purged - store.contents))
    verdict.claim("a purged message still has bytes", sorted(purged & store.contents))
    verdict.claim("the database file is damaged", store.faults)


def _closes(store: _Store, records: Records, verdict: Verdict) -> None:
    waiting = {rid // SPAN for rid, _, state, *_ in store.recipients if state in _OPEN}
    early = [seq for seq in waiting if seq in store.messages and store.messages[seq]["closed_at"] is not None]
    late = [seq for seq, each in store.messages.items() if seq not in waiting and each["closed_at"] is None]
    verdict.claim("a message is closed while a recipient is open", early)
    verdict.claim("a message is open though no recipient is", late)


def _ends(store: _Store, verdict: Verdict) -> None:
    verdict.claim("a recipient never ended", [rid for rid, _, state, *_ in store.recipients if state in _OPEN])
    verdict.claim(
        "an attempt is open, and nobody holds it", [id for id, row in store.attempts.items() if row[1] is None]
    )


def open_recipients(database_url: str) -> int:
    """How many recipients wait or are being sent to."""
    question = "SELECT count(*) FROM recipients WHERE state IN ('queued', 'deferred', 'sending')"
    if not database_url.startswith("sqlite:///"):
        with psycopg.connect(database_url) as connection:
            row = connection.execute(question.encode()).fetchone()
            return int(row[0]) if row else 0
    reader = apsw.Connection(database_url.removeprefix("sqlite:///"), flags=apsw.SQLITE_OPEN_READWRITE)
    reader.set_busy_timeout(20_000)
    try:
        (count,) = reader.execute(question).fetchone()
        return int(count)
    finally:
        reader.close()
