"""The committed document is the one that the code makes."""

import json
from pathlib import Path

from service.api.openapi import document
from service.api.table import OPERATIONS

COMMITTED = Path(__file__).resolve().parents[2] / "openapi" / "openapi.json"


def test_the_committed_document_is_current() -> None:
    made = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    assert COMMITTED.read_text(encoding="utf-8") == made, "run `make openapi` and commit"


def test_operation_ids_are_unique_and_paths_are_said_once() -> None:
    assert len({each.id for each in OPERATIONS}) == len(OPERATIONS)
    assert len({(each.method, each.path) for each in OPERATIONS}) == len(OPERATIONS)


def test_every_operation_that_needs_a_key_can_refuse_one() -> None:
    for each in OPERATIONS:
        codes = {error.code for error in each.all_errors}
        assert (each.scope is None) or {"missing_api_key", "invalid_api_key", "insufficient_scope"} <= codes, each.id
