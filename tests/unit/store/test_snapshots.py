"""What is read by several statements is of one moment, and a fault of the disk is told as what it is."""

from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from service.clock import SYSTEM
from service.store.sqlite import reads
from service.store.sqlite.files import connect_reader
from service.store.sqlite.reads import Reader
from service.store.sqlite.store import SQLiteStore
from tests.support.store_data import accept_of, new_message

LARGE = b"x" * 200_000
BY_ID = "delivery_content: by id"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(str(tmp_path / "a.db"), SYSTEM, "me")
    await made.open()
    yield made
    await made.close()


async def test_a_message_that_is_erased_while_it_is_read_is_read_whole(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = new_message(content=(b"Subject: x\r\n\r\n", LARGE), size=len(LARGE))
    await store.accept(accept_of(message))
    reader, other = Reader(connect_reader(str(tmp_path / "a.db"))), apsw.Connection(str(tmp_path / "a.db"))
    read = reads.shared_piece

    def erased_before(connection: apsw.Connection, sha256: bytes) -> bytes:
        other.execute("DELETE FROM blobs")
        return read(connection, sha256)

    monkeypatch.setattr(reads, "shared_piece", erased_before)
    assert b"".join(reader.content(BY_ID, (message.id,)) or ()) == b"Subject: x\r\n\r\n" + LARGE
    assert other.execute("SELECT count(*) FROM blobs").fetchall() == [(0,)]
    other.close()
    reader.close()


async def test_a_transaction_that_the_database_rolled_back_hides_no_fault(store: SQLiteStore, tmp_path: Path) -> None:
    connection = connect_reader(str(tmp_path / "a.db"))
    reader = Reader(connection)

    def read() -> None:
        with reader._snapshot():
            connection.execute("ROLLBACK")  # as SQLite does by itself after some faults
            raise apsw.IOError("disk I/O error")

    for _ in range(2):  # the next read finds the connection free
        with pytest.raises(apsw.IOError):
            read()
    assert not connection.in_transaction
    reader.close()
