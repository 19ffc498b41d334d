"""The suppression list asked ahead: once for many, never for less than is needed."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from service.spool.suppressing import Suppressions
from service.store.shown import Suppression
from service.store.sqlite.store import SQLiteStore
from tests.support.clock import EPOCH, SteppedClock


class Asked(SQLiteStore):
    """A store that notes whom it is asked about."""

    questions: list[tuple[str, ...]]

    async def suppressed(self, account: str, emails: Sequence[str], category: str = "") -> Mapping[str, str]:
        self.questions.append(tuple(emails))
        return await super().suppressed(account, emails, category)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Asked]:
    made = Asked(str(tmp_path / "post.db"), SteppedClock(), "me")
    made.questions = []
    await made.open()
    for email, reason, category in (
        ("gone@example.org", "bad_address", ""),
        ("quiet@example.org", "unsubscribe", "news"),
    ):
        await made.add_suppression("acme", Suppression(email, reason, "api", EPOCH, None, "", category))
    yield made
    await made.close()


async def test_whoever_was_asked_for_ahead_is_not_asked_for_again(store: Asked) -> None:
    suppressions = Suppressions(store, "acme")
    await suppressions.ask_ahead({"": ["gone@example.org", "a@example.org", "b@example.org"]})
    assert "gone@example.org" in await suppressions.reasons(["gone@example.org"], "")
    assert "a@example.org" not in await suppressions.reasons(["a@example.org", "b@example.org"], "")
    assert store.questions == [("gone@example.org", "a@example.org", "b@example.org")]


async def test_one_of_whom_nothing_is_known_is_asked_for_then(store: Asked) -> None:
    """The staging guard may put another address in the place of those that were asked for."""
    suppressions = Suppressions(store, "acme")
    await suppressions.ask_ahead({"": ["a@example.org"]})
    assert await suppressions.reasons(["a@example.org", "gone@example.org"], "") == {"gone@example.org": "bad_address"}


async def test_an_answer_for_one_category_is_none_for_another(store: Asked) -> None:
    suppressions = Suppressions(store, "acme")
    await suppressions.ask_ahead({"": ["quiet@example.org"], "news": ["quiet@example.org"]})
    assert await suppressions.reasons(["quiet@example.org"], "") == {}
    assert await suppressions.reasons(["quiet@example.org"], "news") == {"quiet@example.org": "unsubscribe from news"}
    assert await suppressions.reasons(["quiet@example.org"], "offers") == {}
    assert len(store.questions) == 3


async def test_many_addresses_are_asked_for_in_one_call(store: Asked) -> None:
    crowd = [f"user{number}@example.org" for number in range(500)]
    assert await store.suppressed("acme", [*crowd, "gone@example.org", "GONE@example.org"]) == {
        "gone@example.org": "bad_address"
    }
