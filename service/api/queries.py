"""Query parameters of the lists."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from service.api.fields import Line
from service.api.models import FilterIn, Strict

MAX_PAGE = 200
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]
Cursor = Annotated[Line, StringConstraints(min_length=1, max_length=254)]


class ListQuery(FilterIn):
    """GET /messages: conditions and page. Metadata is written `metadata.KEY=value`."""

    limit: Limit = Field(50, description="Entries of a page.")
    after: Cursor | None = Field(None, description="`next` of the page before.")


class SuppressionQuery(Strict):
    """GET /suppressions."""

    reason: Literal["bad_address", "complaint", "unsubscribe", "manual"] | None = None
    limit: Limit = Field(50, description="Entries of a page.")
    after: Cursor | None = Field(None, description="`next` of the page before.")


class ReasonQuery(Strict):
    """DELETE /suppressions/{email}."""

    reason: Literal["bad_address", "complaint", "unsubscribe", "manual"] | None = Field(
        None, description="Only this reason; default: all."
    )
    category: Annotated[Line, StringConstraints(max_length=64)] | None = Field(
        None, description="Only unsubscribes from this category; default: all."
    )


def _as_flag(value: object) -> object:
    """A query is text; what is neither is left to the model, which refuses it."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


class CheckQuery(Strict):
    """POST /relays/{name}/check."""

    force: Annotated[bool, BeforeValidator(_as_flag)] = Field(
        False,
        description="Log in though the account rests after a refused login: at most once in"
        " POSTROOM_CHECK_FORCE_INTERVAL (60 s), counted from the last refusal.",
    )
    from_: Annotated[Line, StringConstraints(max_length=254)] | None = Field(
        None, alias="from", description="The address for MAIL FROM; default: one that the relay would carry."
    )
