"""The conversation on an authenticated transport: replies in, bytes out. It knows lines and codes, and no transactions.

Everything that arrives is a reply; who waits gets them in order. One lazy timer watches all waits: most replies come
long before their deadline, so a timer for each would cost more than it does. A conversation that ended stays ended.
"""

import asyncio
from collections import deque
from typing import Any

from service.mail.outcome import Failure
from service.mail.reply import Reply, decode, make_reply
from service.relay.hidden import Hidden

_MAX_LINE = 8 * 1024
_MAX_REPLY = 64 * 1024
_MOST_REPLIES = 8 * 1024  # that wait to be read: far more than a message's commands, each of which has one
_KEPT = 64  # parsed replies that are remembered: relays say the same few words over and over


class Lost(Exception):
    """The conversation ended without the reply that was waited for."""

    def __init__(self, failure: Failure, detail: str = "") -> None:
        self.failure, self.detail = failure, detail
        super().__init__(f"{failure} {detail}")


class Conversation(asyncio.Protocol):
    """See the module. asyncio calls the upper half, a transaction the lower. `hidden`: what no reply may show."""

    def __init__(self, transport: Any, hidden: Hidden | None = None) -> None:
        self._transport = transport
        self._hidden = hidden or Hidden()
        self._known: dict[bytes, Reply] = {}
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # an unfinished line
        self._lines: list[str] = []  # of an unfinished reply
        self._code = 0
        self._size = 0
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._paused = False
        self._ended: Lost | None = None
        self._deadline = 0.0  # loop time by which the present wait must end
        self._deadline_is = ""
        self._timer: asyncio.TimerHandle | None = None

    # --- what the transport calls ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Split into lines, lines into replies (RFC 5321 4.2.1)."""
        if self._ended is not None:
            return
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if not self._line(line.rstrip(b"\r")):
                words = self._hidden.take_out(decode(line[:_MAX_LINE]))
                self._end(Lost(Failure.PROTOCOL, f"no SMTP reply: {words[:80]!r}"))
                return
        if len(self._rest) > _MAX_LINE:
            self._end(Lost(Failure.PROTOCOL, f"a reply line over {_MAX_LINE} octets"))
        if len(self._replies) > _MOST_REPLIES:  # those that came first may be asked for: they can still be read
            self._end(Lost(Failure.PROTOCOL, f"more than {_MOST_REPLIES} replies that nobody asked for"))
        if self._replies:
            self._wake()

    def _line(self, line: bytes) -> bool:
        if not self._lines and (known := self._known.get(line)) is not None:
            self._replies.append(known)
            return True
        if len(line) > _MAX_LINE:
            return False
        code, mark = line[:3], line[3:4]
        if not (len(code) == 3 and code.isdigit() and mark in (b"", b" ", b"-")) or not b"2" <= code[:1] <= b"5":
            return False
        if self._lines and int(code) != self._code:
            return False
        self._size += len(line)
        if self._size > _MAX_REPLY:
            return False
        self._code = int(code)
        self._lines.append(self._hidden.take_out(decode(line[4:]), pieces=self._code >= 400))
        if mark != b"-":
            reply = make_reply(self._code, self._lines)
            if len(self._lines) == 1:
                self._remember(line, reply)
            self._replies.append(reply)
            self._lines, self._size = [], 0
        return True

    def _remember(self, line: bytes, reply: Reply) -> None:
        """Words that name a message (a queue id) are new each time; the memory is emptied when it is full of such."""
        if len(line) > 80:
            return
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[line] = reply

    def eof_received(self) -> bool:
        """The relay ended the connection."""
        self._end(Lost(Failure.LOST, "the relay closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport ended."""
        self._end(Lost(Failure.LOST, str(exc) if exc else "the connection was closed"))

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has room again."""
        self._paused = False
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def _end(self, why: Lost) -> None:
        if self._ended is None:
            self._ended = why
            self._transport.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        self.resume_writing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what a transaction calls ------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Open, and nothing unasked-for has arrived."""
        return not self._replies and not self._lines and self.lives

    @property
    def lives(self) -> bool:
        """Neither side has ended it, as far as is known."""
        return self._ended is None and not self._transport.is_closing()

    @property
    def ended(self) -> Lost | None:
        """Why it ended; None while it lasts."""
        return self._ended

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport. Raises Lost when it is gone."""
        if self._ended is not None:
            raise self._ended
        self._transport.write(data)

    async def reply(self, timeout: float) -> Reply:
        """The next reply. Raises Lost; a timeout (seconds) ends the conversation."""
        while not self._replies:
            if self._ended is not None:
                raise self._ended
            self._waiter = self._loop.create_future()
            await self._within(self._waiter, timeout)
        return self._replies.popleft()

    def arrived(self) -> Reply | None:
        """The next reply if it is there: those to one group of commands mostly come together."""
        return self._replies.popleft() if self._replies else None

    def unasked(self) -> Reply | None:
        """A reply that has come though nobody waits for one. Raises Lost when the conversation ended without one."""
        if self._replies:
            return self._replies.popleft()
        if self._ended is not None:
            raise self._ended
        if self._transport.is_closing():  # it was reset: `connection_lost` comes with the loop's next turn
            raise Lost(Failure.LOST, "the connection was closed")
        return None

    async def drained(self, timeout: float) -> None:
        """Wait until the transport takes more. Raises Lost."""
        while self._paused:
            if self._ended is not None:
                raise self._ended
            self._resumed = self._loop.create_future()
            await self._within(self._resumed, timeout)

    async def _within(self, waiter: "asyncio.Future[None]", timeout: float) -> None:
        self._deadline = self._loop.time() + timeout
        self._deadline_is = f"no answer within {timeout:g} s"
        if self._timer is None or self._timer.when() > self._deadline:
            self._arm()
        try:
            await waiter
        finally:
            self._deadline = 0.0

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        """The timer is due: a wait may have begun after it was set, then it is set anew."""
        self._timer = None
        if self._deadline == 0.0:
            return
        if self._loop.time() < self._deadline:
            self._arm()
        else:
            self._end(Lost(Failure.TIMEOUT, self._deadline_is))

    async def noop(self, timeout: float) -> bool:
        """Whether the relay is still there."""
        try:
            self.write(b"NOOP\r\n")
            return (await self.reply(timeout)).positive
        except Lost:
            return False

    async def quit(self, timeout: float) -> None:
        """QUIT, its reply, close."""
        try:
            self.write(b"QUIT\r\n")
            await self.reply(timeout)
        except Lost:
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop the connection."""
        if self._ended is None:
            self._end(Lost(Failure.LOST, "dropped by us"))
        self._transport.abort()
