"""What a relay was found to take less of than its configuration says, and for how long that is believed. Pure: time is an
argument.

A lesson is drawn from one reply, and what was wrong then may have been mended since. So each has a life; after it, with
the next message that is accepted, what is configured holds again, of pipelining one level more. If that fails the lesson is
learnt anew, at the cost of one try, and is believed twice as long, up to a day or so. Which replies teach something is
mail/outcome's; how connections are halved is relay/backoff's.
"""

from collections.abc import Sequence

from service.mail.outcome import Phase
from service.relay.config import RelayConfig
from service.relay.port import Pipelining, RecipientResult

_LONGEST = 24  # times the first life, which is the setting
_NEVER = float("inf")


class Life:
    """For how long one lesson is believed: `first` ms, and twice as long each time that a try fails within that time."""

    def __init__(self, first: int) -> None:
        self._first = self._length = first
        self.until = _NEVER  # ms; while nothing is believed, never
        self._tried_at: int | None = None

    def begin(self, now: int) -> None:
        """The lesson is learnt, or learnt again."""
        if self._tried_at is not None:
            failed = now < self._tried_at + self._length
            self._length = min(2 * self._length, _LONGEST * self._first) if failed else self._first
            self._tried_at = None  # several sessions that fail at once are one try
        self.until = now + self._length

    def end(self, now: int, *, in_part: bool = False) -> None:
        """What it forbade is tried; `in_part`: the rest is believed for as long again."""
        self._tried_at = now
        self.until = now + self._length if in_part else _NEVER

    def cut(self, now: int) -> None:
        """The clock was set back: nothing is believed for longer than its length from now on."""
        if self.until != _NEVER:
            self.until = min(self.until, now + self._length)
        if self._tried_at is not None:
            self._tried_at = min(self._tried_at, now)


class Learnt:
    """The limits of one relay as they are now, each as configured or lower. `seconds`: the first life of a lesson."""

    def __init__(self, config: RelayConfig, seconds: float) -> None:
        self._config = config
        self.max_messages = config.max_messages_per_connection
        self.max_recipients: int | None = config.limits.max_recipients
        self.pipelining = config.pipelining
        self.chunking = config.chunking
        length = int(seconds * 1000)
        self._messages, self._recipients, self._groups, self._chunks = (Life(length) for _ in range(4))
        self._lives = (self._messages, self._recipients, self._groups, self._chunks)
        self._look_at = _NEVER  # ms: when the first life is over
        self._seen = 0  # ms: the last moment that was told

    # --- lessons -----------------------------------------------------------------------------------------------------

    def fewer_messages(self, served: int, now: int) -> None:
        """A session was refused its message number `served`; 0: it is not known which."""
        if served:
            self.max_messages = max(1, min(self.max_messages, served - 1))
            self._begin(self._messages, now)

    def fewer_recipients(self, results: Sequence[RecipientResult], now: int) -> None:
        """Some of a transaction's recipients, or all, were too many. Of one it says nothing: there can't be fewer."""
        if len(results) < 2:
            return
        refused = sum(result.phase is Phase.RCPT for result in results)
        most = (len(results) - refused if refused else 0) or len(results) // 2
        self.max_recipients = min(self.max_recipients or most, most)
        self._begin(self._recipients, now)

    def out_of_step(self, now: int) -> bool:
        """Replies no longer fit the commands: less goes out at once. False: nothing less is left."""
        if self.pipelining is Pipelining.OFF:
            return False
        self.pipelining = Pipelining(self.pipelining - 1)
        self._begin(self._groups, now)
        return True

    def no_chunks(self, now: int) -> bool:
        """The relay offers CHUNKING and does not serve it. False: that was known."""
        known, self.chunking = not self.chunking, False
        self._begin(self._chunks, now)
        return not known

    def _begin(self, life: Life, now: int) -> None:
        self._notice(now)
        life.begin(now)
        self._look_again()

    # --- and their end -----------------------------------------------------------------------------------------------

    def succeeded(self, now: int) -> None:
        """A message was accepted: whatever was believed long enough is tried again."""
        self._notice(now)
        if now >= self._look_at:
            self._try_again(now)

    def _notice(self, now: int) -> None:
        """What was believed until a moment of a clock that was ahead would be believed for as long as that was."""
        if now < self._seen:
            for life in self._lives:
                life.cut(now)
            self._look_again()
        self._seen = now

    def _try_again(self, now: int) -> None:
        config = self._config
        if now >= self._messages.until:
            self.max_messages = config.max_messages_per_connection
            self._messages.end(now)
        if now >= self._recipients.until:
            self.max_recipients = config.limits.max_recipients
            self._recipients.end(now)
        if now >= self._chunks.until:
            self.chunking = config.chunking
            self._chunks.end(now)
        if now >= self._groups.until:
            self.pipelining = Pipelining(self.pipelining + 1)
            self._groups.end(now, in_part=self.pipelining < config.pipelining)
        self._look_again()

    def _look_again(self) -> None:
        self._look_at = min(each.until for each in self._lives)
