"""Content as it stands on the wire: dot-stuffed, in blocks, looked at once more.

What is looked for is rare and the bytes are many, so each look is made of searches that run in C.
"""

import re
from collections.abc import Iterator, Sequence

BLOCK = 64 * 1024  # octets handed to the transport at once; more gives no back-pressure over TLS
_DOTTED = re.compile(rb"\n\.")  # bytes' own search for two octets takes three times as long


def wire_blocks(segments: Sequence[bytes]) -> Iterator[bytes]:
    """Dot-stuffed content (RFC 5321 4.5.2) with the final dot, in blocks; the last block holds the whole final dot."""
    pending: list[bytes] = []
    size = 0
    line_start = True
    for segment in filter(None, segments):
        stuffed = segment.replace(b"\r\n.", b"\r\n..") if has_dotted_line(segment) else segment
        if line_start and stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        line_start = segment.endswith(b"\r\n")
        if size + len(stuffed) > BLOCK:
            for at in range(0, len(stuffed), BLOCK):
                if pending:
                    yield b"".join(pending)
                pending = [stuffed[at : at + BLOCK]]
            size = len(pending[0])
        else:
            pending.append(stuffed)
            size += len(stuffed)
    pending.append(b".\r\n" if line_start else b"\r\n.\r\n")
    yield b"".join(pending)


def has_dotted_line(segment: bytes) -> bool:
    """Whether a line behind the first begins with a full stop."""
    return b"." in segment and _DOTTED.search(segment) is not None  # base64 has none, and one octet is found sooner
