"""What a draft asks for, said as a reader of mail would say it. Written from the API's promises, not from the composer."""

import hashlib

from service.mail.draft import Attachment, Draft
from tests.support.oracles import File, Reading


def asked(draft: Draft) -> Reading:
    """The reading that a draft asks for, for texts that are given and names that need no cleaning."""
    related = [
        each
        for each in draft.attachments
        if each.disposition == "inline" and each.content_id and draft.html is not None
    ]
    mixed = [each for each in draft.attachments if each not in related]
    if draft.calendar:
        mixed.append(Attachment(draft.calendar.filename, draft.calendar.content.encode(), "text/calendar"))
    alternatives = [(each.content_type, lf(each.content)) for each in draft.alternatives]
    alternatives += [("text/x-amp-html", lf(draft.amp))] if draft.amp is not None else []
    return Reading(
        subject=draft.subject,
        mailboxes={
            name: tuple((each.name, each.email) for each in mailboxes)
            for name, mailboxes in (
                ("from", (draft.from_,)),
                ("sender", (draft.sender,) if draft.sender else ()),
                ("to", draft.to),
                ("cc", draft.cc),
                ("reply-to", draft.reply_to),
            )
        },
        headers=tuple(sorted(asked_headers(draft))),
        text=lf(draft.text or ""),
        html=lf(draft.html or ""),
        files=tuple(asked_file(each) for each in (*related, *mixed)),
        calendar=(draft.calendar.method, lf(draft.calendar.content)) if draft.calendar else None,
        alternatives=tuple(alternatives),
    )  # fmt: skip


def asked_file(attachment: Attachment) -> File:
    digest = hashlib.sha256(attachment.content).hexdigest()
    assert attachment.content_type is not None
    return File(attachment.filename, attachment.content_type, digest, attachment.content_id, attachment.disposition)


def asked_headers(draft: Draft) -> list[tuple[str, str]]:
    fields = [
        ("date", "Mon, 24 Nov 2025 16:00:00 +0000"),
        ("message-id", f"<{draft.message_id}>"),
        ("subject", draft.subject),
        ("mime-version", "1.0"),
        *((name.lower(), value) for name, value in draft.headers),
    ]
    if draft.auto_submitted:
        fields.append(("auto-submitted", "auto-generated"))
    if draft.in_reply_to:
        fields.append(("in-reply-to", draft.in_reply_to))
    if draft.references:
        fields.append(("references", " ".join(draft.references)))
    if draft.unsubscribe_urls:
        fields.append(("list-unsubscribe", ", ".join(f"<{each}>" for each in sorted(draft.unsubscribe_urls))))
        if any(each.startswith("https:") for each in draft.unsubscribe_urls):
            fields.append(("list-unsubscribe-post", "List-Unsubscribe=One-Click"))
    if draft.importance:
        fields.append(("importance", draft.importance))
        fields.append(("x-priority", {"high": "1", "normal": "3", "low": "5"}[draft.importance]))
    return fields


def lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
