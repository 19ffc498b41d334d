"""Four senders on one store; some stand still for longer than their lease, and come back with results that are too late."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.settings import load
from tests.soak.fleet import LEASE, Fleet, moment
from tests.soak.sink import JudgingSink
from tests.support.postgres import shared_server
from tests.support.process import ServiceProcess
from tests.support.waiting import wait_for

LONGER = LEASE + 2  # seconds
# and than the time that processes which have just begun give others to renew: no more than a connect may take
LATER = LONGER + load().database_connect_timeout


@pytest.fixture
def database_url() -> Iterator[str]:
    url = shared_server().new_database()
    yield url
    shared_server().give_back(url)


def has_lost_a_lease(sender: ServiceProcess) -> bool:
    return any(line.get("event") == "delivery.lease_lost" for line in sender.lines)


@pytest.mark.timeout(180)
def test_senders_that_stand_still_for_longer_than_a_lease_own_nothing_any_more(
    database_url: str, tmp_path: Path
) -> None:
    """One of them stands still right after a final dot, and its result comes too late; one is stopped by a signal."""
    with JudgingSink(tmp_path, delay=0.03) as sink, ExitStack() as stack:
        fleet = Fleet(tmp_path, sink, database_url)
        late = stack.enter_context(fleet.doom(f"dot.written=sleep:{LATER * 1000:.0f}@3", role="sender"))
        fleet.lost()
        api, stopped, *_ = [stack.enter_context(each) for each in fleet.start_all("api", *["sender"] * 3)]
        with fleet.load(api, 2):
            assert wait_for(lambda: len(sink.copies()) > 20, 30)
            with fleet.paused(stopped):
                moment(LONGER)
            assert wait_for(lambda: has_lost_a_lease(late), 60), "it recorded a result under a lease that was over"
        verdict = fleet.finish(api)
    assert verdict.broken == [], verdict.figures
    assert verdict.figures["attempts in doubt"] > 0


@pytest.mark.timeout(180)
def test_a_sender_that_stands_still_right_after_its_claim_sends_nothing_of_it(
    database_url: str, tmp_path: Path
) -> None:
    """The lease counts from within the claim, and not from when the sender hears of it: the rescuer has the mail by then."""
    with JudgingSink(tmp_path, delay=0) as sink, ExitStack() as stack:
        fleet = Fleet(tmp_path, sink, database_url, in_doubt_delay=30, max_in_doubt=0)
        late = stack.enter_context(fleet.doom(f"claim.after_commit=sleep:{LATER * 1000:.0f}@1", role="sender"))
        fleet.lost()
        api = stack.enter_context(fleet.start(role="api"))
        with fleet.load(api, 1):
            assert wait_for(lambda: has_lost_a_lease(late), 60)
        verdict = fleet.finish(api)
    assert verdict.broken == [], verdict.figures
    assert verdict.figures["now unknown"] > 0, "the rescuer parks what was claimed"
    assert verdict.figures["copies"] == verdict.figures["now sent"], "what was parked was sent all the same"
