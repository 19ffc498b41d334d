"""A slot: one long-lived session and the worker that sends on it, one delivery after the other."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.mail.outcome import Failure, Phase
from service.relay.port import Outgoing, RecipientResult, Report
from service.relay.session import Session, SessionFailure, Timeouts
from service.relay.transaction import Transaction

_LAST_QUIT = 0.5  # seconds for the reply to QUIT when the process stops
Done = Callable[[Report], None]


class Owner(Protocol):
    """What a slot needs of its pool."""

    timeouts: Timeouts
    idle_timeout: float
    lifetime: float
    max_messages: int
    pipelining: bool

    async def connect(self) -> Session:
        """A fresh session. Raises SessionFailure."""

    def monotonic(self) -> float:
        """Seconds."""

    def finished(self, slot: "Slot") -> None:
        """The slot is free again."""


@dataclass(slots=True)
class _Job:
    outgoing: Outgoing
    done: Done


class Slot:
    """See the module. `start` may be called when `busy` is False."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._job: _Job | None = None
        self._given = asyncio.Event()
        self._stopping = False
        self.session: Session | None = None
        self.busy = False
        self.task = asyncio.create_task(self._work())

    def start(self, outgoing: Outgoing, done: Done) -> None:
        """Send; `done` is called once."""
        self.busy = True
        self._job = _Job(outgoing, done)
        self._given.set()

    async def _work(self) -> None:
        while not self._stopping:
            if not await self._wait():
                continue
            job, self._job = self._job, None
            self._given.clear()
            if job is not None:
                await self._serve(job)

    async def _wait(self) -> bool:
        """Wait for a job; an idle session is ended with QUIT. False: nothing to do yet."""
        if self.session is None:
            await self._given.wait()
            return True
        try:
            async with asyncio.timeout(self._owner.idle_timeout):
                await self._given.wait()
        except TimeoutError:
            await self._quit()
            return False
        return True

    async def _serve(self, job: _Job) -> None:
        try:
            report = await self._send(job.outgoing)
        except SessionFailure as failure:
            result = RecipientResult(failure.phase, failure.reply, failure.failure, failure.detail)
            report = _not_started(job.outgoing, result)
        except asyncio.CancelledError:
            self._stopping = True
            result = RecipientResult(Phase.CONNECT, failure=Failure.SHUTDOWN, detail="the sender is stopping")
            report = _not_started(job.outgoing, result)
        except Exception as error:  # our own fault must not leave a delivery without a report
            result = RecipientResult(Phase.CONNECT, failure=Failure.INTERNAL, detail=f"{type(error).__name__}: {error}")
            report = _not_started(job.outgoing, result)
        self.busy = False
        self._owner.finished(self)
        job.done(report)

    async def _send(self, outgoing: Outgoing) -> Report:
        session = await self._ready()
        reused = session.served > 0
        report = await self._transact(session, outgoing)
        if reused and _stale(report):
            # the relay had ended the idle connection: that says nothing about the message, so nothing is charged
            session = await self._ready()
            report = await self._transact(session, outgoing)
        return report

    async def _ready(self) -> Session:
        session = self.session
        if session is not None:
            if session.conversation.usable and not self._worn(session):
                return session
            await self._quit()
        self.session = session = await self._owner.connect()
        return session

    def _worn(self, session: Session) -> bool:
        age = self._owner.monotonic() - session.opened
        return session.served >= self._owner.max_messages or age >= self._owner.lifetime

    async def _transact(self, session: Session, outgoing: Outgoing) -> Report:
        transaction = Transaction(
            session.conversation, session.capabilities, outgoing, self._owner.timeouts, self._owner.pipelining
        )
        report = await transaction.run(self._owner.monotonic)
        session.served += 1
        report.session = f"{session.words}, message {session.served}"
        if session.served == 1:
            report.timings = {**session.timings, **report.timings}
        if not session.conversation.usable:
            session.abort()
            self.session = None
        return report

    async def _quit(self, seconds: float = 5) -> None:
        session, self.session = self.session, None
        if session is not None:
            if session.conversation.usable:
                await session.quit(seconds)
            else:
                session.abort()

    async def stop(self) -> None:
        """Cut off what is in flight (it still gets its report), then QUIT."""
        self._stopping = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if (job := self._job) is not None:
            self._job = None
            result = RecipientResult(Phase.CONNECT, failure=Failure.SHUTDOWN, detail="the sender is stopping")
            job.done(_not_started(job.outgoing, result))
        await self._quit(_LAST_QUIT)


def _not_started(outgoing: Outgoing, result: RecipientResult) -> Report:
    return Report([result] * len(outgoing.envelope.forward_paths), mail_started=False, content_started=False)


def _stale(report: Report) -> bool:
    """Whether a reused connection turned out to be closed before anything of the message was said about."""
    if report.content_started:
        return False
    first = report.results[0]
    closing = first.reply is not None and first.reply.code == 421
    return first.phase is Phase.MAIL and (closing or first.failure is Failure.LOST)
