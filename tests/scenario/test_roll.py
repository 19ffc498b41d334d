"""A rolling restart loses nothing, doubles nothing, and refuses no client that heeds /readyz. tests/soak/roll has the long form."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.roll import roll
from tests.support.postgres import shared_server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/post.db"
        return
    url = shared_server().new_database()
    yield url
    shared_server().give_back(url)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("roles", [("all", "all"), ("api", "sender")], ids="+".join)
def test_stops_in_turn_under_load_lose_double_and_refuse_nothing(
    roles: tuple[str, str], database_url: str, tmp_path: Path
) -> None:
    summary = roll(tmp_path, database_url, roles, times=2, seed=20261125)
    assert summary.good, str(summary)
    assert len(summary.accepted) > 50
