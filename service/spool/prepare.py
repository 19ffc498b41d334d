"""From a submission to what is stored: a pipeline of small steps over one value, all before the 202.

Recipients are merged and guarded, the suppression list is asked, the template rendered, the message composed and read
again by the gate, and the relays are asked who may carry it (spool/plan), so that refusals are still 422. Nothing here
writes; store.accept is the next step (spool/submit).
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.clock import Clock
from service.errors import (
    AllRecipientsSuppressed,
    ComposeViolation,
    FieldProblem,
    FromNotAllowed,
    PostroomError,
    TemplateVariablesInvalid,
    ValidationFailed,
)
from service.mail.address import email_key
from service.mail.compose import Composed, Notice, compose
from service.mail.dataurls import embed_data_urls
from service.mail.draft import Draft
from service.mail.gate import inspect
from service.mail.lifecycle import State
from service.mail.lint import inline_doubts, lint_message
from service.mail.render import Rendered, Template, TemplateSource
from service.relay.port import Relays
from service.settings import Settings
from service.spool.content import check_content
from service.spool.guard import Addressed, StagingGuard, may_carry, merge
from service.spool.plan import Plan, plan
from service.spool.signing import Signing
from service.spool.suppressing import Suppressions
from service.spool.templates import TemplateLibrary
from service.spool.values import PRIORITIES, Caller, Prepared, Preview, Submission
from service.store.port import Store
from service.store.values import NewMessage, NewRecipient
from service.telemetry import Log, get_logger
from service.tracing import OFF, Tracing

_THREAD_FROM = 512 * 1024  # octets of attachments; encoding more than that would hold up the loop for over 5 ms
_WORDS_WEIGH = 16  # a character of html or text is read and encoded in about the time of so many octets of a file

log = get_logger()


@dataclass(slots=True)  # not frozen: one is made for each message
class _Content:
    subject: str
    html: str | None
    text: str | None
    template: str | None = None  # name@number
    source: TemplateSource | None = None  # its defaults


class Preparer:
    """Makes submissions ready; holds what that needs and no state of its own."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        store: Store,
        templates: TemplateLibrary,
        relays: Relays,
        signing: Signing,
        tracing: Tracing = OFF,
    ) -> None:
        self._settings, self._clock, self._store, self._tracing = settings, clock, store, tracing
        self._templates, self._relays, self._signing = templates, relays, signing
        self.guard = StagingGuard(settings.redirect_all_to, settings.recipients_allowed)

    async def prepare(
        self, submission: Submission, caller: Caller, suppressions: Suppressions | None = None
    ) -> Prepared:
        """All steps. Raises any RequestError that the submission deserves."""
        with self._tracing.step("prepare"):
            return (await self._make(submission, caller, suppressions)).prepared

    async def ask_ahead(self, submissions: Sequence[Submission], caller: Caller) -> Suppressions:
        """What the suppression list says of the recipients of some messages. A fault is told by `prepare`, not here."""
        suppressions = Suppressions(self._store, caller.account)
        keys: dict[str, list[str]] = {}
        categories = {"": ""}  # by template
        with contextlib.suppress(PostroomError):
            for each in submissions:
                name = each.template.name if each.template else ""
                if name not in categories:
                    categories[name] = (await self._templates.get(name)).template.source.category or ""
                asked = keys.setdefault(categories[name], [])
                asked += [email_key(mailbox.email) for mailbox in (*each.to, *each.cc, *each.bcc)]
            await suppressions.ask_ahead(keys)
        return suppressions

    async def preview(self, submission: Submission, caller: Caller) -> Preview:
        """The same, with everything that was made on the way, and what the lint says of it."""
        made = await self._make(submission, caller)
        inline = [
            each.content_id for each in made.draft.attachments if each.content_id and each.disposition == "inline"
        ]
        return replace(
            made,
            headers=header_fields(made.prepared.message.content[0]),
            findings=lint_message(made.draft.subject, made.draft.html, inline),
        )

    async def _make(self, submission: Submission, caller: Caller, suppressions: Suppressions | None = None) -> Preview:
        check_content(submission, self._settings.max_message_bytes)
        self._check_sender(submission, caller)
        addressed, notices = self.guard.apply(merge(submission.to, submission.cc, submission.bcc))
        content = await self._content(submission)
        category = content.source.category if content.source else None
        suppressions = suppressions or Suppressions(self._store, caller.account)
        suppressed = await suppressions.reasons([email_key(each.mailbox.email) for each in addressed], category or "")
        recipients = _new_recipients(addressed, suppressed)
        if category and not submission.unsubscribe_urls:
            detail = f"{content.template} is of the category {category}: give the reader a way to unsubscribe from it"
            notices.append(Notice("#/unsubscribe_url", "unsubscribe_url_missing", detail))
        told = self._clock.told()
        now = min(self._clock.now(), told)
        id = self._clock.new_id("msg_")
        envelope = (submission.envelope_from or "", *[each.email for each in recipients])
        date = max(told, submission.scheduled_at or 0)
        draft = _draft(submission, content, id, date, envelope, self._settings.max_attachments)
        notices += _doubts(draft, content)
        try:
            with self._tracing.step("compose"):
                composed = await _compose(draft)
        except ValidationFailed as fault:
            raise _of_template(fault, submission) from None
        self._inspect(composed, id)
        to_serve = [each.state for each in recipients].count(State.QUEUED)
        found = plan(self._relays, self._signing.ring, submission, composed, draft, to_serve)
        notices += found.notices
        message = self._message(
            submission, caller, content, composed, recipients, draft, (told, now), id, notices, found
        )
        return Preview(Prepared(message, tuple(notices) + composed.warnings), draft, found.able, found.refusals)

    def _check_sender(self, submission: Submission, caller: Caller) -> None:
        if not caller.from_allowed:
            return
        asked = [("#/from", submission.from_.email)]
        if submission.envelope_from:
            asked.append(("#/envelope_from", submission.envelope_from))
        if submission.sender:
            asked.append(("#/sender", submission.sender.email))
        wrong = [
            FieldProblem(pointer, "from_not_allowed", f"{email} is not among the addresses this key may send from")
            for pointer, email in asked
            if not may_carry(caller.from_allowed, email)
        ]
        if wrong:
            raise FromNotAllowed(errors=wrong)

    async def _content(self, submission: Submission) -> _Content:
        use = submission.template
        if use is None:
            return _Content(submission.subject or "", submission.html, submission.text)
        loaded = await self._templates.get(use.name)
        check_variables(loaded.template, use.variables, "/template/variables")
        with self._tracing.step("render", {"postroom.template": loaded.label}):
            rendered = self.render(loaded.template, use.variables, use.locale)
        return _Content(
            submission.subject if submission.subject is not None else rendered.subject,
            rendered.html,
            rendered.text,
            loaded.label,
            loaded.template.source,
        )

    def render(self, template: Template, variables: Mapping[str, Any], locale: str | None) -> Rendered:
        """Render within the limits. Raises TemplateRenderError."""
        return template.render(
            variables,
            locale,
            deadline=self._clock.monotonic() + self._settings.render_timeout,
            monotonic=self._clock.monotonic,
            max_bytes=self._settings.max_rendered_bytes,
            timezone=self._settings.timezone,
        )

    def _inspect(self, composed: Composed, id: str) -> None:
        try:
            inspect(composed)
        except ComposeViolation as violation:
            log.error(Log.ALERT_COMPOSE, id=id, detail=violation.detail)
            raise

    def _message(
        self,
        submission: Submission,
        caller: Caller,
        content: _Content,
        composed: Composed,
        recipients: tuple[NewRecipient, ...],
        draft: Draft,
        times: tuple[int, int],
        id: str,
        notices: list[Notice],
        found: Plan,
    ) -> NewMessage:
        told, now = times  # see service/steady.py
        defaults = content.source
        ttl = submission.ttl or (defaults and defaults.ttl) or self._settings.default_ttl
        ttl = min(ttl, self._settings.max_ttl)
        priority = submission.priority or (defaults and defaults.priority) or "normal"
        return NewMessage(
            id=id,
            account=caller.account,
            message_id=draft.message_id,
            created_at=told,
            scheduled_at=submission.scheduled_at,
            due_at=max(now, submission.scheduled_at or 0),
            expires_at=draft.date + int(ttl * 1000),
            priority=PRIORITIES[priority],
            delivery=submission.delivery,
            route=found.route(caller.account, submission, sender_decides=self._relays.sender_decides()).key,
            relay=submission.relay,
            from_email=submission.from_.email,
            envelope_from=submission.envelope_from or submission.from_.email,
            subject=content.subject,
            template=content.template,
            category=(content.source and content.source.category) or "",
            tags=submission.tags,
            metadata=submission.metadata,
            smtputf8=composed.smtputf8,
            dsn=submission.dsn,
            size=composed.size,
            content=composed.segments,
            recipients=recipients,
            warnings=tuple(
                [
                    {"pointer": each.pointer, "code": each.code, "detail": each.detail}
                    for each in (*notices, *composed.warnings)
                ]
            ),
        )


