"""One mail transaction on an authenticated transport: MAIL, RCPT, DATA, content, final dot.

With PIPELINING (RFC 2920) the envelope goes out in one write and its replies are read in order; without it, step by
step. Each forward-path gets the reply that decided it, or the failure that left it without one. From the moment
when the block that holds the final dot is handed to the transport the content counts as started: without a reply it
is in doubt. This file knows SMTP and no policy.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply, decode, make_reply
from service.relay.port import Outgoing, RecipientResult, Report

BLOCK = 64 * 1024  # octets handed to the transport at once; more gives no back-pressure over TLS
_MAX_LINE = 8 * 1024
_MAX_REPLY = 64 * 1024


class Lost(Exception):
    """The conversation ended without the reply that was waited for."""

    def __init__(self, failure: Failure, detail: str = "") -> None:
        self.failure, self.detail = failure, detail
        super().__init__(f"{failure} {detail}")


class Conversation(asyncio.Protocol):
    """Replies in, bytes out. Everything that arrives is a reply; who waits gets them in order."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._code = 0
        self._size = 0
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._paused = False
        self._ended: Lost | None = None

    # --- what the transport calls --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Split into lines, lines into replies (RFC 5321 4.2.1)."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            if not self._line(line):
                self._end(Lost(Failure.PROTOCOL, f"no SMTP reply: {decode(line[:80])!r}"))
                return
        if len(self._buffer) > _MAX_LINE:
            self._end(Lost(Failure.PROTOCOL, f"a reply line over {_MAX_LINE} octets"))

    def _line(self, line: bytes) -> bool:
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
        self._lines.append(decode(line[4:]))
        if mark != b"-":
            self._replies.append(make_reply(self._code, self._lines))
            self._lines, self._size = [], 0
            self._wake()
        return True

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
        self._wake()
        self.resume_writing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what a transaction calls --------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Open, and nothing unasked-for has arrived."""
        return self._ended is None and not self._replies and not self._lines and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport. Raises Lost when it is gone."""
        if self._ended is not None:
            raise self._ended
        self._transport.write(data)

    async def reply(self, timeout: float) -> Reply:
        """The next reply. Raises Lost; a timeout (seconds) leaves the conversation unusable."""
        while not self._replies:
            if self._ended is not None:
                raise self._ended
            self._waiter = asyncio.get_running_loop().create_future()
            await self._within(self._waiter, timeout)
        return self._replies.popleft()

    async def drained(self, timeout: float) -> None:
        """Wait until the transport takes more. Raises Lost."""
        while self._paused:
            if self._ended is not None:
                raise self._ended
            self._resumed = asyncio.get_running_loop().create_future()
            await self._within(self._resumed, timeout)

    async def _within(self, waiter: "asyncio.Future[None]", timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            self._end(Lost(Failure.TIMEOUT, f"no answer within {timeout:g} s"))

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
        self._ended = self._ended or Lost(Failure.LOST, "dropped by us")
        self._transport.abort()


class Transaction:
    """One Outgoing on one conversation; `run` never raises and leaves a Report, also when it is cancelled."""

    def __init__(
        self,
        conversation: Conversation,
        capabilities: dict[str, str],
        outgoing: Outgoing,
        timeouts: Any,
        pipelining: bool,
    ) -> None:
        self._conversation, self._outgoing, self._timeouts = conversation, outgoing, timeouts
        self._capabilities = capabilities
        self._pipelining = pipelining and "pipelining" in capabilities
        self._results: list[RecipientResult | None] = [None] * len(outgoing.envelope.forward_paths)
        self._phase = Phase.MAIL
        self._timings: dict[str, float] = {}
        self.mail_started = False
        self.content_started = False

    async def run(self, monotonic: Callable[[], float]) -> Report:
        """Carry it out within the total deadline."""
        began = monotonic()
        try:
            async with asyncio.timeout(self._timeouts.total):
                await self._run()
        except Lost as lost:
            self._rest(lost.failure, lost.detail)
        except TimeoutError:
            self._conversation.abort()
            self._rest(Failure.TIMEOUT, f"the whole transaction took over {self._timeouts.total:g} s")
        except asyncio.CancelledError:
            self._conversation.abort()
            self._rest(Failure.SHUTDOWN, "the sender is stopping")
        except Exception as error:  # our own fault must not leave a delivery without a result
            self._conversation.abort()
            self._rest(Failure.INTERNAL, f"{type(error).__name__}: {error}")
        self._timings["total"] = (monotonic() - began) * 1000
        return self.report()

    def report(self) -> Report:
        """What became of it."""
        results = [each or RecipientResult(self._phase, failure=Failure.INTERNAL) for each in self._results]
        return Report(results, self.mail_started, self.content_started, timings=self._timings)

    def _rest(self, failure: Failure, detail: str) -> None:
        """Whoever has no result yet has this one."""
        phase = Phase.DOT if self.content_started else self._phase
        for index, result in enumerate(self._results):
            if result is None:
                self._results[index] = RecipientResult(phase, failure=failure, detail=detail)

    def _reply_for_rest(self, phase: Phase, reply: Reply) -> None:
        for index, result in enumerate(self._results):
            if result is None:
                self._results[index] = RecipientResult(phase, reply)

    # --- envelope ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        problem = self._incapable() or _unfit(self._outgoing)
        if problem is not None:
            self._rest(*problem)
            return
        accepted = await (self._envelope_at_once() if self._pipelining else self._envelope_step_by_step())
        if accepted:
            await self._content()

    def _incapable(self) -> tuple[Failure, str] | None:
        envelope = self._outgoing.envelope
        size = self._capabilities.get("size", "")
        if size.isdigit() and 0 < int(size) < envelope.size:
            return Failure.CAPABILITY, f"the relay takes at most {size} octets (SIZE), the message has {envelope.size}"
        if envelope.smtputf8 and "smtputf8" not in self._capabilities:
            return Failure.CAPABILITY, "the relay does not offer SMTPUTF8"
        return None

    def _mail_command(self) -> bytes:
        envelope = self._outgoing.envelope
        command = f"MAIL FROM:<{envelope.reverse_path}>"
        if "size" in self._capabilities:
            command += f" SIZE={envelope.size}"  # RFC 1870
        if envelope.smtputf8:
            command += " SMTPUTF8 BODY=8BITMIME"  # RFC 6531 3.4, RFC 6152
        return command.encode() + b"\r\n"

    async def _envelope_at_once(self) -> bool:
        """RFC 2920 3.1: MAIL, all RCPT and DATA in one write; replies come in order."""
        paths = self._outgoing.envelope.forward_paths
        commands = [self._mail_command(), *(b"RCPT TO:<%s>\r\n" % path.encode() for path in paths), b"DATA\r\n"]
        self._begin(b"".join(commands))
        mail = await self._reply()
        if not mail.positive:
            # the first refusal decides; what follows (503s, 554 no valid recipients) is read and ignored
            self._reply_for_rest(Phase.MAIL, mail)
        self._phase = Phase.RCPT
        for index in range(len(paths)):
            reply = await self._reply()
            if mail.positive and not reply.positive:
                self._results[index] = RecipientResult(Phase.RCPT, reply)
        self._phase = Phase.DATA
        data = await self._reply(self._timeouts.data)
        if any(result is None for result in self._results):
            return await self._data_answered(data)
        if data.intermediate:
            # 354 though nobody was accepted: a lone dot ends it, and no relay may deliver that to anybody
            self._conversation.write(b".\r\n")
            await self._conversation.reply(self._timeouts.dot)
        return False

    async def _envelope_step_by_step(self) -> bool:
        self._begin(self._mail_command())
        mail = await self._reply()
        if not mail.positive:
            self._reply_for_rest(Phase.MAIL, mail)
            return False
        self._phase = Phase.RCPT
        for index, path in enumerate(self._outgoing.envelope.forward_paths):
            self._conversation.write(b"RCPT TO:<%s>\r\n" % path.encode())
            reply = await self._reply()
            if not reply.positive:
                self._results[index] = RecipientResult(Phase.RCPT, reply)
        if all(result is not None for result in self._results):
            await self._reset()
            return False
        self._phase = Phase.DATA
        self._conversation.write(b"DATA\r\n")
        return await self._data_answered(await self._reply(self._timeouts.data))

    def _begin(self, command: bytes) -> None:
        self.mail_started = True
        self._conversation.write(command)

    async def _data_answered(self, reply: Reply) -> bool:
        if reply.intermediate:
            return True
        self._reply_for_rest(Phase.DATA, reply)
        if reply.code != 421:
            await self._reset()
        return False

    async def _reply(self, timeout: float | None = None) -> Reply:
        reply = await self._conversation.reply(self._timeouts.command if timeout is None else timeout)
        if reply.code == 421:  # RFC 5321 3.8: the relay closes now; this reply decides whatever has none
            self._reply_for_rest(self._phase, reply)
            self._conversation.abort()
        return reply

    async def _reset(self) -> None:
        """RSET, so that the next transaction begins clean."""
        self._conversation.write(b"RSET\r\n")
        reply = await self._conversation.reply(self._timeouts.command)
        if not reply.positive:
            self._conversation.abort()

    # --- content -------------------------------------------------------------------------------------------------

    async def _content(self) -> None:
        outgoing = self._outgoing
        self._phase = Phase.CONTENT
        if outgoing.on_content is not None:
            await outgoing.on_content()
        if outgoing.may_proceed is not None and not outgoing.may_proceed():
            # dropping the connection is the only way to abandon after 354: a lone dot would deliver an empty mail
            self._conversation.abort()
            raise Lost(Failure.SHUTDOWN, "the lease was lost before the content")
        blocks = list(wire_blocks(outgoing.content))
        for block in blocks[:-1]:
            self._conversation.write(block)
            await self._conversation.drained(self._timeouts.block)
        self.content_started = True
        self._phase = Phase.DOT
        self._conversation.write(blocks[-1])
        reply = await self._conversation.reply(self._timeouts.dot)
        self._reply_for_rest(Phase.DOT, reply)
        if reply.code == 421:
            self._conversation.abort()


def wire_blocks(segments: Sequence[bytes]) -> Iterator[bytes]:
    """Dot-stuffed content (RFC 5321 4.5.2) with the final dot, in blocks; the last block holds the whole final dot."""
    pending = bytearray()
    line_start = True
    for segment in segments:
        stuffed = segment.replace(b"\r\n.", b"\r\n..") if b"\n." in segment else segment
        if line_start and stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        line_start = segment.endswith(b"\r\n")
        if len(pending) + len(stuffed) <= BLOCK:
            pending += stuffed
            continue
        for at in range(0, len(stuffed), BLOCK):
            if pending:
                yield bytes(pending)
            pending = bytearray(stuffed[at : at + BLOCK])
    pending += b".\r\n" if line_start else b"\r\n.\r\n"
    yield bytes(pending)


def _unfit(outgoing: Outgoing) -> tuple[Failure, str] | None:
    """The last look before the wire: an address or a line end that could be read as a command is never sent."""
    envelope = outgoing.envelope
    for path in (envelope.reverse_path, *envelope.forward_paths):
        if not path.isprintable() or " " in path or "<" in path or ">" in path:
            return Failure.INTERNAL, "an address that is not fit for the wire"
    for segment in outgoing.content:
        ends = segment.count(b"\r\n")
        if segment.count(b"\n") != ends or segment.count(b"\r") != ends:
            return Failure.INTERNAL, "a bare CR or LF in the content"
    return None
