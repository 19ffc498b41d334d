"""Message bytes: small pieces joined in one row, large ones kept once and shared (an attachment used by a batch)."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256

from service.store.sqlite.writer import Transaction

SHARED_FROM = 64 * 1024  # octets: a piece of this size is kept once, whoever uses it


def insert_content(transaction: Transaction, seq: int, pieces: Sequence[bytes]) -> None:
    """Keep the bytes: small pieces joined, large ones as shared blobs with their place in `layout`."""
    if all(len(piece) < SHARED_FROM for piece in pieces[1:]):
        transaction.run("accept: content", (seq, pieces[0] if len(pieces) == 1 else b"".join(pieces), None))
        return
    inline: list[bytes] = []
    layout: list[tuple[int, str]] = []
    offset = 0
    for piece in pieces:
        if len(piece) < SHARED_FROM:
            inline.append(piece)
            offset += len(piece)
            continue
        digest = sha256(piece).digest()
        transaction.run("accept: blob", (digest, piece))
        transaction.run("accept: content blob", (seq, digest))
        layout.append((offset, digest.hex()))
    transaction.run("accept: content", (seq, b"".join(inline), json.dumps(layout)))


def content_of(transaction: Transaction, seq: int) -> tuple[bytes, ...] | None:
    """The bytes of a message, or None when they are gone."""
    row = transaction.one("delivery_content: by seq", (seq,))
    return None if row is None else assemble(row, lambda sha: transaction.one("delivery_content: blob", (sha,))[0])


def assemble(row: tuple[int, bytes, str | None], blob: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    """Pieces in order from a stored row (message, inline, layout) and its shared blobs."""
    _, inline, layout = row
    if layout is None:
        return (inline,)
    pieces: list[bytes] = []
    done = 0
    for offset, digest in json.loads(layout):
        if offset > done:
            pieces.append(inline[done:offset])
            done = offset
        pieces.append(blob(bytes.fromhex(digest)))
    if done < len(inline):
        pieces.append(inline[done:])
    return tuple(pieces)


def forget_content(transaction: Transaction, seq: int) -> None:
    """Delete the bytes, and the shared blobs that nobody else needs."""
    blobs = [sha for (sha,) in transaction.run("erase: blobs", (seq,))]
    transaction.run("erase: content", (seq,))
    transaction.run("erase: content blobs", (seq,))
    for sha in blobs:
        transaction.run("erase: blob", {"sha256": sha})
