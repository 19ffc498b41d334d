"""A process that is killed at any named place of the code breaks no promise: on both databases, in a real process."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import failpoints
from service.errors import ConfigurationError
from tests.soak.fleet import Fleet
from tests.soak.places import OF_THE_STORE, kill_at_each
from tests.soak.sink import JudgingSink
from tests.support.postgres import shared_server
from tests.support.process import ROOT


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("", allowed=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/post.db"
        return
    url = shared_server().new_database()
    yield url
    shared_server().give_back(url)


@pytest.mark.timeout(300)
def test_a_kill_at_every_named_place_breaks_no_promise(database_url: str, tmp_path: Path) -> None:
    """On PostgreSQL only at those of its own code: `make soak` kills at the others there too."""
    with JudgingSink(tmp_path) as sink:
        names = tuple(failpoints.NAMES) if database_url.startswith("sqlite") else OF_THE_STORE
        verdict = kill_at_each(Fleet(tmp_path, sink, database_url), names)
    assert verdict.broken == [], verdict.figures
    assert verdict.figures["promised"] >= len(names)
    assert verdict.figures["attempts in doubt"] > 0, "no death fell between the final dot and its record"


def test_every_place_is_passed_somewhere_in_the_code_and_no_other() -> None:
    called = [
        name
        for file in (ROOT / "service").rglob("*.py")
        for name in re.findall(r'failpoints\.passed\("([^"]+)"\)', file.read_text(encoding="utf-8"))
    ]
    assert set(called) == set(failpoints.NAMES)


def test_the_docs_list_every_place() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z._0-9]+)` \| (.+) \|$", text, re.MULTILINE))
    assert rows == failpoints.NAMES


@pytest.mark.usefixtures("disarmed")
def test_places_are_refused_unless_a_test_allows_them() -> None:
    with pytest.raises(ConfigurationError, match="POSTROOM_FAILPOINTS_ALLOWED"):
        failpoints.arm("mail.before=raise", allowed=False)
    failpoints.passed("mail.before")  # nothing was armed


@pytest.mark.usefixtures("disarmed")
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("mail.after=kill", "`mail.after`"),
        ("mail.before=explode", "`explode`"),
        ("mail.before", "mail.before"),
        ("mail.before=sleep", "`sleep`"),
        ("mail.before=kill@0", "`kill@0`"),
    ],
)
def test_a_place_or_an_action_that_is_unknown_stops_the_start(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        failpoints.arm(text, allowed=True)
    assert named in refused.value.detail


@pytest.mark.usefixtures("disarmed")
def test_a_place_acts_each_time_or_the_nth_time_only() -> None:
    failpoints.arm("settle.before=raise@2, mail.before=raise, settle.after=sleep:0", allowed=True)
    failpoints.passed("settle.before")
    failpoints.passed("settle.after")
    failpoints.passed("dot.written")
    with pytest.raises(failpoints.FailpointRaised, match=r"settle\.before"):
        failpoints.passed("settle.before")
    failpoints.passed("settle.before")
    for _ in range(2):
        with pytest.raises(failpoints.FailpointRaised):
            failpoints.passed("mail.before")
