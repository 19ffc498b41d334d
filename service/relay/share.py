"""Whether a relay refuses contents more often than it used to: what was finished last, against what was before. Pure.

One refused message says something of that message. A share that rises says that the account, a template or a link in
it has come into disrepute, and that somebody should look before the provider closes the account.
"""

from collections import deque

# No settings: one measure of what is unusual, for an alert that changes nothing by itself.
_SHORT, _LONG = 50, 1000  # finished recipients
_LEAST = 5  # refusals within the short window
_SHARE, _TIMES = 0.1, 3  # of the short window; as large as that of the long one
_AGAIN_AFTER = 3_600_000  # ms between two alerts


class RefusedShare:
    """The contents that one relay refused among the recipients that it finished with."""

    def __init__(self) -> None:
        self._short: deque[bool] = deque()
        self._long: deque[bool] = deque()  # those before the short window
        self._told_at: int | None = None

    def finished(self, *, refused: bool, now: int) -> str:
        """One more recipient; answers a sentence when somebody must be told, else nothing."""
        self._short.append(refused)
        if len(self._short) > _SHORT:
            self._long.append(self._short.popleft())
            if len(self._long) > _LONG:
                self._long.popleft()
        if not refused or not self._has_risen() or (self._told_at is not None and now < self._told_at + _AGAIN_AFTER):
            return ""
        self._told_at = now
        return (
            f"{sum(self._short)} of the last {len(self._short)} recipients were refused for their content,"
            f" {sum(self._long)} of {len(self._long)} before"
        )

    def _has_risen(self) -> bool:
        refused = sum(self._short)
        before = sum(self._long) / len(self._long) if self._long else 0.0
        share = refused / len(self._short)
        return refused >= _LEAST and share > _SHARE and share >= _TIMES * before
