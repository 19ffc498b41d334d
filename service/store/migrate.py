"""Bring a schema up to date: numbered steps, each applied once, in order, in one transaction of its own."""

from collections.abc import Callable, Sequence
from typing import Protocol

from service.errors import ConfigurationError
from service.store.marks import COPIED, MOVED, moved_sentence
from service.store.queries import Migration


class SchemaStore(Protocol):
    """What a dialect offers to the runner."""

    def applied(self) -> dict[int, str]:
        """Number and checksum of the steps that were applied; creates the table that holds them."""

    def apply(self, migration: Migration) -> None:
        """Run one step and record it, in one transaction."""


def migrate(schema: SchemaStore, steps: Sequence[Migration], notice: Callable[[str], None] = lambda _: None) -> None:
    """Apply what is missing. Raises ConfigurationError when the schema is newer than this version, or was changed, or
    when the store's mail was moved elsewhere.
    """
    applied = schema.applied()
    if MOVED in applied:
        raise ConfigurationError(moved_sentence(applied[MOVED]))
    applied.pop(COPIED, None)  # such a store is opened; its owner holds its mail
    known = {step.number: step for step in steps}
    if newer := sorted(set(applied) - set(known)):
        raise ConfigurationError(
            f"POSTROOM_DATABASE_URL: the schema has step {newer[-1]}, which this version does not know;"
            " run the version that made it, or a newer one"
        )
    for step in steps:
        if step.number not in applied:
            schema.apply(step)
            notice(f"{step.number:04d} {step.name}")
        elif applied[step.number] != step.checksum:
            raise ConfigurationError(
                f"POSTROOM_DATABASE_URL: step {step.number} of the schema was applied in another form"
            )
