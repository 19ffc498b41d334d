"""How a file is opened: what its connections are told before the first statement."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from service.store.sqlite.files import connect_reader, connect_writer, migrate_file
from service.store.sqlite.transaction import QUERIES


@pytest.mark.parametrize("connect", [connect_writer, connect_reader])
def test_a_statement_is_not_prepared_anew_when_another_limit_is_bound(
    tmp_path: Path, connect: Callable[[str], apsw.Connection]
) -> None:
    path = str(tmp_path / "p.db")
    migrate_file(path)
    connection = connect(path)
    prepared_anew: list[int] = []

    def ran(event: dict[str, Any]) -> None:
        prepared_anew.append(event["stmt_status"]["SQLITE_STMTSTATUS_REPREPARE"])

    connection.execute(QUERIES["claim: waiting"], ("r", 1, 0, 1)).fetchall()
    connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, ran)
    for limit in range(2, 6):
        connection.execute(QUERIES["claim: waiting"], ("r", 1, 0, limit)).fetchall()
    connection.close()
    assert prepared_anew == [0, 0, 0, 0]
