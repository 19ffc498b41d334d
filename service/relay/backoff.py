"""How long a relay rests after trouble, and how many connections it bears. Pure: time is an argument.

Each class of trouble has its own steps (relay/policy.toml). The same trouble again, after a pause for it was over,
takes the next step; told again while it lasts, as several connections do at once, it changes nothing. Success steps
back slowly: one step for each time as long as the pause was, so that a provider's window of an hour is not forgotten
with the first message that it lets through. Which troubles an account has is mail/trouble's.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from service.mail.lifecycle import Event
from service.mail.outcome import UNTIL_RESET, Action, Verdict
from service.mail.trouble import Trouble

# No settings: how timers are, and what a relay's own `timezone` makes needless.
_SLACK = 100  # ms by which a timer may come early
_UNKNOWN_RESET = 3600.0  # seconds until the next look when nobody knows when a provider counts anew


class Backoff:
    """The pauses of one relay, whose provider counts anew at midnight in `zone` ("": not known). guard: seconds after that
    midnight until which its clock may be behind ours.
    """

    def __init__(self, zone: str = "", guard: float = 0.0) -> None:
        self._zone, self._guard = ZoneInfo(zone) if zone else None, guard

    def worse(
        self, known: Trouble | None, verdict: Verdict, reason: str, now: int, *, mark: str = "", stretch: float = 1.0
    ) -> Trouble:
        """The trouble that a verdict on the relay makes of the known one; the known one itself while it lasts.

        mark: of the secret in use. stretch: by how much the pause is longer than the policy says, 1 or more.
        """
        known = known and known.cut(now)
        if known is not None and (known.until is None or now < known.until - _SLACK):
            return known
        step = 0 if known is None else min(known.step + 1, len(verdict.pauses) - 1)
        length = self._seconds(verdict.pauses[step], now) * stretch
        if known is not None and verdict.pauses[step] == UNTIL_RESET and _soon_after(known, now):
            length = min(length, _UNKNOWN_RESET)  # it did not count anew when we thought so: a whole day would be wrong
        return Trouble(
            kind=verdict.kind,
            at=now,
            until=now + int(length * 1000),
            reason=reason,
            mark=mark if verdict.action is Action.AUTH else "",
            probe=verdict.probe,
            login=verdict.event is Event.NOT_STARTED,
            step=step,
            times=1 if known is None else known.times + 1,
            length=length,
            steps=verdict.pauses,
        )

    def better(self, known: Trouble, now: int) -> Trouble | None:
        """What is left of a trouble that is over, now that a message was accepted; None: nothing."""
        if known.until is None or known.probe or now < known.until + int(known.length * 1000):
            return known
        if known.step == 0:
            return None
        step = known.step - 1
        return replace(known, step=step, times=0, length=self._seconds(known.steps[step], now), until=now)

    def _seconds(self, step: float, now: int) -> float:
        if step != UNTIL_RESET:
            return step
        return _UNKNOWN_RESET if self._zone is None else _until_midnight(self._zone, now) + self._guard


def _soon_after(known: Trouble, now: int) -> bool:
    """Whether it comes again right after a pause until the provider counts anew, which ended by itself."""
    until_reset = known.steps and known.steps[known.step] == UNTIL_RESET
    return bool(until_reset) and known.until is not None and now < known.until + int(_UNKNOWN_RESET * 1000)


def _until_midnight(zone: ZoneInfo, now: int) -> float:
    here = datetime.fromtimestamp(now / 1000, zone)
    midnight = datetime.combine(here.date() + timedelta(days=1), datetime.min.time(), zone)
    return midnight.timestamp() - now / 1000


class Width:
    """How many connections a relay bears at once: halved when it complains, widened one by one while it is content.

    widen_after: seconds of success before one more is tried.
    """

    def __init__(self, most: int, widen_after: float = 600.0) -> None:
        self.now_at_most = most
        self._widen_after = int(widen_after * 1000)
        self._most = most
        self._changed = 0  # ms

    def halve(self, now: int, seconds: float) -> None:
        """The relay complained; complaints within `seconds` of the last one are the same complaint."""
        if now >= self._changed + int(seconds * 1000):
            self.now_at_most = max(1, self.now_at_most // 2)
        self._changed = now

    def succeeded(self, now: int) -> None:
        """A message was accepted."""
        self._changed = min(self._changed, now)  # or a clock that was ahead for a moment would hold it for long
        if self.now_at_most < self._most and now >= self._changed + self._widen_after:
            self.now_at_most += 1
            self._changed = now
