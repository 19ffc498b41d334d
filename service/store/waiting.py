"""What the rows of the statements `waiting: ...` and `copied_at: mark` mean, in both dialects. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from service.mail.lifecycle import State
from service.store.marks import Mark
from service.store.shown import Waiting, WaitingLane, WaitingRecipient


def copied_at_of(rows: Sequence[Sequence[Any]]) -> int | None:
    """When the copy was taken, ms."""
    return Mark.parse(rows[0][0]).at if rows else None


def waiting_of(
    lanes: Iterable[Sequence[Any]], first: Iterable[Sequence[Any]], attempts: Sequence[Sequence[Any]]
) -> Waiting:
    """The rows of all three statements."""
    return Waiting([_lane(*row) for row in lanes], [_recipient(*row) for row in first], attempts[0][0])


def _lane(route: str, priority: int, state: str, *numbers: int) -> WaitingLane:
    return WaitingLane(route, priority, State(state), *numbers)


def _recipient(
    id: str, account: str, email: str, route: str, priority: int, state: str, *rest: Any
) -> WaitingRecipient:
    return WaitingRecipient(id, account, email, route, priority, State(state), *rest)
