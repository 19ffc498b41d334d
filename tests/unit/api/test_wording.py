"""What is wrong with a field is said in our words: every type of error that a model can raise is provoked here."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service.api import models, queries
from service.api.problems import field_problems
from service.api.wording import _OBJECTS, KNOWN, sentence

MODELS = [
    each
    for module in (models, queries)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, models.Strict) and each is not models.Strict
]
# each type of JSON, empty, small, and larger than any limit
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 10**9, "", "x", "\x07", "\0", "two words", "x" * 2000, "ä", "\ud800",
    [], [None], [5], ["x"] * 300, [{}], {}, {"x": 5}, {"x": None}, {"x": "x" * 2000}, {"é": "x"}, {"x": ["y"]}, {"email": 5},
    {f"k{number}": "v" for number in range(300)},
]  # fmt: skip
FOREIGN = re.compile(
    r"Input|should|Value error|valid |instance|dictionary|type=|[A-Z][a-z]+In\b|TemplateUse|Query|Mailbox|\bNone\b"
)
OF_PYDANTIC = KNOWN | {"extra_forbidden"}


def nested(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Every field's value, and inside of every model that a field holds."""
    for name, field in model.model_fields.items():
        shown = field.alias or name
        for value in VALUES:
            yield shown, value
        inner = next((each for each in MODELS if each.__name__ in str(field.annotation)), None)
        if inner is not None:
            for step, value in nested(inner):
                yield shown, {step: value}
                yield shown, [{step: value}]
        yield shown + "x", 5


def findings(model: type[BaseModel]) -> Iterator[tuple[set[str], list[str]]]:
    """Types of errors and sentences, for each thing that a caller could hand in."""
    whole: list[Any] = [*VALUES, *({name: value} for name, value in nested(model))]
    for value in whole:
        try:
            model.model_validate(value)
        except ValidationError as error:
            kinds = {each["type"] for each in error.errors(include_url=False)}
            yield kinds, [each.detail for each in field_problems(error, value, model)]


def test_no_sentence_is_pydantics_and_every_type_of_error_is_provoked() -> None:
    provoked: set[str] = set()
    for model in MODELS:
        for kinds, details in findings(model):
            provoked |= kinds
            for detail in details:
                assert FOREIGN.search(detail) is None, (model.__name__, kinds, detail)
                assert detail != sentence("nothing of ours", {}), (model.__name__, kinds)
    assert provoked - {"postroom"} <= OF_PYDANTIC, "a type of error has no sentence"
    assert provoked >= OF_PYDANTIC, "a sentence is for nothing"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_list_in_the_place_of_an_object_is_told_what_an_object_looks_like(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate([])
    (problem,) = field_problems(caught.value, [], model)
    assert problem.pointer == "#"
    assert "object" in problem.detail
    assert model.__name__ not in problem.detail


def test_every_shape_that_is_shown_is_one_of_a_model_that_there_is() -> None:
    assert set(_OBJECTS) <= {each.__name__ for each in MODELS}


def test_a_length_is_one_of_characters_or_of_entries() -> None:
    value = {"name": "", "scopes": [], "from_allowed": ["x"] * 101, "rate": "x" * 31}
    with pytest.raises(ValidationError) as caught:
        models.KeyIn.model_validate(value)
    assert {each.pointer: each.detail for each in field_problems(caught.value, value, models.KeyIn)} == {
        "#/name": "must have at least 1 character",
        "#/scopes": "must have at least 1 entry",
        "#/from_allowed": "must have at most 100 entries",
        "#/rate": "must have at most 30 characters",
    }


def test_a_type_of_error_that_nobody_knew_is_still_said_without_pydantics_words() -> None:
    assert sentence("brand_new", {"error": "Input should be new"}) == "is not what this field takes"
