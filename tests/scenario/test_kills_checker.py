"""The checker complains of each promise that is broken on purpose, and of a build whose guard is gone."""

from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from service.mail.lifecycle import Event
from service.store import open_store
from service.store.port import Store
from service.store.sqlite.transaction import QUERIES
from service.store.values import RescuePolicy
from tests.support.checker import Copy, Promise, Records, check
from tests.support.clock import EPOCH, SteppedClock
from tests.support.store_data import HOUR, accept_of, claim_all, new_message, settlement_of

TO = ("ada@example.org",)
MESSAGES = [new_message(number) for number in range(1, 5)]
PROMISES = [Promise(each.id, each.message_id, TO, f"k{each.id}") for each in MESSAGES]
SENT = [Copy(MESSAGES[0].message_id, TO), Copy(MESSAGES[1].message_id, TO)]


async def filled(folder: Path) -> Store:
    """Two messages sent, one in doubt and waiting, one queued."""
    store = open_store(f"sqlite:///{folder}/post.db", SteppedClock(), holder="me")
    await store.open()
    await store.accept(accept_of(*MESSAGES, key="all"))
    first, second, third = await claim_all(store, limit=3)
    await store.settle(settlement_of(first, Event.ACCEPTED))
    await store.settle(settlement_of(second, Event.ACCEPTED))
    assert third.id == MESSAGES[2].id
    await store.rescue(EPOCH + 2 * HOUR, RescuePolicy(in_doubt_delay=1, max_in_doubt=2, max_kills=3))
    return store


def said(folder: Path, *, promises: Sequence[Promise] = PROMISES, copies: Sequence[Copy] = SENT, cut: int = 1,
         ended: bool = False) -> list[str]:  # fmt: skip
    """What the checker complains of."""
    return check(Records(f"sqlite:///{folder}/post.db", copies, promises, cut), ended=ended).broken


async def test_of_a_store_that_kept_its_promises_nothing_is_said(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    assert said(tmp_path) == []
    assert said(tmp_path, copies=[*SENT, Copy(MESSAGES[2].message_id, TO)]) == [], "one in doubt may have gone out"


BROKEN = {
    "a 202 was given for a message that is not there": "DELETE FROM messages WHERE seq = 4",
    "a message has another Message-ID": "UPDATE messages SET message_id = 'other' WHERE seq = 4",
    "a message has other recipients": "UPDATE recipients SET email = 'eve@example.org' WHERE rid = 4000",
    "a key has several messages": 'UPDATE messages SET metadata = \'[["key", "k"]]\' WHERE seq IN (3, 4)',
    "a recipient is sent, and the relay never took it": "UPDATE recipients SET state = 'sent', due_at = NULL WHERE rid = 4000",
    "attempts in doubt are not those of its log": "UPDATE recipients SET in_doubt = 2 WHERE rid = 3000",
    "a stale fence": "INSERT INTO events (message, n, at, type, attempt, data)"
    " SELECT message, n, at, type, attempt, data FROM events WHERE attempt = 1",
    "does not belong to the close of its attempt": "UPDATE attempts SET closed_at = closed_at + 1 WHERE id = 2",
    "sending without an open attempt": "UPDATE recipients SET state = 'sending', due_at = NULL, attempt = 1 WHERE rid = 4000",
    "a counter is not what a recount gives": "UPDATE counters SET count = count + 1 WHERE state = 'sent'",
    "blob without a content": "INSERT INTO blobs (sha256, data) VALUES (x'00', x'00')",
    "content without its message": "INSERT INTO contents (message, inline) VALUES (99, x'00')",
    "key without its message": "UPDATE messages SET request = NULL",
    "a message has lost its bytes": "DELETE FROM contents WHERE message = 4",
    "a purged message still has bytes": "UPDATE messages SET content_purged_at = 1 WHERE seq = 1",
    "closed while a recipient is open": "UPDATE messages SET closed_at = 1 WHERE seq = 4",
    "open though no recipient is": "UPDATE messages SET closed_at = NULL WHERE seq = 1",
}


@pytest.mark.parametrize("sentence", BROKEN)
async def test_each_broken_promise_is_told(sentence: str, tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    connection = apsw.Connection(f"{tmp_path}/post.db")
    connection.execute(BROKEN[sentence])
    connection.close()
    assert any(sentence in each for each in said(tmp_path))


async def test_copies_beyond_the_doubts_doubts_beyond_the_cuts_and_strangers_are_told(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    assert any("more copies than one" in each for each in said(tmp_path, copies=[*SENT, SENT[0]]))
    assert any("in no store" in each for each in said(tmp_path, copies=[*SENT, Copy("strange@example.org", TO)]))
    assert any("connections were cut off" in each for each in said(tmp_path, cut=0))
    assert any("never ended" in each for each in said(tmp_path, ended=True))
    twice = Promise(MESSAGES[1].id, MESSAGES[1].message_id, TO, PROMISES[0].key)
    assert any("answered with several" in each for each in said(tmp_path, promises=[*PROMISES, twice]))


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_build_without_the_fence_is_found_out(
    guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that stood still for longer than its lease comes back with a result, after another has begun anew."""
    if not guarded:
        attempt, recipient = QUERIES["settle: attempt"], QUERIES["settle: recipient"]
        assert " AND closed_at IS NULL" in attempt
        assert "AND attempt = ?" in recipient
        monkeypatch.setitem(QUERIES, "settle: attempt", attempt.replace(" AND closed_at IS NULL", ""))
        assert "RETURNING rid, attempt," in recipient
        unfenced = recipient.replace("AND attempt = ?", "AND ? IS NOT NULL")
        # what comes back is believed to be the attempt that was asked for, which is the first
        unfenced = unfenced.replace("RETURNING rid, attempt,", "RETURNING rid, 1,")
        monkeypatch.setitem(QUERIES, "settle: recipient", unfenced)
    store = open_store(f"sqlite:///{tmp_path}/post.db", SteppedClock(), holder="me")
    await store.open()
    await store.accept(accept_of(MESSAGES[0]))
    (paused,) = await claim_all(store, lease=60)
    await store.rescue(EPOCH + 2 * HOUR, RescuePolicy(in_doubt_delay=1, max_in_doubt=2, max_kills=3))
    (_,) = await claim_all(store, at=EPOCH + 3 * HOUR)
    changed = await store.settle(settlement_of(paused, Event.ACCEPTED, at=EPOCH + 3 * HOUR))
    await store.close()
    complaints = said(tmp_path, promises=PROMISES[:1], copies=[SENT[0]])
    assert changed == (0 if guarded else 1)
    assert any("stale fence" in each for each in complaints) is not guarded, complaints
