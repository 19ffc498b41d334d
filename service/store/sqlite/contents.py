"""Message bytes: small pieces joined in one row, large ones kept once and shared (an attachment used by a batch)."""

from collections.abc import Sequence

from service.store.layout import assemble, lay_out
from service.store.sqlite.transaction import Transaction


def insert_contents(transaction: Transaction, contents: Sequence[tuple[int, Sequence[bytes]]]) -> None:
    """Keep the bytes of messages: small pieces joined, large ones as shared blobs with their place in `layout`."""
    rows: list[tuple[int, bytes, str | None]] = []
    for seq, pieces in contents:
        layout = lay_out(pieces)
        for digest, piece in layout.shared:
            transaction.run("accept: blob", (digest, piece))
            transaction.run("accept: content blob", (seq, digest))
        rows.append((seq, layout.inline, layout.places))
    transaction.each("accept: content", rows)


def contents_of(transaction: Transaction, seqs: Sequence[int]) -> dict[int, tuple[bytes, ...]]:
    """The bytes of messages; one whose bytes are gone is missing."""
    rows = transaction.each("delivery_content: by seq", [(seq,) for seq in seqs])
    return {seq: assemble(inline, places, transaction.shared_piece) for seq, inline, places in rows}


def forget_content(transaction: Transaction, seq: int) -> None:
    """Delete the bytes, and the shared blobs that nobody else needs."""
    blobs = [sha for (sha,) in transaction.run("erase: blobs", (seq,))]
    transaction.run("erase: content", (seq,))
    transaction.run("erase: content blobs", (seq,))
    for sha in blobs:
        transaction.run("erase: blob", {"sha256": sha})
