"""A slot: one long-lived session and the worker that sends on it, one delivery after the other.

Under load a session carries a message each round trip. Small ones go whole where the session takes chunks, each as soon as
the one before it is answered: so one that is urgent waits for that answer and its own. Otherwise a delivery's envelope goes
out with the content of the one before it (relay/transaction). What was opened so far ahead is charged nothing and is in
no doubt until its own content is written: if the session ends first, it goes by a fresh one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.mail.quota import HIGH
from service.relay.fitting import goes_whole
from service.relay.job import Job
from service.relay.learnt import Learnt
from service.relay.port import Outgoing, Pipelining, RecipientResult, Report
from service.relay.session import Session, SessionFailure, Timeouts
from service.relay.signs import no_more_chunks, not_by_chunk, out_of_step, stale, taken
from service.relay.transaction import Chunking, Transaction
from service.telemetry import Log, get_logger

log = get_logger()

_LAST_QUIT = 0.5  # seconds for the reply to QUIT when the process stops; no setting: nothing depends on that reply


class Owner(Protocol):
    """What a slot needs of its pool."""

    timeouts: Timeouts
    idle_timeout: float
    lifetime: float
    chunk_within: float  # seconds after its last reply for which a session is taken to be open without asking
    learnt: Learnt

    async def connect(self) -> Session:
        """A fresh session. Raises SessionFailure."""

    def monotonic(self) -> float:
        """Seconds."""

    def next_ahead(self, may_go: Callable[[Outgoing], bool]) -> Job | None:
        """The delivery that is next to go, if it may go with the content of another."""

    def desynced(self) -> None:
        """Replies and commands of a session no longer fit."""

    def unchunked(self) -> None:
        """The relay offered CHUNKING and does not serve BDAT."""

    def keeps(self) -> bool:
        """Whether a session that is not used shall stay open."""

    def finished(self, slot: "Slot") -> None:
        """The slot is free again."""


@dataclass(slots=True)
class _Opened:
    """A job whose envelope was handed to a session."""

    job: Job
    session: Session
    transaction: Transaction


class Slot:
    """See the module. `start` may be called when `busy` is False."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._job: Job | None = None
        self._carried: list[Job] = []  # taken, and not told yet: one, and perhaps the one that was opened with it
        self._given = asyncio.Event()
        self.warming = False  # a session is being opened before there is mail for it
        self.session: Session | None = None
        self._heard = 0.0  # monotonic seconds: the last reply on it
        self.busy = False
        self.task = asyncio.create_task(self._work())

    def start(self, job: Job) -> None:
        """Send it."""
        self.busy = True
        self._job = job
        self._given.set()

    def warm(self) -> None:
        """Have a session open when the next job comes."""
        self.warming = True
        self._given.set()

    @property
    def ready(self) -> bool:
        """Whether its session could take a message now."""
        return self.session is not None and self.session.conversation.usable

    @property
    def connected(self) -> bool:
        """Whether it has a session that the relay has not closed meanwhile."""
        return self.session is not None and self.session.conversation.lives

    @property
    def _stopping(self) -> bool:
        """By `stop`, or with everything else that runs on a loop that is being closed."""
        return self.task.cancelling() > 0

    async def _work(self) -> None:
        while not self._stopping:
            try:
                await self._turn()
            except Exception as error:  # a fault of ours must not end the worker: its slot would count as free for ever
                log.critical(Log.LOOP_FAILED, during="slot", exc_info=error)
                self._drop()

    async def _turn(self) -> None:
        if not await self._wait():
            return
        job, self._job = self._job, None
        self._given.clear()
        if job is not None:
            await self._carry(job)
            self.busy = False
            self._owner.finished(self)
        elif self.warming:
            await self._warm()

    async def _warm(self) -> None:
        """Without a message that pays for it: what goes wrong here is known to the relay's condition, or comes again."""
        try:
            await self._ready()
        except SessionFailure:
            pass
        finally:
            self.warming = False

    async def _wait(self) -> bool:
        """Wait for a job; an idle session is ended with QUIT, or kept by NOOP. False: nothing to do yet."""
        if self._given.is_set():
            return True
        if (session := self.session) is None:
            await self._given.wait()
            return True
        try:
            async with asyncio.timeout(self._owner.idle_timeout):
                await self._given.wait()
        except TimeoutError:
            await (self._keep(session) if self._owner.keeps() else self._quit())
            return False
        return True

    async def _keep(self, session: Session) -> None:
        """NOOP (RFC 5321 4.1.1.9), so that the relay doesn't take the session for forgotten; a worn one is opened anew."""
        if self._worn(session) or not session.conversation.usable:
            await self._warm()
        elif await session.conversation.noop(self._owner.timeouts.command):
            self._heard = self._owner.monotonic()
        else:
            await self._quit()

    # --- one delivery, and those that follow it without a pause ------------------------------------------------------

    async def _carry(self, job: Job) -> None:
        """A fault of ours ends the session, not the worker; every job that was taken has its report."""
        fault: Exception = RuntimeError("it fell out of the worker")
        try:
            await self._carry_all(job)
        except Exception as error:
            log.critical(Log.LOOP_FAILED, during="transaction", exc_info=error)
            fault = error
            self._drop()
        finally:
            for left in self._carried:
                left.fail(fault)
            self._carried.clear()

    async def _carry_all(self, job: Job) -> None:
        next_job: Job | None = job
        self._carried.append(job)
        while next_job is not None:
            opened = await self._open(next_job)
            next_job = None
            while opened is not None:
                opened, next_job = await self._finish(opened)

    def _tell(self, job: Job, report: Report) -> None:
        self._carried.remove(job)
        job.tell(report)

    def _give_back(self, job: Job, why: str = "the sender is stopping") -> None:
        self._carried.remove(job)
        job.give_back(why)

    async def _open(self, job: Job) -> _Opened | None:
        """The envelope handed over; None when there is no session, or the message can't go by it: that is told."""
        try:
            session = await self._ready()
        except SessionFailure as failure:
            self._carried.remove(job)
            job.tell_all(RecipientResult(failure.phase, failure.reply, failure.failure, failure.detail))
            return None
        except asyncio.CancelledError:
            self._give_back(job)
            return None
        transaction = self._transaction(session, job, chunking=self._chunking(session))
        if not transaction.fits():
            self._tell(job, transaction.report())
            return None
        await transaction.begin()
        return _Opened(job, session, transaction)

    def _chunking(self, session: Session) -> Chunking:
        """Seen on this session, not on another: behind one name may stand several servers that are not alike."""
        if not self._owner.learnt.chunking or not self._lives():
            return Chunking.OFF
        return Chunking.SEEN if session.serves_chunks else Chunking.TRIAL

    def _lives(self) -> bool:
        """Whether the session was heard of just now. What goes whole to one that was closed long ago would be in doubt."""
        return self._owner.monotonic() - self._heard < self._owner.chunk_within

    def _transaction(self, session: Session, job: Job, *, chunking: Chunking = Chunking.OFF) -> Transaction:
        owner = self._owner
        job.transaction = transaction = Transaction(
            session.conversation,
            session.capabilities,
            job.outgoing,
            owner.timeouts,
            pipelining=owner.learnt.pipelining >= Pipelining.ENVELOPE,
            monotonic=owner.monotonic,
            chunking=chunking,
        )
        return transaction

    async def _finish(self, opened: _Opened) -> tuple[_Opened | None, Job | None]:
        """Carry an opened one to its end; gives the one that was opened with it, or a job that needs a fresh session."""
        session = opened.session
        followed: list[_Opened] = []

        def follow() -> Transaction | None:
            try:
                other = self._next_ahead(opened) if self._may_follow(opened) else None
            except Exception as error:  # what is wrong with the next one must not end this one
                log.critical(Log.LOOP_FAILED, during="ahead", exc_info=error)
                return None
            if other is None:
                return None
            followed.append(other)
            return other.transaction

        if await opened.transaction.envelope():
            await opened.transaction.content(follow)
        again = self._told(opened)
        ahead = followed[0] if followed else None
        if ahead is not None and session.conversation.ended is None:
            return ahead, None
        if session.conversation.usable:
            return None, None
        session.abort()
        self.session = None
        left = again or (ahead.job if ahead is not None else None)
        if left is not None and self._stopping:
            self._give_back(left)
            left = None
        return None, left

    def _may_follow(self, opened: _Opened) -> bool:
        """Whether another delivery's envelope may go out with this one's content."""
        owner, session = self._owner, opened.session
        return (
            not self._stopping
            and owner.learnt.pipelining is Pipelining.FULL
            and "pipelining" in session.capabilities
            and session.served + 2 <= owner.learnt.max_messages
            and owner.monotonic() - session.opened < owner.lifetime
            and not opened.job.outgoing.at_most_once
        )

    def _next_ahead(self, opened: _Opened) -> _Opened | None:
        """The next waiting delivery that the session can carry; what it can't is told at once."""
        session = opened.session
        while (job := self._owner.next_ahead(lambda outgoing: self._gains_ahead(opened, outgoing))) is not None:
            self._carried.append(job)
            transaction = self._transaction(session, job)
            if transaction.fits():
                return _Opened(job, session, transaction)
            self._tell(job, transaction.report())
        return None

    def _gains_ahead(self, opened: _Opened, outgoing: Outgoing) -> bool:
        """Whether it gains by its envelope going out with our content, and may.

        Opened ahead it is through two round trips from now: as soon as if it goes whole when ours is answered, and
        later than over another session that is free before. So small mail keeps going whole once it does, and urgent mail
        is left to whichever session is first.
        """
        if outgoing.at_most_once:
            return False
        whole = self._owner.learnt.chunking and opened.session.serves_chunks and goes_whole(outgoing)
        return not whole or (outgoing.priority != HIGH and not goes_whole(opened.job.outgoing))

    def _told(self, opened: _Opened) -> Job | None:
        """Tell what became of a job; or give it back, when only an idle session was found closed."""
        session, job = opened.session, opened.job
        report = opened.transaction.report()
        self._note_trial(opened)
        if session.served and stale(report):
            # the relay had ended the idle connection: that says nothing about the message, so nothing is charged; the
            # next one is fresh, and what that says is told
            if not opened.transaction.marked:
                return job
            # the mark says that its content may have begun, which it has not: that must not stand while it waits for a login
            self._give_back(job, "the relay had closed the session")
            return None
        session.served += 1
        self._heard = self._owner.monotonic()
        report.session = f"{session.words}, message {session.served}"
        session.fruitless = session.fruitless and not any(map(taken, report.results))
        report.served, report.renew, report.fruitless = session.served, session.renew, session.fruitless
        if session.served == 1:
            report.timings = {**session.timings, **report.timings}
        if opened.transaction.by_chunk and any(
            map(no_more_chunks if opened.transaction.whole else not_by_chunk, report.results)
        ):
            self._owner.unchunked()
        elif any(map(out_of_step, report.results)):
            self._owner.desynced()
        self._tell(job, report)
        return None

    def _note_trial(self, opened: _Opened) -> None:
        """What the first BDAT of a session has shown, though the message goes by another one."""
        shown = opened.transaction.serves_chunks
        if shown:
            opened.session.serves_chunks = True
        elif shown is not None and not self._stopping:
            self._owner.unchunked()

    # --- the session -------------------------------------------------------------------------------------------------

    async def _ready(self) -> Session:
        session = self.session
        if session is not None:
            if session.conversation.usable and not self._worn(session):
                return session
            await self._quit()
        self.session = session = await self._owner.connect()
        self._heard = self._owner.monotonic()
        return session

    def _worn(self, session: Session) -> bool:
        age = self._owner.monotonic() - session.opened
        return session.served >= self._owner.learnt.max_messages or age >= self._owner.lifetime

    async def _quit(self, seconds: float = 5) -> None:
        session, self.session = self.session, None
        if session is not None:
            if session.conversation.usable:
                await session.quit(seconds)
            else:
                session.abort()

    def _drop(self) -> None:
        """Whatever state it is in: the next job has a fresh one."""
        session, self.session = self.session, None
        if session is not None:
            session.abort()

    async def stop(self) -> None:
        """Cut off what is in flight (it still gets its report), then QUIT."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if (job := self._job) is not None:
            self._job = None
            job.give_back("the sender is stopping")
        await self._quit(_LAST_QUIT)
