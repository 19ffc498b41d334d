"""Bring a schema up to date: numbered steps, each applied once and in order, and when those are due that take something away.

A step of phase `post` takes away what the version before uses. So it waits until no process lives that does not know it,
unless it is forced; a start leaves it for a later one. A step that comes after such a one waits with it: versions that are
more than one apart don't run together. Where the rows are and who lives, the dialects know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.errors import ConfigurationError
from service.store.marks import COPIED, MOVED, moved_sentence
from service.store.queries import Migration, Phase
from service.telemetry import Log, get_logger

log = get_logger()


class SchemaStore(Protocol):
    """What a dialect offers to the runner."""

    def applied(self) -> dict[int, str]:
        """Number and checksum of the steps that were applied; creates the table that holds them."""

    def apply(self, migration: Migration) -> None:
        """Run one step and record it, in one transaction."""

    def older(self, number: int) -> Sequence[str]:
        """The living processes that don't know the step of this number. The steps before it are applied."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to apply. phase: None is both. force: apply steps of phase post whoever lives."""

    phase: Phase | None = None
    force: bool = False


DUE = Wanted()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Titles of the steps that were applied, and of those left for later; the processes that these wait for, if any."""

    applied: Sequence[str]
    left: Sequence[str] = field(default_factory=list)
    older: Sequence[str] = field(default_factory=list)

    def tell(self) -> None:
        """Log what a start has left."""
        if self.left:
            log.info(Log.STEPS_LEFT, steps=self.left, older=self.older)


def migrate(schema: SchemaStore, steps: Sequence[Migration], wanted: Wanted = DUE) -> Outcome:
    """Apply what is missing and due. Raises ConfigurationError when the schema is newer than this version, or was changed,
    when the store's mail was moved elsewhere, and when a step that is wanted has to wait.
    """
    applied = schema.applied()
    if MOVED in applied:
        raise ConfigurationError(moved_sentence(applied[MOVED]))
    applied.pop(COPIED, None)  # such a store is opened; its owner holds its mail
    _check(applied, steps)
    missing = [step for step in steps if step.number not in applied]
    if not applied:  # nobody has used it yet
        return Outcome(_apply_all(schema, missing))
    pre = [index for index, step in enumerate(missing) if step.phase is Phase.PRE]
    first = missing[: pre[-1] + 1] if pre else []  # steps come in order: these of phase post too
    if first and wanted.phase is Phase.POST:
        raise ConfigurationError(
            f"--phase post: step {first[0].title} is missing; run `postroom migrate --phase pre` first"
        )
    done = _apply_first(schema, first, force=wanted.force)
    return _apply_last(schema, missing[len(first) :], wanted, done)


def _check(applied: dict[int, str], steps: Sequence[Migration]) -> None:
    known = {step.number: step for step in steps}
    if newer := sorted(set(applied) - set(known)):
        raise ConfigurationError(newer_sentence(newer[-1]))
    for step in steps:
        if applied.get(step.number, step.checksum) != step.checksum:
            raise ConfigurationError(
                f"POSTROOM_DATABASE_URL: step {step.number} of the schema was applied in another form"
            )


def newer_sentence(number: int) -> str:
    """Why a schema of a newer version is not used."""
    return (
        f"POSTROOM_DATABASE_URL: the schema has step {number}, which this version does not know;"
        " run the version that made it, or a newer one"
    )


def _apply_first(schema: SchemaStore, steps: Sequence[Migration], *, force: bool) -> list[str]:
    """What this version needs before it starts."""
    done: list[str] = []
    for step in steps:
        if step.phase is Phase.POST and not force and (older := schema.older(step.number)):
            raise ConfigurationError(_must_wait(step, older))
        done += _apply_all(schema, [step])
    return done


def _apply_last(schema: SchemaStore, steps: Sequence[Migration], wanted: Wanted, done: list[str]) -> Outcome:
    """Steps of phase post behind all others: all of them, or none."""
    left = [step.title for step in steps]
    if not steps or wanted.phase is Phase.PRE:
        return Outcome(done, left)
    older = [] if wanted.force else schema.older(steps[-1].number)
    if not older:
        return Outcome(done + _apply_all(schema, steps))
    if wanted.phase is Phase.POST:
        raise ConfigurationError(_must_wait(steps[0], older))
    return Outcome(done, left, older)


def _apply_all(schema: SchemaStore, steps: Sequence[Migration]) -> list[str]:
    for step in steps:
        schema.apply(step)
    return [step.title for step in steps]


def _must_wait(step: Migration, older: Sequence[str]) -> str:
    return (
        f"POSTROOM_DATABASE_URL: step {step.title} of the schema takes away what an older version uses, and that still"
        f" runs: {', '.join(older)}. Stop it, or run `postroom migrate --force`"
    )
