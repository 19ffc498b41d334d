"""The request bodies. Strict: an unknown field is a fault, a number is no text; all faults are told at once.

null is read as absent wherever a field may be absent: serializers of many languages write it for what has no value.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from service.api.examples import TEMPLATE_FILES
from service.api.fields import (
    Address,
    Addresses,
    Base64,
    Body,
    Category,
    Duration,
    HeaderValues,
    Key,
    Line,
    Locale,
    Metadata,
    Moment,
    Notify,
    OneOrTwoLines,
    References,
    Tags,
)
from service.mail.compose import MAX_SUBJECT


class Strict(BaseModel):
    """No coercion, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)
    _may_be_absent: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **named: Any) -> None:
        super().__pydantic_init_subclass__(**named)
        optional = [(name, field.alias) for name, field in cls.model_fields.items() if not field.is_required()]
        cls._may_be_absent = frozenset(name for names in optional for name in names if name is not None)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict) or None not in value.values():
            return value
        return {name: each for name, each in value.items() if each is not None or name not in cls._may_be_absent}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler(schema)
        whole = handler.resolve_ref_schema(made)
        for name, each in whole.get("properties", {}).items():
            if name not in whole.get("required", ()):
                whole["properties"][name] = _nullable(each)
        return made


_NULL = {"type": "null"}
_OF_THE_FIELD = frozenset({"title", "description", "default", "examples"})  # not of one of the forms of its value


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema: what is taken by `schema`, or null."""
    about = {name: each for name, each in schema.items() if name in _OF_THE_FIELD}
    form = {name: each for name, each in schema.items() if name not in _OF_THE_FIELD}
    forms = form["anyOf"] if set(form) == {"anyOf"} else [form]
    return {**about, "anyOf": forms if _NULL in forms else [*forms, _NULL]}


class TemplateUse(Strict):
    """Which template renders the message."""

    name: Annotated[Line, StringConstraints(min_length=1, max_length=80)] = Field(
        description="Name, or `name@version`.", examples=["verify-email"]
    )
    variables: dict[str, Any] = Field(default_factory=dict, description="Checked against the template's JSON Schema.")
    locale: Locale | None = Field(
        None, description="BCP 47 tag; the nearest language there is is used.", examples=["zh-CN"]
    )


class AttachmentIn(Strict):
    """A file, inside the request: there is no attaching by URL or path."""

    filename: Annotated[Line, StringConstraints(min_length=1, max_length=1000)]
    content: Base64 | None = Field(None, description="The file in standard base64.")
    text: Body | None = Field(None, description="The file as text, instead of `content`; it is written in UTF-8.")
    content_type: Annotated[Line, StringConstraints(max_length=250)] | None = Field(
        None, description="Media type; guessed from the file name when absent."
    )
    content_id: Annotated[Line, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="For inline images: `cid:` in the html."
    )
    disposition: Literal["attachment", "inline"] | None = Field(
        None, description="Default: inline when there is a content_id."
    )


class CalendarIn(Strict):
    """An invitation."""

    method: Literal["REQUEST", "CANCEL", "REPLY", "PUBLISH", "ADD", "COUNTER", "REFRESH", "DECLINECOUNTER"]
    content: Annotated[Body, StringConstraints(min_length=1)] = Field(
        description="iCalendar (RFC 5545), from BEGIN:VCALENDAR to END:VCALENDAR; a METHOD in it must equal `method`."
    )
    filename: Annotated[Line, StringConstraints(min_length=1, max_length=255)] = "invite.ics"


class AlternativeIn(Strict):
    """The message in one more text format."""

    content_type: Annotated[Line, StringConstraints(max_length=100)] = Field(examples=["text/markdown"])
    content: Body


class DsnIn(Strict):
    """Delivery status notifications (RFC 3461). They go to `envelope_from`."""

    notify: Notify = Field(
        default_factory=list,
        description="On what later relays report; `never` stands alone. Default: as they do by themselves.",
    )
    return_: Literal["full", "headers"] | None = Field(
        None, alias="return", description="How much of the message a report carries."
    )


class SendIn(Strict):
    """One message. An address is `"a@b"`, `"Name <a@b>"` or `{"email", "name"}`; one or a list everywhere."""

    from_: Address = Field(alias="from")
    to: Addresses = Field(default_factory=list)
    cc: Addresses = Field(default_factory=list)
    bcc: Addresses = Field(default_factory=list, description="Never written into the message.")
    reply_to: Addresses = Field(default_factory=list)
    sender: Address | None = None
    envelope_from: Address | None = Field(None, description="MAIL FROM; default: the address in `from`.")
    subject: Annotated[Line, StringConstraints(max_length=MAX_SUBJECT)] | None = Field(
        None, description="Required without a template; with one it overrides the template's subject."
    )
    html: Body | None = None
    text: Body | None = Field(None, description="Derived from html when absent.")
    amp: Body | None = Field(None, description="AMP for Email, beside html.")
    alternatives: list[AlternativeIn] = Field(
        default_factory=list, max_length=10, description="Further text formats of the same words."
    )
    embed_data_urls: bool = Field(
        False, description="Turn `data:` images of the html into inline attachments, which readers show."
    )
    template: TemplateUse | None = Field(None, description="Instead of html and text.")
    attachments: list[AttachmentIn] = Field(default_factory=list)
    calendar: CalendarIn | None = None
    headers: dict[str, HeaderValues] = Field(
        default_factory=dict,
        description="Further header fields, a list for one that stands several times; those that are ours are refused.",
    )
    tags: Tags = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    scheduled_at: Moment | None = Field(
        None, description="Send at this time, not before; at most POSTROOM_MAX_SCHEDULE ahead (90 days by default)."
    )
    ttl: Duration | None = Field(
        None,
        description="Give up after this; counts from the scheduled time. Default: the template's, else the service's.",
    )
    priority: Literal["high", "normal", "low"] | None = Field(
        None, description="The lane in our queue. Default: the template's, else normal."
    )
    importance: Literal["high", "normal", "low"] | None = Field(
        None, description="A mark for the reader: X-Priority and Importance."
    )
    relay: Annotated[Line, StringConstraints(min_length=1, max_length=64)] | None = Field(
        None, description="Send by this relay and no other."
    )
    delivery: Literal["at_least_once", "at_most_once"] = Field(
        "at_least_once", description="What to do when a relay's answer to the content is lost."
    )
    unsubscribe_url: OneOrTwoLines = Field(
        default_factory=list, description="https, mailto, or one of each; writes List-Unsubscribe (RFC 2369, RFC 8058)."
    )
    dsn: DsnIn | None = Field(
        None, description="Ask later relays for delivery reports, where the relay that takes the message offers DSN."
    )
    in_reply_to: Annotated[Line, StringConstraints(max_length=500)] | None = None
    references: References = Field(default_factory=list, description="Message-IDs of the thread, oldest first.")
    auto_submitted: bool = Field(
        True, description="Write `Auto-Submitted: auto-generated` (RFC 3834); false for mail that a person caused."
    )


class BatchItemIn(SendIn):
    """A message of a batch, with an idempotency key of its own."""

    idempotency_key: Key | None = None


# what is no object is a fault of that item, not of the batch
_Item = Annotated[Any, WithJsonSchema({"additionalProperties": True, "type": "object"})]


class BatchIn(Strict):
    """Up to 500 messages; what `base` has is the default for each."""

    base: dict[str, Any] = Field(default_factory=dict, description="Fields of a message that all have in common.")
    messages: list[_Item] = Field(min_length=1)


class RescheduleIn(Strict):
    """The new time."""

    scheduled_at: Moment


class FilterIn(Strict):
    """Conditions that hold together; also the query of GET /messages."""

    status: (
        Literal[
            "scheduled", "queued", "sending", "deferred", "sent", "bounced", "failed", "expired", "suppressed", "canceled",
            "unknown", "delivered", "complained",
        ]
        | None
    ) = Field(None, description="Messages with a recipient in this state.")  # fmt: skip
    recipient: Annotated[Line, StringConstraints(max_length=254)] | None = None
    from_: Annotated[Line, StringConstraints(max_length=254)] | None = Field(None, alias="from")
    tag: Annotated[Line, StringConstraints(max_length=330)] | None = Field(None, description="`name` or `name:value`.")
    metadata: dict[str, str] = Field(default_factory=dict, max_length=5)
    template: Annotated[Line, StringConstraints(max_length=80)] | None = Field(
        None, description="`name` or `name@version`."
    )
    relay: Annotated[Line, StringConstraints(max_length=64)] | None = None
    message_id: Annotated[Line, StringConstraints(max_length=500)] | None = Field(
        None, description="RFC 5322 Message-ID."
    )
    provider_message_id: Annotated[Line, StringConstraints(max_length=500)] | None = Field(
        None, description="The relay's own name for it, with or without < >."
    )
    since: Moment | None = None
    until: Moment | None = None


class RenderIn(Strict):
    """Variables to preview a template with."""

    variables: dict[str, Any] | None = Field(None, description="Default: the template's sample.")
    locale: Locale | None = None


class FilesIn(Strict):
    """The files of a template."""

    files: dict[str, Body] = Field(
        min_length=1,
        max_length=200,
        description="Path inside the template's folder and its text: `template.toml`, `html.j2` or `html.mjml`, `text.j2`, "
        "`locales/zh-CN/...`, and layouts of its own as `_layouts/NAME.j2`.",
        examples=[TEMPLATE_FILES],
    )


class PublishIn(Strict):
    """The files of a template; without them a first form to start from is published."""

    files: dict[str, Body] | None = Field(None, max_length=200, description=FilesIn.model_fields["files"].description)


class SendTestIn(Strict):
    """To whom a template is sent with its sample data."""

    from_: Address = Field(alias="from")
    to: Addresses = Field(min_length=1)
    variables: dict[str, Any] | None = Field(None, description="Default: the template's sample.")
    locale: Locale | None = None
    relay: Annotated[Line, StringConstraints(min_length=1, max_length=64)] | None = None


class SuppressionIn(Strict):
    """An address that shall get no mail."""

    email: Address
    reason: Literal["bad_address", "complaint", "unsubscribe", "manual"] = "manual"
    category: Category | None = Field(
        None, description="With `unsubscribe`: only messages of templates of this category are held back."
    )
    detail: Annotated[Line, StringConstraints(max_length=500)] = ""


class PauseIn(Strict):
    """Why a relay is held."""

    reason: Annotated[Line, StringConstraints(max_length=200)] = "paused by an operator"


class KeyIn(Strict):
    """A new API key."""

    name: Annotated[Line, StringConstraints(min_length=1, max_length=100)]
    scopes: list[Literal["send", "read", "content", "admin"]] = Field(
        ["send", "read"],
        min_length=1,
        max_length=4,
        description="content: read bytes; admin: the operator's right, over the keys of the account, and over relays and"
        " templates of the whole service, whatever the account.",
    )
    from_allowed: list[Annotated[Line, StringConstraints(min_length=1, max_length=254)]] = Field(
        default_factory=list,
        max_length=100,
        description="Addresses or domains that `from`, `sender` and `envelope_from` must be of, not `reply_to`; empty: any.",
    )
    rate: Annotated[str, StringConstraints(max_length=30)] | None = Field(
        None, description="Messages, for example `100/s` or `1000/h`.", examples=["100/s"]
    )
    expires_at: Moment | None = None
