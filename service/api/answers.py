"""The answers as types: views must build them (the type checker holds them to it), and the OpenAPI document shows them.

Every member that is not marked otherwise is always there; one that may be null says so. What a member means stands at it.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from service.mail.lifecycle import PARTIALLY_SENT, SCHEDULED, State
from service.relay.port import Health, StepState


def _one_of(*words: str) -> Any:
    return Field(json_schema_extra={"enum": list(words)})


Moment = Annotated[str, Field(description="RFC 3339, UTC, milliseconds.", json_schema_extra={"format": "date-time"})]
Kind = Literal["to", "cc", "bcc"]
RecipientStatus = Annotated[str, _one_of(*State)]
Status = Annotated[str, _one_of(SCHEDULED, PARTIALLY_SENT, *State)]
Priority = Annotated[str, _one_of("high", "normal", "low")]


class Fault(TypedDict):
    """What is wrong, or doubtful, and where."""

    pointer: Annotated[str, Field(description="RFC 6901, as a URI fragment.")]
    code: str
    detail: str


class Problem(TypedDict):
    """RFC 9457. `code` is stable; `errors` names every faulty field at once."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: NotRequired[Sequence[Fault]]


# --- sending ----------------------------------------------------------------------------------------------------------


class AcceptedRecipient(TypedDict):
    """One address of a message that was accepted."""

    email: str
    kind: str
    status: RecipientStatus


class Accepted(TypedDict):
    """A message that is stored."""

    id: str
    status: Status
    message_id: Annotated[str, Field(description="The Message-ID field, with its angle brackets.")]
    created_at: Moment
    scheduled_at: Moment | None
    recipients: Sequence[AcceptedRecipient]
    warnings: Sequence[Mapping[str, str]]


class BatchItem(TypedDict):
    """What became of one message of a batch: it has a `message` or an `error`."""

    index: int
    message: NotRequired[Accepted]
    replayed: NotRequired[Annotated[bool, Field(description="It is the kept answer to the same key.")]]
    error: NotRequired[Problem]


class BatchAccepted(TypedDict):
    """What became of the messages of a batch, in order."""

    accepted: int
    refused: int
    results: Sequence[BatchItem]


class HeaderField(TypedDict):
    """A header field as it is written, unfolded."""

    name: str
    value: str


class PlannedRelay(TypedDict):
    """A relay that may carry the message, and how it would leave by it."""

    name: str
    envelope_from: str
    from_rewritten: bool
    dkim: Annotated[Sequence[str], Field(description="Labels of the keys that would sign.")]


class RefusingRelay(TypedDict):
    """A relay that may not carry it, and why."""

    name: str
    errors: Sequence[Fault]


class Finding(TypedDict):
    """Something that the lint found."""

    rule: str
    severity: str
    file: str
    line: int | None
    detail: str


class Preview(TypedDict):
    """What a dry run made."""

    subject: str
    html: str | None
    text: str | None
    headers: Sequence[HeaderField]
    size: Annotated[int, Field(description="Octets.")]
    recipients: Sequence[AcceptedRecipient]
    relays: Sequence[PlannedRelay]
    refusals: Sequence[RefusingRelay]
    template: str | None
    warnings: Sequence[Fault]
    findings: Sequence[Finding]


# --- messages ---------------------------------------------------------------------------------------------------------


class Held(TypedDict):
    """What a waiting recipient waits for."""

    reason: Annotated[str, _one_of("schedule", "retry", "quota", "relay", "connection", "no_relay")]
    relay: str | None
    quota: str | None
    until: Annotated[Moment | None, Field(description="When it goes on, where that is known.")]


class LastReply(TypedDict):
    """What a relay said last."""

    code: int | None
    enhanced_code: str | None
    text: str | None


Recipient = TypedDict(
    "Recipient",
    {
        "email": str,
        "name": str,
        "kind": str,
        "status": RecipientStatus,
        "updated_at": Moment,
        "attempts": Annotated[int, Field(description="Those that count; a fault of a relay or connection costs none.")],
        "attempts_in_doubt": int,
        "next_attempt_at": Moment | None,
        "held_back_by": Annotated[str | None, Field(description="In words for people.")],
        "held_by": Held | None,
        "relay": Annotated[str | None, Field(description="The relay of the last attempt.")],
        "class": Annotated[str | None, Field(description="What the last reply was taken for.")],
        "last_reply": LastReply | None,
        "provider_message_id": Annotated[
            str | None,
            Field(
                description="The relay's own name for it, without < >, read from its reply to the content; null where that "
                "tells none, or in a form that is not known. The whole reply is in `last_reply`."
            ),
        ],
    },
)
Recipient.__doc__ = "One address of a message, and what became of it."