def check_variables(template: Template, variables: Mapping[str, Any], pointer: str) -> None:
    """Raises TemplateVariablesInvalid with every fault."""
    if problems := template.check(variables, pointer):
        raise TemplateVariablesInvalid(errors=problems)


def _new_recipients(addressed: list[Addressed], reasons: Mapping[str, str]) -> tuple[NewRecipient, ...]:
    recipients = tuple(
        [
            NewRecipient(
                each.mailbox.email,
                each.mailbox.name,
                each.kind,
                State.SUPPRESSED if reasons and email_key(each.mailbox.email) in reasons else State.QUEUED,
            )
            for each in addressed
        ]
    )
    if reasons and all(each.state is State.SUPPRESSED for each in recipients):
        raise AllRecipientsSuppressed(
            errors=[
                FieldProblem(
                    each.pointer, "suppressed", f"{each.mailbox.email}: {reasons[email_key(each.mailbox.email)]}"
                )
                for each in addressed
            ]
        )
    return recipients


def _draft(
    submission: Submission, content: _Content, id: str, date: int, envelope: tuple[str, ...], most_attachments: int
) -> Draft:
    ulid = id.removeprefix("msg_").lower()
    html, attachments = content.html, submission.attachments
    if submission.embed_data_urls and html is not None:
        html, images = embed_data_urls(html, ulid, most_attachments - len(attachments) + 1)
        attachments += images
        if len(attachments) > most_attachments:
            detail = f"with its images there are more than {most_attachments} attachments (POSTROOM_MAX_ATTACHMENTS)"
            raise ValidationFailed(errors=[FieldProblem("#/html", "too_many", detail)])
    return Draft(
        from_=submission.from_,
        to=submission.to,
        cc=submission.cc,
        bcc=submission.bcc,
        reply_to=submission.reply_to,
        sender=submission.sender,
        subject=content.subject,
        html=html,
        text=content.text,
        amp=submission.amp,
        alternatives=submission.alternatives,
        attachments=attachments,
        calendar=submission.calendar,
        headers=submission.headers,
        in_reply_to=submission.in_reply_to,
        references=submission.references,
        unsubscribe_urls=submission.unsubscribe_urls,
        importance=submission.importance,
        auto_submitted=submission.auto_submitted,
        envelope=envelope,
        message_id=f"{ulid}@{submission.from_.email.rpartition('@')[2]}",
        date=date,
        boundary_seed=ulid,
    )


