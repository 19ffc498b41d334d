"""What a sender believes of its leases: never more than the store can have given."""

from service.spool.leases import Leases


def test_a_claim_holds_for_the_length_of_a_lease_from_when_it_was_asked_for() -> None:
    leases = Leases(10)
    assert leases.hold(claimed=100, now=109.9)
    assert not leases.hold(claimed=100, now=110)


def test_heartbeats_in_time_keep_a_claim() -> None:
    leases = Leases(10)
    for asked in (96, 100, 104, 108, 112):
        leases.renewed(asked, asked + 0.5)
    assert leases.hold(claimed=99, now=121)
    assert not leases.hold(claimed=99, now=122), "the last one was asked for at 112"


def test_a_heartbeat_after_standing_still_renews_nothing_that_was_over() -> None:
    leases = Leases(10)
    leases.renewed(100, 100.5)
    leases.renewed(130, 130.5)  # it stood still meanwhile
    assert not leases.hold(claimed=101, now=131)
    assert leases.hold(claimed=125, now=139), "this one was not over when it was renewed"
    leases.renewed(134, 134.5)
    assert not leases.hold(claimed=101, now=135), "nor does the next one"


def test_an_answer_that_took_longer_than_the_lease_renews_nothing_that_was_over_by_then() -> None:
    leases = Leases(10)
    leases.renewed(100, 100.5)
    leases.renewed(103, 115)
    assert not leases.hold(claimed=101, now=112)