Message = TypedDict(
    "Message",
    {
        "id": str,
        "status": Status,
        "message_id": str,
        "from": str,
        "envelope_from": str,
        "subject": str,
        "template": str | None,
        "tags": Mapping[str, str],
        "metadata": Mapping[str, str],
        "priority": Priority,
        "delivery": Annotated[str, _one_of("at_least_once", "at_most_once")],
        "relay": Annotated[str | None, Field(description="The one that the request named.")],
        "size": Annotated[int, Field(description="Octets.")],
        "created_at": Moment,
        "scheduled_at": Moment | None,
        "expires_at": Moment,
        "closed_at": Moment | None,
        "content_purged_at": Moment | None,
        "recipients": Sequence[Recipient],
        "warnings": Sequence[Mapping[str, str]],
    },
)
Message.__doc__ = "A message and its recipients."


class Event(TypedDict):
    """A line of the delivery log."""

    id: int
    at: Moment
    type: Annotated[str, Field(description="`accepted`, `claim`, `sent`, `refused`, `defer` and others.")]
    recipient: str | None
    attempt: int | None
    data: Annotated[Mapping[str, Any], Field(description="Reply, phase, relay, timings, what was done.")]


class Canceled(TypedDict):
    """What a filter canceled."""

    canceled: int
    messages: Annotated[Sequence[str], Field(description="Their ids.")]


# --- templates --------------------------------------------------------------------------------------------------------


class TemplateDefaults(TypedDict):
    """What a message by this template has unless the request says otherwise."""

    ttl: Annotated[float | None, Field(description="Seconds.")]
    priority: Priority | None
    unsubscribe: Annotated[str | None, Field(description="The category that a reader may unsubscribe from.")]


class Template(TypedDict):
    """A template as it is loaded."""

    name: str
    version: Annotated[int | None, Field(description="Null: it is read from the folder, not published.")]
    digest: str
    description: str
    locales: Sequence[str]
    default_locale: str
    variables: Annotated[Mapping[str, Any], Field(description="A JSON Schema.")]
    samples: Annotated[Mapping[str, Mapping[str, Any]], Field(description="Variables, by language.")]
    defaults: TemplateDefaults


class TemplateCheck(TypedDict):
    """What the lint found in a template."""

    ok: Annotated[bool, Field(description="No finding is an error.")]
    findings: Sequence[Finding]


class PublishedTemplate(Template, TemplateCheck):
    """A template that was published, and what the lint found in it."""


class TemplateVersion(TypedDict):
    """One version of a template."""

    name: str
    version: int
    digest: str
    created_at: Moment


class Rendered(TypedDict):
    """The words of a message."""

    name: str
    version: int | None
    locale: str
    subject: str
    html: str
    text: str | None


class LoadedTemplate(TypedDict):
    """A template that can be used."""

    name: str
    version: int | None


class TemplatesReloaded(TypedDict):
    """What is loaded, and what was refused."""

    templates: Sequence[LoadedTemplate]
    refused: Sequence[Fault]


# --- suppressions, relays, keys ---------------------------------------------------------------------------------------


class Suppression(TypedDict):
    """Why an address gets no mail."""

    email: str
    reason: Annotated[str, _one_of("bad_address", "complaint", "unsubscribe", "manual")]
    origin: Annotated[str, _one_of("delivery", "api", "bounce")]
    created_at: Moment
    message: Annotated[str | None, Field(description="Id of the message that led to it.")]
    detail: str
    category: Annotated[str | None, Field(description="Only mail of this category is held back.")]


class Trouble(TypedDict):
    """Something that keeps an account from sending."""

    kind: str
    at: Moment
    until: Moment | None
    probe: Annotated[bool, Field(description="It stands after `until` too, until a login succeeds.")]
    times: Annotated[int, Field(description="How often in a row.")]
    reason: str


