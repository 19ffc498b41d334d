"""The benchmark of one mail at a time: each has its way measured, and one that is refused is no number."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.rivals.idle import measure
from bench.rivals.postroom import Postroom
from bench.rivals.rival import Relay, Running
from bench.rivals.work import Variant


def test_each_mail_has_its_way() -> None:
    ways = measure(Postroom(), 3)
    assert len(ways) == 3
    assert all(0 < way.answered < 10_000 and 0 < way.delivered < 10_000 for way in ways)


class Keyless(Postroom):
    """Asks without its key."""

    @contextlib.contextmanager
    def run(self, variant: Variant, relay: Relay, folder: Path) -> Iterator[Running]:
        with super().run(variant, relay, folder) as running:
            yield replace(running, fields={})


def test_one_that_is_refused_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="401"):
        measure(Keyless(), 1)
