"""What becomes of an attempt whose sender died or lost its lease (DESIGN: in doubt, poison). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.mail.lifecycle import Event
from service.mail.outcome import Action, Scope
from service.store.values import RecipientSettlement, RescuePolicy, Settlement


@dataclass(slots=True)
class Orphan:
    """An open attempt that nobody works on, and its message."""

    attempt: int
    message: int  # row number
    content_started_at: int | None
    ahead: bool
    id: str
    account: str
    delivery: str
    kills: int  # before this one
    expires_at: int

    @property
    def untouched(self) -> bool:
        """Whether the relay can't have seen the content: it was to be marked before it started, and is not."""
        return (self.delivery == "at_most_once" or self.ahead) and self.content_started_at is None

    @property
    def may_have_killed(self) -> bool:
        """Whether its own mail transaction may have been under way when the sender died.

        One that was claimed ahead waits for a session that is busy with another message: that one is the suspect. It
        is marked when its turn comes; one that kills before that is claimed for a free session sooner or later.
        """
        return not self.ahead or self.content_started_at is not None


def settle_orphan(orphan: Orphan, held: Sequence[tuple[int, int]], now: int, policy: RescuePolicy) -> Settlement:
    """Close it. `held`: each recipient's place and its attempts in doubt before this one."""
    untouched, poison = orphan.untouched, orphan.may_have_killed and orphan.kills + 1 >= policy.max_kills
    due_at = min(now + int(policy.in_doubt_delay * 1000), orphan.expires_at)
    results: list[RecipientSettlement] = []
    for n, in_doubt in held:
        kind, text = "in-doubt", "the sender died or lost its lease before the result was recorded"
        if poison:
            event, action, charged, due, doubt = Event.FAULT, Action.FAILED, True, None, not untouched
            kind = "poison"
        elif untouched:
            event, action, charged, due, doubt = Event.NOT_STARTED, Action.BACK, False, now, False
            kind = "not-started"
        elif orphan.delivery == "at_most_once" or in_doubt >= policy.max_in_doubt:
            event, action, charged, due, doubt = Event.PARK, Action.DOUBT, True, None, True
        else:
            event, action, charged, due, doubt = Event.IN_DOUBT, Action.DOUBT, True, due_at, True
        whose, done = Scope.MESSAGE.value, action.value
        results.append(
            RecipientSettlement(n, event, kind, "rescue", charged, due, doubt, text=text, scope=whose, action=done)
        )
    result = "not_started" if untouched and not poison else "in_doubt"
    return Settlement(orphan.attempt, orphan.id, orphan.account, now, result, results, detail="rescued")
