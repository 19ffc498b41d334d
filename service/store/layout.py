"""How message bytes lie in the store: small pieces joined in one row, large ones kept once and shared. Pure."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

SHARED_FROM = 64 * 1024  # octets: a piece of this size is kept once, whoever uses it


@dataclass(slots=True)  # not frozen: one is made for each message
class Layout:
    """The bytes of one message. `places`: JSON, where in `inline` each shared piece stands; None: there is none."""

    inline: bytes
    places: str | None
    shared: Sequence[tuple[bytes, bytes]]  # SHA-256 and bytes


def lay_out(pieces: Sequence[bytes]) -> Layout:
    """Which pieces are joined and which are shared. The first piece, the header, is shared only if others are."""
    if all(len(piece) < SHARED_FROM for piece in pieces[1:]):
        return Layout(pieces[0] if len(pieces) == 1 else b"".join(pieces), None, ())
    inline: list[bytes] = []
    places: list[tuple[int, str]] = []
    shared: list[tuple[bytes, bytes]] = []
    offset = 0
    for piece in pieces:
        if len(piece) < SHARED_FROM:
            inline.append(piece)
            offset += len(piece)
            continue
        digest = sha256(piece).digest()
        shared.append((digest, piece))
        places.append((offset, digest.hex()))
    return Layout(b"".join(inline), json.dumps(places), shared)


def assemble(inline: bytes, places: str | None, blob: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    """Pieces in order from a stored row and its shared blobs."""
    if places is None:
        return (inline,)
    pieces: list[bytes] = []
    done = 0
    for offset, digest in json.loads(places):
        if offset > done:
            pieces.append(inline[done:offset])
            done = offset
        pieces.append(blob(bytes.fromhex(digest)))
    if done < len(inline):
        pieces.append(inline[done:])
    return tuple(pieces)
