"""A job: one delivery on its way through a pool, and whoever waits for its report. It is told once, whatever happens."""

from collections.abc import Callable
from dataclasses import dataclass

from service.mail.outcome import Failure, Phase
from service.relay.port import Outgoing, RecipientResult, Report
from service.relay.transaction import Transaction
from service.telemetry import Log, get_logger

log = get_logger()


@dataclass(slots=True, eq=False)
class Job:
    """One delivery to send; `done` is called once."""

    outgoing: Outgoing
    done: Callable[[Report], None]
    transaction: Transaction | None = None  # the last one that was made for it
    told: bool = False

    def tell(self, report: Report) -> None:
        """What became of it. Never raises: a fault of whoever is told must not end a session's worker."""
        if self.told:
            return
        self.told = True
        try:
            self.done(report)
        except Exception as error:
            log.critical(Log.LOOP_FAILED, during="report", exc_info=error)

    def tell_all(self, result: RecipientResult) -> None:
        """The same result for everybody, before MAIL FROM."""
        results = [result] * len(self.outgoing.envelope.forward_paths)
        self.tell(Report(results, mail_started=False, content_started=False))

    def give_back(self, why: str) -> None:
        """It was never begun."""
        self.tell_all(RecipientResult(Phase.CONNECT, failure=Failure.SHUTDOWN, detail=why))

    def fail(self, error: Exception) -> None:
        """A fault of ours ended it: what its transaction knows is told, and where content is out, that it is in doubt."""
        if self.transaction is not None:
            self.tell(self.transaction.report())
        else:
            detail = f"{type(error).__name__}: {error}"
            self.tell_all(RecipientResult(Phase.CONNECT, failure=Failure.INTERNAL, detail=detail))
