"""null is absent: for every field that may be absent, in the models and in the schema that tells of them."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from service.api import models
from service.api.models import Strict
from service.api.openapi import document

LEAST: dict[type[BaseModel], dict[str, Any]] = {
    models.TemplateUse: {"name": "welcome"},
    models.AttachmentIn: {"filename": "a.txt"},
    models.CalendarIn: {"method": "REQUEST", "content": "BEGIN:VCALENDAR"},
    models.AlternativeIn: {"content_type": "text/markdown", "content": "x"},
    models.DsnIn: {},
    models.SendIn: {"from": "a@example.com"},
    models.BatchItemIn: {"from": "a@example.com"},
    models.BatchIn: {"messages": [{}]},
    models.RescheduleIn: {"scheduled_at": "2099-01-01T00:00:00Z"},
    models.FilterIn: {},
    models.RenderIn: {},
    models.FilesIn: {"files": {"a": "b"}},
    models.PublishIn: {},
    models.SendTestIn: {"from": "a@example.com", "to": "b@example.org"},
    models.SuppressionIn: {"email": "a@example.com"},
    models.PauseIn: {},
    models.KeyIn: {"name": "shop"},
}
KINDS = [
    kind for kind in vars(models).values() if isinstance(kind, type) and issubclass(kind, Strict) and kind is not Strict
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_that_may_be_absent_may_be_null_and_is_as_if_absent(kind: type[Strict]) -> None:
    absent = kind.model_validate(LEAST[kind])
    for name, field in kind.model_fields.items():
        if not field.is_required():
            assert kind.model_validate({**LEAST[kind], field.alias or name: None}) == absent, name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_must_be_there_must_not_be_null_and_what_is_not_known_is_not_known_as_null(kind: type[Strict]) -> None:
    for name, field in kind.model_fields.items():
        if field.is_required():
            with pytest.raises(ValidationError):
                kind.model_validate({**LEAST[kind], field.alias or name: None})
    with pytest.raises(ValidationError, match="extra_forbidden"):
        kind.model_validate({**LEAST[kind], "nothing_of_ours": None})


@pytest.mark.parametrize(
    "name", [kind.__name__ for kind in KINDS if kind.__name__ in document()["components"]["schemas"]]
)
def test_the_schema_takes_null_where_the_field_may_be_absent_and_nowhere_else(name: str) -> None:
    made = document()
    schema = made["components"]["schemas"][name]
    for field, each in schema["properties"].items():
        taken = Draft202012Validator({**each, "components": made["components"]}).is_valid(None)
        if each != {}:
            assert taken is (field not in schema.get("required", ())), field
