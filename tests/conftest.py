"""What every test shares: a clock that stands still until it is told to move, and the rule that in CI nothing skips.

In CI (POSTROOM_CI=1) a skipped test fails the run, and the number of tests that ran must be the one in tests/COUNT, so
that tests can't vanish unseen. Change the number in the commit that adds or removes tests.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clock import SteppedClock
from tests.support.linted import Linted

IN_CI = os.environ.get("POSTROOM_CI") == "1"
COUNT_FILE = Path(__file__).with_name("COUNT")


@pytest.fixture
def clock() -> SteppedClock:
    """A clock that moves only when told."""
    return SteppedClock()


@pytest.fixture(autouse=True)
def _every_message_is_linted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test is about, the messages that it makes keep the rules of the RFCs."""
    linted = Linted(monkeypatch)
    yield
    assert linted.faults() == []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested on this machine, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and not IN_CI:
        terminalreporter.write_sep("!", f"{len(skipped)} tests were SKIPPED on this machine; see the reasons above")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI: no skip, and exactly the expected number of tests."""
    if not IN_CI or session.config.option.collectonly or exitstatus not in (0, 1):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    skipped = len(reporter.stats.get("skipped", []))
    expected = int(COUNT_FILE.read_text())
    if skipped or session.testscollected != expected:
        reporter.write_sep(
            "!",
            f"CI: {skipped} skipped (0 allowed), {session.testscollected} collected ({expected} expected)",
            red=True,
        )
        session.exitstatus = 1
