"""What of a delivery a session can carry, and how: the last look before the wire. Pure.

What does not fit is told as a failure and its words; the transaction gives that to every forward-path.
"""

from collections.abc import Mapping

from service.mail.envelope import Envelope
from service.mail.line_ends import has_bare_line_end
from service.mail.outcome import Failure
from service.relay.content import BLOCK
from service.relay.port import Outgoing

_DIGITS = 18  # of SIZE: as many fit into 64 bits, as which stores keep it
_COMMAND = 1024  # octets: more than a path and its parameters take


def size_in(capabilities: Mapping[str, str]) -> int | None:
    """Octets that a message may have, by SIZE (RFC 1870 3); None: no bound was told. More digits than the 18 that are read
    are no bound either: 20 may stand there (section 6.1), and no message is as large.
    """
    value = capabilities.get("size", "")
    return int(value) or None if value.isascii() and value.isdigit() and len(value) <= _DIGITS else None


def incapable(envelope: Envelope, capabilities: Mapping[str, str]) -> tuple[Failure, str] | None:
    """Whether the relay has said that it can't take it. `capabilities`: what EHLO offered, by name in lower case."""
    size = size_in(capabilities)
    if size is not None and size < envelope.size:
        return Failure.CAPABILITY, f"the relay takes at most {size} octets (SIZE), the message has {envelope.size}"
    # RFC 6531 3.1: who offers SMTPUTF8 offers 8BITMIME too, which the message needs as well
    if envelope.smtputf8 and (missing := {"smtputf8", "8bitmime"} - capabilities.keys()):
        return Failure.CAPABILITY, f"the relay does not offer {' and '.join(sorted(missing)).upper()}"
    return None


def unfit(outgoing: Outgoing) -> tuple[Failure, str] | None:
    """An address or a line end that could be read as a command is never sent."""
    envelope = outgoing.envelope
    for path in (envelope.reverse_path, *envelope.forward_paths):
        if not path.isprintable() or " " in path or "<" in path or ">" in path:
            return Failure.INTERNAL, "an address that is not fit for the wire"
    if any(map(has_bare_line_end, outgoing.content)):
        return Failure.INTERNAL, "a bare CR or LF in the content"
    return None


def goes_whole(outgoing: Outgoing) -> bool:
    """Whether envelope and content may go in one write, where the session takes chunks.

    Never at_most_once: when a session is lost, what went whole by it is in doubt, and by DATA only what had its 354.
    """
    envelope, content = outgoing.envelope, outgoing.content
    begins_with_a_letter = bool(content) and content[0][:1].isalpha()  # as a field name does; no line end, no space
    fits = envelope.size + _COMMAND * (len(envelope.forward_paths) + 1) <= BLOCK
    return fits and begins_with_a_letter and not outgoing.at_most_once
