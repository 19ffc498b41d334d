"""Line ends of composed bytes. A message may be 25 MiB and the event loop waits, so each look is made of few calls that run in C."""

_BASE64_LINE = 76 + len(b"\r\n")
_BLOCK = _BASE64_LINE * 2048  # octets: they stay in the processor's cache


def has_bare_line_end(segment: bytes) -> bool:
    """Whether a CR or LF stands there that is no half of a CRLF (RFC 5321 2.3.8)."""
    if in_lines_of_76(segment):
        return False
    rest = segment.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


def in_lines_of_76(segment: bytes) -> bool:
    """Whether it is like an attachment's body: CRLF in every place where such lines end (RFC 2045 6.8), and nowhere else.

    A block at a time is copied, its ends are looked at and overwritten; then a search for CR and one for LF find any other.
    """
    if segment[76:78] != b"\r\n":
        return False
    view = memoryview(segment)
    for at in range(0, len(segment), _BLOCK):
        block = bytearray(view[at : at + _BLOCK])
        lines, last = divmod(len(block), _BASE64_LINE)
        whole = len(block) - last
        if block[76:whole:_BASE64_LINE] != b"\r" * lines or block[77:whole:_BASE64_LINE] != b"\n" * lines:
            return False
        block[76:whole:_BASE64_LINE] = block[77:whole:_BASE64_LINE] = bytes(lines)
        if last:  # of the last block alone: its last line may be shorter
            if block[-2:] != b"\r\n":
                return False
            del block[-2:]
        if b"\r" in block or b"\n" in block:
            return False
    return True
