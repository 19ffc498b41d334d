"""The reading threads: a fault while connecting costs one read, not the thread."""

from pathlib import Path

import apsw
import pytest

from service.store.sqlite.reads import Reader, Readers


async def test_a_connection_that_could_not_be_opened_is_opened_by_the_next_read(tmp_path: Path) -> None:
    fails = [True]

    def connect() -> apsw.Connection:
        if fails.pop() if fails else False:
            raise apsw.CantOpenError("unable to open database file")
        return apsw.Connection(str(tmp_path / "a.db"))

    def work(reader: Reader) -> str:
        return "read"

    readers = Readers(connect, 1, "test")
    with pytest.raises(apsw.CantOpenError):
        await readers.run(work)
    assert await readers.run(work) == "read"
    readers.close()
