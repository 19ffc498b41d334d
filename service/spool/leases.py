"""Which of a sender's leases surely still hold, by its own clock that never steps.

A claim gives a lease from the moment when it was asked for; a heartbeat renews those that are not over by then. A process
that stood still for longer than a lease must not take the next heartbeat for all that it ever claimed: what was over when
the store answered may be another sender's. The store's fence refuses such a result; this keeps its content from being sent.
"""


class Leases:
    """`length`: seconds of a lease. All moments are seconds of the monotonic clock."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._until = 0.0  # what the last heartbeat gave
        self._unbroken_since = 0.0  # whatever was claimed since then has been renewed in time, each time

    def renewed(self, asked: float, answered: float) -> None:
        """The store has renewed what was not over, somewhere between the two moments."""
        if answered >= self._until:
            self._unbroken_since = answered - self._length
        self._until = asked + self._length

    def hold(self, claimed: float, now: float) -> bool:
        """Whether the lease of a claim that was asked for at `claimed` holds `now`."""
        return now < claimed + self._length or (claimed > self._unbroken_since and now < self._until)
