"""The commands of a mail transaction, as octets: what of an envelope is said to a relay that offers these extensions.

Nothing here waits or decides; addresses were validated before and are looked at once more by the transaction.
"""

from collections.abc import Iterator, Mapping, Sequence

from service.mail.envelope import Dsn, Envelope, original_recipient, xtext

DATA = b"DATA\r\n"
RSET = b"RSET\r\n"
UNKNOWN_COMMAND = range(500, 505)  # RFC 5321 4.2.4: what a relay says to a command that it offered and does not know


def mail_command(envelope: Envelope, capabilities: Mapping[str, str]) -> bytes:
    """MAIL FROM with the parameters that the relay offers."""
    command = f"MAIL FROM:<{envelope.reverse_path}>"
    if "size" in capabilities:
        command += f" SIZE={envelope.size}"  # RFC 1870
    if envelope.smtputf8:
        command += " SMTPUTF8 BODY=8BITMIME"  # RFC 6531 3.4, RFC 6152
    dsn = _dsn(envelope, capabilities)
    if dsn is not None and dsn.whole is not None:
        command += f" RET={'FULL' if dsn.whole else 'HDRS'}"  # RFC 3461 4.3
    if dsn is not None and dsn.id:
        command += f" ENVID={xtext(dsn.id)}"  # RFC 3461 4.4
    return command.encode() + b"\r\n"


def rcpt_commands(envelope: Envelope, capabilities: Mapping[str, str]) -> Iterator[bytes]:
    """One RCPT TO for each forward-path."""
    dsn = _dsn(envelope, capabilities)
    for path in envelope.forward_paths:
        if dsn is None:
            yield b"RCPT TO:<%s>\r\n" % path.encode()
        else:
            notify = f" NOTIFY={','.join(dsn.notify).upper()}" if dsn.notify else ""  # RFC 3461 4.1
            yield f"RCPT TO:<{path}>{notify} ORCPT={original_recipient(path)}\r\n".encode()


def whole_content(content: Sequence[bytes]) -> bytes:
    """The content as one last chunk (RFC 3030 2): counted, so nothing in it is stuffed or searched for."""
    return _last_chunk(b"".join(content))


def first_octet(content: Sequence[bytes]) -> bytes:
    """The first octet of the content as a chunk of its own: no command, whoever reads it."""
    return b"BDAT 1\r\n" + b"".join(content)[:1]


def other_octets(content: Sequence[bytes]) -> bytes:
    """What is left after `first_octet`, as the last chunk."""
    return _last_chunk(b"".join(content)[1:])


def _last_chunk(octets: bytes) -> bytes:
    return b"BDAT %d LAST\r\n%s" % (len(octets), octets)


def _dsn(envelope: Envelope, capabilities: Mapping[str, str]) -> Dsn | None:
    return envelope.dsn if envelope.dsn is not None and "dsn" in capabilities else None
