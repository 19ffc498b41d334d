"""The committed document is the one that the code makes."""

import json
import re
from pathlib import Path

from jsonschema import Draft202012Validator

from service.api.openapi import document
from service.api.table import OPERATIONS
from service.mail.render import load_template

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


def test_every_time_to_come_in_the_examples_lies_far_ahead() -> None:
    made = document()
    for model in ("SendIn", "RescheduleIn"):
        assert "2099-" in json.dumps(made["components"]["schemas"][model]["properties"]["scheduled_at"])
    assert re.findall(r'"scheduled_at": "(?!2099-)', json.dumps(made)) == []


def test_the_files_of_a_template_in_the_examples_are_a_template() -> None:
    examples = document()["components"]["schemas"]["FilesIn"]["properties"]["files"]["examples"]
    assert [load_template("hello", files).name for files in examples] == ["hello"]


def test_an_address_in_a_path_is_said_to_be_bare() -> None:
    (place,) = [
        each for each in document()["paths"]["/suppressions/{email}"]["get"]["parameters"] if each["in"] == "path"
    ]
    taken = Draft202012Validator(place["schema"]).is_valid
    assert all(map(taken, ["a@example.org", "a/b@example.org", "用户@例子.公司"]))
    assert not any(map(taken, ["Ada <a@example.org>", "example.org", "a@b@example.org", "a" * 250 + "@x.org"]))
