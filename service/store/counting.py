"""What a store counts of its commits, the same for both databases."""

from collections.abc import Callable

from service.telemetry import Metrics

OnCommit = Callable[[int, float], None]  # operations that shared it, seconds that it took


def commits_of(metrics: Metrics, lane: str) -> OnCommit:
    """Counts the commits of one lane."""
    seconds, shared = metrics.commit_seconds.labels(lane), metrics.commit_operations.labels(lane)

    def count(operations: int, took: float) -> None:
        seconds.observe(took)
        shared.observe(operations)

    return count
