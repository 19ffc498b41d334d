"""Which routes have mail that is due: the dispatcher's memory, fed by hints and corrected by looking.

It only saves questions to the store. A lane that is wrongly here costs one empty claim; a lane that is missing is
found by the next look at `store.due_routes`.
"""

from collections.abc import Iterable, Mapping, Sequence

from service.mail.route import Route
from service.store.port import DueRoute, Want


class DueLanes:
    """By route and priority, the time when the first recipient is due (ms)."""

    def __init__(self) -> None:
        self._due: dict[str, dict[int, int]] = {}
        self._turn = 0

    def add(self, route: str, priority: int, due_at: int) -> None:
        """A recipient waits there; an earlier time that is known stays."""
        lanes = self._due.setdefault(route, {})
        known = lanes.get(priority)
        if known is None or due_at < known:
            lanes[priority] = due_at

    def learn(self, lanes: Iterable[DueRoute]) -> None:
        """What the store said. Lanes it didn't name stay: a hint may be newer than the answer."""
        for lane in lanes:
            self.add(lane.route, lane.priority, lane.due_at)

    def next_due(self) -> int | None:
        """When the first lane is due (ms), None when nothing waits."""
        return min((due_at for lanes in self._due.values() for due_at in lanes.values()), default=None)

    def routes(self, now: int) -> list[str]:
        """Routes with mail due by `now`: those with the most urgent lane first, else turn by turn over accounts."""
        urgency: dict[str, int] = {}
        for route, lanes in self._due.items():
            due = [priority for priority, due_at in lanes.items() if due_at <= now]
            if due:
                urgency[route] = min(due)
        if len(urgency) < 2:
            return list(urgency)
        ordered = _round_robin(sorted(urgency))
        self._turn += 1
        turn = self._turn % len(ordered)
        ordered = ordered[turn:] + ordered[:turn]
        return sorted(ordered, key=urgency.__getitem__)  # stable: the turn stays within an urgency

    def take(self, route: str, now: int) -> None:
        """The route is being asked: forget its due lanes; what is left there is added again by what comes back."""
        later = {priority: due_at for priority, due_at in self._due.pop(route, {}).items() if due_at > now}
        if later:
            self._due[route] = later


def _round_robin(routes: Sequence[str]) -> list[str]:
    """One route of each account in turn, so that an account with many routes gets no more than one with few."""
    by_account: dict[str, list[str]] = {}
    for route in routes:
        by_account.setdefault(Route.parse(route).account, []).append(route)
    ordered: list[str] = []
    queues = list(by_account.values())
    while queues:
        ordered += [queue.pop(0) for queue in queues]
        queues = [queue for queue in queues if queue]
    return ordered


def share(free: Mapping[str, int], routes: Sequence[tuple[str, Sequence[str]]]) -> list[Want]:
    """Spread free slots over routes.

    free: slots by relay. routes: (route, names of its open relays, best first). Each route gets one slot in turn until
    no slot is left or every route's relays are full; the result keeps the routes' order.
    """
    left = dict(free)
    given: dict[tuple[str, str], int] = {}
    dealt = True
    while dealt and any(left.values()):
        dealt = False
        for route, relays in routes:
            relay = next((name for name in relays if left.get(name, 0) > 0), None)
            if relay is None:
                continue
            left[relay] -= 1
            given[route, relay] = given.get((route, relay), 0) + 1
            dealt = True
    return [Want(route, relay, limit) for (route, relay), limit in given.items()]
