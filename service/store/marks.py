"""What a store says of itself: that its mail went elsewhere, or that it is a copy of another. Pure.

A mark stands in the table of schema steps, under a number that no step will have. So versions that know nothing of
marks refuse such a store too, as they refuse any step that they don't know, and its mail is not sent twice by them.
"""

import json
from dataclasses import dataclass

from service.clock import rfc3339

MOVED, COPIED = 1_000_001, 1_000_002  # numbers of steps


@dataclass(frozen=True, slots=True)
class Mark:
    """When it was made (ms), and for a move: where the mail went, without a password."""

    at: int
    to: str = ""

    @property
    def text(self) -> str:
        """The stored form."""
        return json.dumps({"at": self.at, "to": self.to})

    @classmethod
    def parse(cls, text: str) -> "Mark":
        """Back from the stored form."""
        given = json.loads(text)
        return cls(int(given["at"]), str(given["to"]))


def moved_sentence(text: str) -> str:
    """Why a store that was moved is not opened, from the stored form of its mark."""
    mark = Mark.parse(text)
    return (
        f"POSTROOM_DATABASE_URL: all mail of this store was moved to {mark.to} at {rfc3339(mark.at)}; give that URL."
        " `postroom move --unmark URL` frees a store whose move was given up"
    )
