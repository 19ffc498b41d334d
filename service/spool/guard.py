"""The staging guard and the merging of recipients: who really gets a message.

POSTROOM_REDIRECT_ALL_TO sends everything to one address; POSTROOM_RECIPIENTS_ALLOWED drops all others. Both are shown
on every answer and in /readyz, so that nobody takes a staging system for production.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from service.errors import FieldProblem, PostroomError, ValidationFailed
from service.mail.address import Mailbox, email_key, make_mailbox, parse_domain
from service.mail.compose import Notice

KINDS = ("to", "cc", "bcc")


@dataclass(slots=True)  # not frozen: one is made for each message
class Addressed:
    """One distinct forward-path: where it stands in the request and what it is for."""

    mailbox: Mailbox
    kind: str
    pointer: str


def may_carry(allowed: Iterable[str], email: str) -> bool:
    """Whether `email` is one of the addresses, or in one of the domains, of `allowed`; domains in any script."""
    key = email_key(email)
    return any(entry in (key, key.rpartition("@")[2]) for entry in map(_entry, allowed))


@lru_cache(maxsize=1024)
def _entry(given: str) -> str:
    """An address or a domain as it is compared: its domain in A-labels. What is neither matches nothing."""
    local, at, domain = given.strip().rpartition("@")
    try:
        domain = parse_domain(domain, "allowed")
    except PostroomError:
        return ""
    return email_key(f"{local}@{domain}") if at and local else domain


def merge(to: Sequence[Mailbox], cc: Sequence[Mailbox], bcc: Sequence[Mailbox]) -> list[Addressed]:
    """Each address once, under the first field that names it: duplicates are merged, not refused."""
    seen: set[str] = set()
    merged: list[Addressed] = []
    for kind, mailboxes in zip(KINDS, (to, cc, bcc), strict=True):
        for index, mailbox in enumerate(mailboxes):
            key = email_key(mailbox.email)
            if key not in seen:
                seen.add(key)
                merged.append(Addressed(mailbox, kind, f"#/{kind}/{index}"))
    return merged


class StagingGuard:
    """Decides which forward-paths are really used."""

    def __init__(self, redirect_all_to: str | None, allowed: Sequence[str]) -> None:
        self.redirect = make_mailbox(redirect_all_to, "", "POSTROOM_REDIRECT_ALL_TO") if redirect_all_to else None
        self.allowed = tuple(allowed)

    @property
    def active(self) -> str | None:
        """One line for headers and /readyz, or None."""
        parts = []
        if self.redirect:
            parts.append(f"redirect_all_to={self.redirect.email}")
        if self.allowed:
            parts.append(f"recipients_allowed={','.join(self.allowed)}")
        return "; ".join(parts) or None

    def apply(self, recipients: Sequence[Addressed]) -> tuple[list[Addressed], list[Notice]]:
        """The forward-paths to use, and what was changed.

        Raises ValidationFailed when nobody is left. Header fields keep the addresses that were asked for.
        """
        notices: list[Notice] = []
        kept = list(recipients)
        if self.allowed:
            kept = [each for each in recipients if may_carry(self.allowed, each.mailbox.email)]
            notices = [
                Notice(each.pointer, "recipient_not_allowed", "dropped by POSTROOM_RECIPIENTS_ALLOWED")
                for each in recipients
                if each not in kept
            ]
            if not kept:
                raise ValidationFailed(
                    "This is a staging system: none of the recipients is in POSTROOM_RECIPIENTS_ALLOWED.",
                    errors=[FieldProblem(each.pointer, each.code, each.detail) for each in notices],
                )
        if self.redirect:
            first = kept[0]
            notices.append(
                Notice(first.pointer, "redirected", f"sent to {self.redirect.email} instead of the recipients")
            )
            kept = [Addressed(self.redirect, "to", first.pointer)]
        return kept, notices
