"""One mail transaction on an authenticated transport: MAIL, RCPT, DATA, content, final dot.

With PIPELINING (RFC 2920) the envelope goes out in one write and its replies are read in order; without it, step by
step. The envelope of a following transaction may go out in the write that holds the final dot: message content may
open a group (RFC 2920 3.1), so a busy session needs one round trip a message. Each forward-path gets the reply that
decided it, or the failure that left it without one. From the moment when the block that holds the final dot is handed to
the transport the content counts as started: without a reply it is in doubt. This file knows SMTP and no policy.

With CHUNKING (RFC 3030) nothing in the content is stuffed: to a relay that offers BDAT and does not know it, content
is commands. So the first content that goes by BDAT on a session waits until its first octet, which is no command whoever
reads it, was taken as a chunk; only then may everything of a message go in one write. A relay that refuses it gets DATA.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from enum import Enum
from typing import Any

from service import failpoints
from service.mail.outcome import Failure, Phase
from service.mail.reply import Reply
from service.relay.commands import (
    DATA,
    RSET,
    UNKNOWN_COMMAND,
    first_octet,
    mail_command,
    other_octets,
    rcpt_commands,
    whole_content,
)
from service.relay.content import wire_blocks
from service.relay.conversation import Conversation, Lost
from service.relay.fitting import goes_whole, incapable, unfit
from service.relay.port import MayNotStart, Outgoing, RecipientResult, Report


class Chunking(Enum):
    """What of BDAT a session may be told."""

    OFF = "off"
    TRIAL = "trial"  # it offers CHUNKING; that it knows BDAT was not seen on it
    SEEN = "seen"


class Transaction:
    """One Outgoing on one conversation. Its steps never raise, leave a report, and are called in this order:

    `begin` (or another's `content`, which hands over our envelope with its own final dot), `envelope`, `content`.
    """

    def __init__(
        self,
        conversation: Conversation,
        capabilities: dict[str, str],
        outgoing: Outgoing,
        timeouts: Any,
        *,
        pipelining: bool,
        monotonic: Callable[[], float],
        chunking: Chunking = Chunking.OFF,
    ) -> None:
        self.outgoing = outgoing
        self._conversation, self._timeouts, self._monotonic = conversation, timeouts, monotonic
        self._capabilities = capabilities
        self._pipelining = pipelining and "pipelining" in capabilities
        if not (self._pipelining and "chunking" in capabilities and goes_whole(outgoing)):
            chunking = Chunking.OFF
        self.whole = self.by_chunk = chunking is Chunking.SEEN  # the content goes by BDAT; and with the envelope
        self._trial = chunking is Chunking.TRIAL
        self.serves_chunks: bool | None = None  # what the trial has shown, if it came to that
        self._results: list[RecipientResult | None] = [None] * len(outgoing.envelope.forward_paths)
        self._open = len(self._results)  # forward-paths without a result
        self._phase = Phase.MAIL
        self._began = 0.0
        self._took = 0.0
        self.mail_started = False
        self.content_started = False
        self.marked = False  # it is durable that the content may have begun

    # --- the steps ---------------------------------------------------------------------------------------------------

    def fits(self) -> bool:
        """Whether the session can carry it at all; if not, every forward-path has its result."""
        problem = incapable(self.outgoing.envelope, self._capabilities) or unfit(self.outgoing)
        if problem is not None:
            self._rest(*problem)
        return problem is None

    async def begin(self) -> None:
        """Hand over the envelope, or its first command; or everything, when a small content can go as one chunk."""
        self._began = self._monotonic()
        await self._guarded(self._begin_whole() if self.whole else self._begin_envelope())

    async def _begin_envelope(self) -> bool:
        self._conversation.write(self.opening())
        return True

    async def _begin_whole(self) -> bool:
        """Unlike DATA, BDAT may stand in a group with its content (RFC 3030 4.2): one round trip for all of it.

        A mark that is due is durable before, and while it was written the relay may have ended the session: what goes
        whole to one that is known to be closed would be in doubt for nothing.
        """
        await self._may_start()
        if self._interrupted():
            return False
        whole = self._mail_command() + b"".join(self._rcpt_commands()) + whole_content(self.outgoing.content)
        self.mail_started = self.content_started = True
        self._conversation.write(whole)
        failpoints.passed("dot.written")
        return True

    async def _may_start(self) -> None:
        """What comes before the content: the mark, when one is due, and a look at the lease. Raises Lost."""
        if self.outgoing.on_content is not None:
            try:
                await self.outgoing.on_content()
            except MayNotStart as reason:
                self._conversation.abort()  # see _check_lease
                raise Lost(Failure.SHUTDOWN, str(reason)) from None
            self.marked = True
        failpoints.passed("content.before")
        self._check_lease()

    def opening(self) -> bytes:
        """What `begin` writes, for the caller to write; from here on the transaction is under way."""
        self.mail_started = True
        self._began = self._monotonic()
        if not self._pipelining:
            return self._mail_command()
        last = first_octet(self.outgoing.content) if self._trial else DATA
        return self._mail_command() + b"".join(self._rcpt_commands()) + last

    def _mail_command(self) -> bytes:
        failpoints.passed("mail.before")
        return mail_command(self.outgoing.envelope, self._capabilities)

    def _rcpt_commands(self) -> Iterator[bytes]:
        """One for each forward-path without a result."""
        commands = rcpt_commands(self.outgoing.envelope, self._capabilities)
        return (command for command, result in zip(commands, self._results, strict=True) if result is None)

    async def envelope(self) -> bool:
        """Read the replies to the envelope. True: the content may go, to at least one forward-path."""
        if not self._open:
            return False
        if self.whole:
            step = self._replies_to_whole()
        elif self._trial:
            step = self._replies_to_trial()
        else:
            step = self._replies_in_order() if self._pipelining else self._step_by_step()
        return bool(await self._guarded(step))

    async def content(self, follow: Callable[[], "Transaction | None"]) -> "Transaction | None":
        """Send the content and read the reply to the final dot.

        `follow` is asked right before the final dot; the transaction it gives is opened in the same write and returned.
        A chunk is followed by nothing: one that is refused leaves its transaction open (RFC 3030 2).
        """
        followed: list[Transaction] = []

        def following() -> bytes:
            other = follow()
            if other is None:
                return b""
            followed.append(other)
            return other.opening()

        await self._guarded(self._content(following))
        return followed[0] if followed else None

    def report(self) -> Report:
        """What became of it."""
        results = [each or RecipientResult(self._phase, failure=Failure.INTERNAL) for each in self._results]
        return Report(results, self.mail_started, self.content_started, timings={"total": self._took})

    async def _guarded(self, step: Coroutine[Any, Any, bool]) -> bool:
        try:
            return await step
        except Lost as lost:
            self._rest(lost.failure, lost.detail)
        except asyncio.CancelledError:
            self._conversation.abort()
            self._rest(Failure.SHUTDOWN, "the sender is stopping")
        except Exception as error:
            self._fault(error)
        finally:
            self._took = (self._monotonic() - self._began) * 1000
        return False

    def _fault(self, error: Exception) -> None:
        """Our own: it must not leave a delivery without a result."""
        self._conversation.abort()
        self._rest(Failure.INTERNAL, f"{type(error).__name__}: {error}")

    # --- results -----------------------------------------------------------------------------------------------------

    def _decide(self, index: int, result: RecipientResult) -> None:
        if self._results[index] is None:
            self._results[index] = result
            self._open -= 1

    def _rest(self, failure: Failure, detail: str) -> None:
        """Whoever has no result yet has this one."""
        phase = Phase.DOT if self.content_started else self._phase
        for index in range(len(self._results)):
            self._decide(index, RecipientResult(phase, failure=failure, detail=detail))

    def _reply_for_rest(self, phase: Phase, reply: Reply) -> None:
        for index in range(len(self._results)):
            self._decide(index, RecipientResult(phase, reply))

    # --- envelope ----------------------------------------------------------------------------------------------------

    async def _replies_in_order(self) -> bool:
        """RFC 2920 3.1: the replies to MAIL, all RCPT and DATA come in order."""
        mail = await self._replies_to_envelope()
        self._phase = Phase.DATA
        data = await self._reply(self._timeouts.data)
        if self._open:
            return await self._data_answered(data)
        if data.intermediate:
            # 354 though nobody was accepted: a lone dot ends it, and no relay may deliver that to anybody
            self._conversation.write(b".\r\n")
            await self._conversation.reply(self._within(self._timeouts.dot))
        elif mail.positive and data.code != 421:
            await self._reset()  # MAIL was taken: another one would be a nested MAIL command
        return False

    async def _replies_to_whole(self) -> bool:
        """The replies to MAIL, all RCPT and BDAT."""
        mail = await self._replies_to_envelope()
        self._phase = Phase.DOT
        await self._chunk_answered(await self._reply(self._timeouts.dot), opened=mail.positive)
        return False

    async def _chunk_answered(self, reply: Reply, *, opened: bool) -> None:
        """The reply to the last chunk. A refused one leaves the transaction open (RFC 3030 2), if MAIL had opened it."""
        accepted = bool(self._open)
        self._reply_for_rest(Phase.DOT, reply)
        if reply.intermediate or (accepted and reply.code in UNKNOWN_COMMAND):
            # no answer to content, or perhaps it goes on to read the content as commands: further replies fit nothing
            self._conversation.abort()
        elif opened and not reply.positive and reply.code != 421:
            await self._reset()

    async def _replies_to_trial(self) -> bool:
        """The replies to MAIL, all RCPT and the first octet. True: the content may go, as a chunk or after DATA."""
        await self._replies_to_envelope()
        self._phase = Phase.DATA
        if self._open:
            self.serves_chunks = False  # as whoever ends the session over it, or says nothing
        chunk = await self._reply(self._timeouts.data)
        if chunk.code == 421:
            return False
        if chunk.intermediate:  # neither served nor refused: what it reads the next octets as is not known
            self._conversation.abort()
            raise Lost(Failure.PROTOCOL, f"a chunk was answered by {chunk}")
        if chunk.positive and self._open:
            self.serves_chunks = self.by_chunk = True
            return True
        if self._open and not chunk.permanent:
            self._reply_for_rest(Phase.DATA, chunk)
        await self._clear()
        return bool(self._open) and await self._by_data_instead()

    async def _clear(self) -> None:
        """RSET after an octet that was perhaps taken for the beginning of a line: then that line is refused, the next is not."""
        self._conversation.write(RSET)
        reply = await self._reply()
        if reply.permanent:
            await self._reset()
        elif not reply.positive:
            self._conversation.abort()

    async def _by_data_instead(self) -> bool:
        """The first octet was refused: the same transaction once more, with DATA, for whoever was accepted."""
        self._phase = Phase.MAIL
        self._conversation.write(self._mail_command() + b"".join(self._rcpt_commands()) + DATA)
        return await self._replies_in_order()

    async def _replies_to_envelope(self) -> Reply:
        """Read those to MAIL, which is answered, and to all RCPT; whoever is refused has a result."""
        asked = [index for index, result in enumerate(self._results) if result is None]
        mail = await self._reply()
        if not mail.positive:
            # the first refusal decides; what follows (503s, 554 no valid recipients) is read and ignored
            self._reply_for_rest(Phase.MAIL, mail)
        self._phase = Phase.RCPT
        for index in asked:
            reply = await self._reply()
            if mail.positive and not reply.positive:
                self._decide(index, RecipientResult(Phase.RCPT, reply))
        return mail

    async def _step_by_step(self) -> bool:
        mail = await self._reply()
        if not mail.positive:
            self._reply_for_rest(Phase.MAIL, mail)
            return False
        self._phase = Phase.RCPT
        for index, command in enumerate(self._rcpt_commands()):
            self._conversation.write(command)
            reply = await self._reply()
            if not reply.positive:
                self._decide(index, RecipientResult(Phase.RCPT, reply))
        if not self._open:
            await self._reset()
            return False
        self._phase = Phase.DATA
        self._conversation.write(DATA)
        return await self._data_answered(await self._reply(self._timeouts.data))

    async def _data_answered(self, reply: Reply) -> bool:
        if reply.intermediate:
            return True
        self._reply_for_rest(Phase.DATA, reply)
        if reply.code != 421:
            await self._reset()
        return False

    async def _reply(self, timeout: float | None = None) -> Reply:
        reply = self._conversation.arrived()
        if reply is None:
            reply = await self._conversation.reply(self._within(self._timeouts.command if timeout is None else timeout))
        if reply.code == 421:  # RFC 5321 3.8: the relay closes now; this reply decides whatever has none
            self._reply_for_rest(self._phase, reply)
            self._conversation.abort()
        return reply

    def _within(self, timeout: float) -> float:
        """Seconds for the next wait: its own deadline, or what is left of the whole transaction's."""
        left: float = self._began + self._timeouts.total - self._monotonic()
        return min(timeout, max(left, 0.0))

    async def _reset(self) -> None:
        """RSET, so that the next transaction begins clean."""
        self._conversation.write(RSET)
        reply = await self._conversation.reply(self._within(self._timeouts.command))
        if not reply.positive:
            self._conversation.abort()

    # --- content -----------------------------------------------------------------------------------------------------

    async def _content(self, following: Callable[[], bytes]) -> bool:
        outgoing = self.outgoing
        self._phase = Phase.CONTENT
        await self._may_start()
        blocks = iter((other_octets(outgoing.content),)) if self.by_chunk else wire_blocks(outgoing.content)
        held = next(blocks)
        for block in blocks:  # made one after the other: all at once would be the content once more
            self._conversation.write(held)
            await self._conversation.drained(self._within(self._timeouts.block))
            if self._interrupted():
                return False
            held = block
        if self._interrupted():
            return False
        group = held if self.by_chunk else held + following()
        self.content_started = True
        self._phase = Phase.DOT
        self._conversation.write(group)
        failpoints.passed("dot.written")
        reply = await self._conversation.reply(self._within(self._timeouts.dot))
        if self.by_chunk:
            await self._chunk_answered(reply, opened=True)
        else:
            self._reply_for_rest(Phase.DOT, reply)
        if reply.code == 421 or reply.intermediate:  # 3yz is no answer to content: commands and replies no longer fit
            self._conversation.abort()
        return True

    def _interrupted(self) -> bool:
        """Whether the relay spoke before the final dot, as it may to close the channel (RFC 5321 3.8). Raises Lost.

        It is no answer to a dot that it has not seen: a refusal decides, anything else means that replies and commands
        no longer fit. Dropping the connection is the only way to abandon the content.
        """
        reply = self._conversation.unasked()
        if reply is None:
            return False
        self._conversation.abort()
        if reply.code < 400:
            raise Lost(Failure.PROTOCOL, f"a reply before the final dot: {reply}")
        self._reply_for_rest(self._phase, reply)
        return True

    def _check_lease(self) -> None:
        if self.outgoing.may_proceed is not None and not self.outgoing.may_proceed():
            # dropping the connection is the only way to abandon after 354: a lone dot would deliver an empty mail
            self._conversation.abort()
            raise Lost(Failure.SHUTDOWN, "the lease was lost before the content")