class QuotaLeft(TypedDict):
    """How much of a quota is left. Those of a recipient or a domain have a count for each, which is null here."""

    quota: str
    per: Annotated[str, _one_of("relay", "recipient", "domain")]
    unit: Annotated[str, _one_of("messages", "recipients")]
    limit: int
    used: int | None
    in_flight: int | None
    left: int | None
    left_for_high: int | None
    next_free_at: Moment | None
    next_free_at_for_high: Moment | None


class Relay(TypedDict):
    """A relay as all processes see it."""

    name: str
    host: str
    port: int
    tls: str
    preset: str | None
    health: Annotated[str, _one_of(*Health)]
    account: str
    same_account: Annotated[Sequence[str], Field(description="Relays that share its login, quotas and troubles.")]
    reason: str | None
    until: Moment | None
    connections: int
    max_connections: int
    in_flight: int
    sent: Annotated[int, Field(description="Messages since this process began.")]
    last_reply: str | None
    last_error: str | None
    troubles: Sequence[Trouble]
    proven_at: Annotated[Moment | None, Field(description="When a login succeeded last.")]
    prober: Annotated[str | None, Field(description="The process that has the right to try a login.")]
    quotas: Sequence[QuotaLeft]


class RelayEvent(TypedDict):
    """Something that happened to a relay of the account."""

    at: Moment
    kind: str
    relay: str
    detail: str | None


class RelayWithEvents(Relay):
    """A relay, and what happened to it."""

    events: Sequence[RelayEvent]


class CheckStep(TypedDict):
    """One step of a relay's check."""

    name: str
    ok: bool
    state: Annotated[str, _one_of(*StepState)]
    milliseconds: float | None
    detail: str
    hint: str | None


class Check(TypedDict):
    """A relay's check."""

    ok: bool
    steps: Sequence[CheckStep]


class Key(TypedDict):
    """An API key, without its secret."""

    id: str
    account: str
    name: str
    prefix: str
    scopes: Sequence[str]
    from_allowed: Sequence[str]
    rate: str | None
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None


class NewKey(Key):
    """An API key with its secret, which is shown this once."""

    key: str


# --- operation --------------------------------------------------------------------------------------------------------


class Alive(TypedDict):
    """The process runs."""

    status: Literal["alive"]


class Ready(TypedDict):
    """Whether the process takes requests, and what it looked at."""

    status: Annotated[str, _one_of("ready", "not_ready")]
    role: str
    checks: Mapping[str, str]
    sending: Annotated[str, _one_of("on", "held")]
    guard: Annotated[str | None, Field(description="What the staging guard does to recipients.")]
    waiting_recipients: int


# --- pages ------------------------------------------------------------------------------------------------------------


Next = Annotated[str | None, Field(description="Goes into `after` for the following page.")]


class Page(TypedDict):
    """A page of a list, whatever its entries are; the document has one for each kind."""

    data: Sequence[Any]
    next: Next


class MessagePage(TypedDict):
    """Messages, newest first."""

    data: Sequence[Message]
    next: Next


class EventPage(TypedDict):
    """The delivery log of a message."""

    data: Sequence[Event]
    next: Next


class TemplatePage(TypedDict):
    """Templates."""

    data: Sequence[Template]
    next: Next


class TemplateVersionPage(TypedDict):
    """Versions of a template, newest first."""

    data: Sequence[TemplateVersion]
    next: Next


class SuppressionPage(TypedDict):
    """Suppressions."""

    data: Sequence[Suppression]
    next: Next


class RelayPage(TypedDict):
    """Relays."""

    data: Sequence[Relay]
    next: Next


class KeyPage(TypedDict):
    """API keys."""

    data: Sequence[Key]
    next: Next


MessageOrPreview = Message | Preview


def schemas(names: Sequence[str], template: str) -> dict[str, Any]:
    """The JSON Schema of each of these answers, with those that they refer to. template: of a reference, with `{model}`."""
    adapters = [(name, "serialization", TypeAdapter(globals()[name])) for name in names]
    made, definitions = TypeAdapter.json_schemas(adapters, ref_template=template)  # type: ignore[arg-type]
    found = dict(definitions.get("$defs", {}))
    for (name, _), schema in made.items():
        found.setdefault(str(name), schema)
    return found
