"""Which routes have mail that is due: the dispatcher's memory, fed by hints and corrected by looking.

It only saves questions to the store. A lane that is wrongly here costs one empty claim; a lane that is missing is
found by the next look at `store.due_routes`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from service.mail.quota import HIGH
from service.mail.route import Route
from service.store.values import DueRoute, Want


class DueLanes:
    """By route and priority, the time when the first recipient is due (ms)."""

    def __init__(self) -> None:
        self._due: dict[str, dict[int, int]] = {}
        self._high: set[str] = set()  # routes with a lane of priority high
        self._turn = 0

    def add(self, route: str, priority: int, due_at: int) -> None:
        """A recipient waits there; an earlier time that is known stays."""
        lanes = self._due.setdefault(route, {})
        known = lanes.get(priority)
        if known is None or due_at < known:
            lanes[priority] = due_at
            if priority == HIGH:
                self._high.add(route)

    def learn(self, lanes: Iterable[DueRoute]) -> None:
        """What the store said. Lanes it didn't name stay: a hint may be newer than the answer."""
        for lane in lanes:
            self.add(lane.route, lane.priority, lane.due_at)

    def next_due(self, after: int = -1) -> int | None:
        """When the first lane is due (ms), of those that are due later than `after`; None when there is none."""
        times = (due_at for lanes in self._due.values() for due_at in lanes.values())
        return min((due_at for due_at in times if due_at > after), default=None)

    def urgent(self, now: int) -> list[str]:
        """Routes with mail of priority high due by `now`, turn by turn over accounts."""
        return self._in_turn([route for route in self._high if self._due[route][HIGH] <= now])

    def urgency(self, route: str, now: int) -> int:
        """The most urgent priority that is due on a route."""
        return min(priority for priority, due_at in self._due[route].items() if due_at <= now)

    def routes(self, now: int) -> list[str]:
        """Routes with mail due by `now`: those with the most urgent lane first, else turn by turn over accounts."""
        urgency: dict[str, int] = {}
        for route, lanes in self._due.items():
            due = [priority for priority, due_at in lanes.items() if due_at <= now]
            if due:
                urgency[route] = min(due)
        return sorted(self._in_turn(urgency), key=urgency.__getitem__)  # stable: the turn stays within an urgency

    def _in_turn(self, routes: Collection[str]) -> list[str]:
        if len(routes) < 2:
            return list(routes)
        ordered = _round_robin(sorted(routes))
        turn = self._turn % len(ordered)
        return ordered[turn:] + ordered[:turn]

    def next_turn(self) -> None:
        """Another route comes first from here on: to be called once for each claim, not for each look."""
        self._turn += 1

    def take(self, route: str, now: int, least: int = 2) -> dict[int, int]:
        """The route is being asked, down to priority `least`: forget its due lanes, and answer them.

        What is left there is added again by what comes back.
        """
        lanes = self._due.pop(route, {})
        asked = {priority: due_at for priority, due_at in lanes.items() if due_at <= now and priority <= least}
        if HIGH in asked:
            self._high.discard(route)
        if len(asked) < len(lanes):
            self._due[route] = {priority: due_at for priority, due_at in lanes.items() if priority not in asked}
        return asked


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
    if len(routes) == 1:  # with nobody to take turns
        ((route, relays),) = routes
        return [Want(route, name, free[name]) for name in relays if free.get(name, 0) > 0]
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
