"""The list of mutants stays true while the code moves: the words that a mutant changes stand in their file once."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOT, Mutant, faults, load


@pytest.mark.parametrize("mutant", load(), ids=lambda mutant: mutant.name)
def test_the_words_of_a_mutant_and_its_test_are_there(mutant: Mutant) -> None:
    assert faults([mutant]) == []
    for place in mutant.test.split():
        file, _, name = place.partition("::")
        assert (ROOT / file).exists()
        assert not name or f"def {name}(" in (ROOT / file).read_text()


def test_a_mutant_whose_words_are_gone_is_a_fault() -> None:
    gone = Mutant("gone", [("service/__init__.py", "words that stand nowhere", "")], "tests")
    assert len(faults([gone])) == 1


def test_at_least_thirty_guards_are_broken() -> None:
    assert len(load()) >= 30
    assert len({each.name for each in load()}) == len(load())
    assert all(Path(ROOT / file).suffix in (".py", ".sql", ".toml") for each in load() for file, _, _ in each.changes)
