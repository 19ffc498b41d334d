"""What the report of one transaction says of the session that carried it: that it was over, or is to be used otherwise.

It reads results and decides nothing: what follows for the message is mail/outcome's, for the session relay/slot's.
"""

from service.mail.outcome import Failure, Phase
from service.relay.commands import UNKNOWN_COMMAND
from service.relay.port import RecipientResult, Report

_BROKEN_DIALOGUE = (500, 502, 503)  # RFC 5321 4.2.4, 4.3.2: the commands came in an order that the relay did not follow


def stale(report: Report) -> bool:
    """Whether a reused connection turned out to be closed before anything of the message was said about."""
    first = report.results[0]
    closing = first.reply is not None and first.reply.code == 421
    return first.phase is Phase.MAIL and (closing or first.failure is Failure.LOST)


def taken(result: RecipientResult) -> bool:
    """Whether the relay has the message."""
    return result.phase is Phase.DOT and result.reply is not None and result.reply.positive


def out_of_step(result: RecipientResult) -> bool:
    """Whether replies and commands of the session no longer fit."""
    if result.reply is not None:
        # 3yz answers nothing that a report tells of
        return result.reply.intermediate or (result.reply.code in _BROKEN_DIALOGUE and result.phase is not Phase.DOT)
    return result.failure is Failure.PROTOCOL


def not_by_chunk(result: RecipientResult) -> bool:
    """Whether the relay does not know the command that it offered (RFC 3030)."""
    return result.phase is Phase.DOT and result.reply is not None and result.reply.code in UNKNOWN_COMMAND


def no_more_chunks(result: RecipientResult) -> bool:
    """Whether the relay does not know it, or ended a session without a word: what went whole by such a one is in doubt."""
    return not_by_chunk(result) or (result.phase is Phase.DOT and result.failure is Failure.LOST)
