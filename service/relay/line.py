"""The line of a relay: deliveries that wait for a connection that is busy, the most urgent first.

Nobody waits for long: another relay may take what no connection here becomes free for, and its lease must not run out. It
knows no session and no relay; how many may wait is the pool's to say.
"""

import asyncio
from collections.abc import Callable

from service.mail.quota import HIGH
from service.relay.job import Job

_LOOK_AGAIN = 1.0  # seconds until a further one may have waited too long


class Line:
    """See the module. `patience`: seconds that one may wait."""

    def __init__(self, patience: float, monotonic: Callable[[], float]) -> None:
        self._patience, self._monotonic = patience, monotonic
        self._waiting: list[tuple[float, Job]] = []  # since when
        self._timer: asyncio.TimerHandle | None = None
        self.stuck = False  # one waited too long, and no connection has become free since

    def __len__(self) -> int:
        return len(self._waiting)

    def any_urgent(self) -> bool:
        """Whether one of them is of priority high."""
        return any(job.outgoing.priority == HIGH for _, job in self._waiting)

    def add(self, job: Job) -> None:
        """Behind those that are as urgent."""
        priority = job.outgoing.priority
        places = (n for n, (_, each) in enumerate(self._waiting) if each.outgoing.priority > priority)
        self._waiting.insert(next(places, len(self._waiting)), (self._monotonic(), job))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._look)

    def first(self) -> Job:
        """The one that is next to go. Raises IndexError."""
        return self._waiting[0][1]

    def take(self) -> Job:
        """Let the next one go. Raises IndexError."""
        return self._waiting.pop(0)[1]

    def _look(self) -> None:
        self._timer = None
        oldest = self._monotonic() - self._patience
        for entry in [entry for entry in self._waiting if entry[0] <= oldest]:
            self.stuck = True
            self._waiting.remove(entry)
            entry[1].give_back("no connection became free")
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look)

    def give_back(self, why: str) -> None:
        """None of them will go."""
        waiting, self._waiting = self._waiting, []
        for _, job in waiting:
            job.give_back(why)

    def close(self, why: str) -> None:
        """None of them will go, and nobody looks at it any more."""
        self.give_back(why)
        if self._timer is not None:
            self._timer.cancel()
