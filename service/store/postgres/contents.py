"""Message bytes in PostgreSQL: rows of small pieces for a whole group, and shared blobs that are held while needed."""

from collections.abc import Sequence

from service.store.layout import Layout, assemble
from service.store.postgres.session import Rows
from service.store.postgres.statements import Statement, statement
from service.store.postgres.transaction import Transaction

Laid = Sequence[tuple[int, Layout]]  # row number and layout of messages


def keep_blobs(laid: Laid) -> list[Statement]:
    """Statements that keep and hold large pieces, in one order for everybody: they are locks."""
    blobs = {digest: piece for _, layout in laid for digest, piece in layout.shared}
    return [statement("accept: blob", {"sha256": digest, "data": blobs[digest]}) for digest in sorted(blobs)]


def keep_contents(laid: Laid) -> list[Statement]:
    """Statements that keep the small pieces of messages, and which blobs they need."""
    uses = sorted({(seq, digest) for seq, layout in laid for digest, _ in layout.shared})
    needs = {"messages": [seq for seq, _ in uses], "blobs": [digest for _, digest in uses]}
    bindings = {
        "messages": [seq for seq, _ in laid],
        "inlines": [layout.inline for _, layout in laid],
        "layouts": [layout.places for _, layout in laid],
    }
    kept = [statement("accept: contents", bindings)]
    return [*kept, statement("accept: content blobs", needs)] if uses else kept


def contents_of(rows: Rows) -> dict[int, tuple[bytes, ...]]:
    """The bytes by row number, from rows of message, inline, layout, digests and blobs."""
    return {
        seq: assemble(inline, places, dict(zip(digests, blobs, strict=True)).__getitem__)
        for seq, inline, places, digests, blobs in rows
    }


async def forget_contents(transaction: Transaction, seqs: Sequence[int]) -> None:
    """Delete the bytes of messages that are held, and the shared blobs that nobody else needs."""
    given = {"seqs": list(seqs)}
    blobs, _ = await transaction.run(statement("erase: blobs", given), statement("erase: content", given))
    if blobs:
        unused = {"blobs": sorted({digest for (digest,) in blobs})}
        # apart: who waited for a lock must look again at who needs the blob, and a statement looks once
        await transaction.run(statement("erase: lock blobs", unused), statement("erase: blob", unused))