def _doubts(draft: Draft, content: _Content) -> list[Notice]:
    """What is likely a mistake and yet a message; the whole lint is for a dry run."""
    notices: list[Notice] = []
    if not draft.subject.strip():
        detail = "the subject is empty: such a mail looks like junk, to people and to filters"
        notices.append(Notice("#/subject", "empty_subject", detail))
    if not draft.attachments and "cid:" not in (draft.html or ""):
        return notices
    ids = {each.content_id: index for index, each in enumerate(draft.attachments) if each.content_id}
    inline = [id for id, index in ids.items() if draft.attachments[index].disposition == "inline"]
    missing, unused = inline_doubts(draft.html, ids, inline)
    place = "#/html" if content.template is None else "#/template"
    notices += [
        Notice(place, "missing_inline_image", f"cid:{id[:60]} names no attachment with that content_id")
        for id in missing
    ]
    return notices + [
        Notice(f"#/attachments/{ids[id]}/content_id", "unused_inline_image", f"the html shows no cid:{id[:60]}")
        for id in unused
    ]


def _of_template(fault: ValidationFailed, submission: Submission) -> ValidationFailed:
    """A fault of words that a template made is a fault of its variables: the request has no such field."""
    if submission.template is None:
        return fault
    made = {"#/html", "#/text"} | ({"#/subject"} if submission.subject is None else set())
    problems = [
        replace(each, pointer="#/template/variables", detail=f"{each.pointer[2:]}: {each.detail}")
        if each.pointer in made
        else each
        for each in fault.errors
    ]
    return type(fault)(errors=problems)


async def _compose(draft: Draft) -> Composed:
    words = len(draft.html or "") + len(draft.text or "") + len(draft.amp or "")
    if sum(len(each.content) for each in draft.attachments) + words * _WORDS_WEIGH > _THREAD_FROM:
        return await asyncio.to_thread(compose, draft)
    return compose(draft)


def header_fields(head: bytes) -> list[tuple[str, str]]:
    """The header block of composed bytes, unfolded, as (name, value)."""
    block = head.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
    unfolded = block.replace("\r\n ", " ").replace("\r\n\t", "\t")
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in unfolded.split("\r\n"))]
