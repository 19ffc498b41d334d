"""What was asked for lately, as far as there is room: a map that forgets what was used longest ago."""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Entries that weigh at most `most` together; each weighs 1 unless it is said otherwise. The last one put always stays."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0

    def get(self, key: K) -> V | None:
        """What was put there, unless it is forgotten."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: K, value: V, weight: int = 1) -> V:
        """Keep it, and forget others if there are too many."""
        if key in self._entries:
            self._weight -= self._entries.pop(key)[1]
        self._entries[key] = (value, weight)
        self._weight += weight
        while self._weight > self._most and len(self._entries) > 1:
            self._weight -= self._entries.popitem(last=False)[1][1]
        return value

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._weight = 0
