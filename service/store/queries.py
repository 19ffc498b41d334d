"""Read the `.sql` files: statements by name, and migrations in order. This is how SQL stays out of Python."""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from hashlib import sha256
from importlib.resources import files

_HEADER = re.compile(r"^-- ([a-z_]+): ([a-z_ ]+) --$", re.M)
FRAGMENT = "fragment"  # no statement, but text that statements repeat: `{its name}`


@cache
def load_queries(dialect: str) -> dict[str, str]:
    """`{"claim: lease": "UPDATE ..."}` of one dialect. The name's first part is the Store method it serves.

    A `fragment` is put into the statements that name it in braces.
    """
    text = files("service.store").joinpath("sql", dialect, "queries.sql").read_text(encoding="utf-8")
    marks = list(_HEADER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    queries: dict[str, str] = {}
    fragments: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=True):
        body = text[mark.end() : end].strip()
        if mark[1] == FRAGMENT:
            fragments["{" + mark[2] + "}"] = body
            continue
        for name, fragment in fragments.items():
            body = body.replace(name, fragment)
        queries[f"{mark[1]}: {mark[2]}"] = body
    return queries


class Phase(StrEnum):
    """When a step of the schema is due: before processes of its version start, or after those of the version before ended."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema. Its file's first line says what it is to processes of the version before.

    `-- additive`: they go on with it, and start with it. `-- post`: it takes away what they use. Neither: they go on, and
    don't start with it.
    """

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """So that a step that was changed after it was applied is noticed."""
        return sha256(self.sql.encode()).hexdigest()

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.number:04d} {self.name}"

    @property
    def additive(self) -> bool:
        """See the class."""
        return self.sql.startswith("-- additive\n")

    @property
    def phase(self) -> Phase:
        """See Phase."""
        return Phase.POST if self.sql.startswith("-- post\n") else Phase.PRE


@cache
def load_migrations(dialect: str) -> tuple[Migration, ...]:
    """All steps of one dialect, in order."""
    folder = files("service.store").joinpath("sql", dialect, "migrations")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(
        Migration(int(name[:4]), name[5:-4], folder.joinpath(name).read_text(encoding="utf-8")) for name in found
    )
