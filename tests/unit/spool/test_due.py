"""Which routes are asked, in which order, and how slots are shared."""

from service.spool.due import DueLanes, share
from service.spool.holds import Holds
from service.store.values import DueRoute, Held, Want


def test_a_route_is_asked_once_its_first_recipient_is_due() -> None:
    lanes = DueLanes()
    lanes.add("a||", 1, 100)
    assert lanes.routes(99) == []
    assert lanes.routes(100) == ["a||"]
    assert lanes.next_due() == 100


def test_taking_a_route_forgets_what_was_due_and_keeps_what_is_later() -> None:
    lanes = DueLanes()
    lanes.add("a||", 1, 100)
    lanes.add("a||", 2, 900)
    assert [lanes.next_due(after) for after in (99, 100, 900)] == [100, 900, None]
    lanes.take("a||", 100)
    assert lanes.next_due() == 900
    assert lanes.routes(100) == []


def test_urgent_routes_are_those_with_high_priority_due() -> None:
    lanes = DueLanes()
    lanes.add("a||", 0, 100)
    lanes.add("b||", 1, 0)
    lanes.add("c||", 0, 900)
    assert (lanes.urgent(99), lanes.urgent(100)) == ([], ["a||"])
    lanes.take("a||", 100)
    lanes.take("b||", 100)
    assert lanes.urgent(100) == []
    assert lanes.urgent(900) == ["c||"], "one that is asked for what is due keeps what is later"


def test_looking_takes_no_turn() -> None:
    """A claim is always preceded by a look: were both a turn, of two routes the same would come first in each claim."""
    lanes = DueLanes()
    for account in "ab":
        lanes.add(f"{account}||", 0, 0)
    assert lanes.routes(0) == lanes.routes(0)
    assert lanes.urgent(0) == lanes.urgent(0)
    first = lanes.routes(0)[0]
    lanes.next_turn()
    assert lanes.routes(0)[0] != first
    assert lanes.urgent(0)[0] != first


def test_the_earlier_of_two_hints_stays() -> None:
    lanes = DueLanes()
    lanes.add("a||", 1, 100)
    lanes.learn([DueRoute("a||", 1, 500), DueRoute("b||", 1, 50)])
    assert lanes.next_due() == 50
    assert sorted(lanes.routes(100)) == ["a||", "b||"]


def test_the_most_urgent_lane_comes_first() -> None:
    lanes = DueLanes()
    lanes.add("a||", 2, 0)
    lanes.add("b||", 1, 0)
    lanes.add("c||", 0, 0)
    assert lanes.routes(0) == ["c||", "b||", "a||"]


def test_accounts_take_turns_whatever_number_of_routes_they_have() -> None:
    lanes = DueLanes()
    for sender in "abcdefgh":
        lanes.add(f"big||{sender}@x.example", 1, 0)
    lanes.add("small||", 1, 0)
    places = []
    for _ in range(9):
        lanes.next_turn()
        places.append(lanes.routes(0).index("small||"))
    assert sorted(places) == list(range(9)), "each place in turn"


def test_slots_are_shared_in_equal_parts_and_the_rest_goes_to_the_first() -> None:
    wants = share({"r": 5}, [("a||", ["r"]), ("b||", ["r"])])
    assert wants == [Want("a||", "r", 3), Want("b||", "r", 2)]


def test_a_route_falls_over_to_its_next_relay_when_the_first_is_full() -> None:
    wants = share({"r": 1, "s": 2}, [("a||", ["r", "s"])])
    assert wants == [Want("a||", "r", 1), Want("a||", "s", 2)]


def test_no_slot_means_no_want() -> None:
    assert share({"r": 0}, [("a||", ["r"])]) == []
    assert share({"r": 3}, []) == []


def test_only_the_priorities_that_are_asked_for_are_taken_and_they_are_told() -> None:
    lanes = DueLanes()
    for priority, due_at in ((0, 100), (1, 50), (2, 900)):
        lanes.add("a||", priority, due_at)
    assert lanes.urgency("a||", 100) == 0
    assert lanes.take("a||", 100, least=0) == {0: 100}
    assert lanes.urgency("a||", 100) == 1
    assert lanes.take("a||", 100) == {1: 50}
    assert lanes.next_due() == 900


def test_a_hold_ends_by_itself_and_high_priority_has_its_own() -> None:
    holds = Holds()
    holds.learn([Held("r", 1, 500, "5/h")], 0)
    assert [holds.held("r", priority, 499) for priority in (0, 1, 2)] == [False, True, True]
    assert holds.next_end(499) == 500
    holds.learn([Held("r", 0, 300, "5/h")], 299)
    assert holds.held("r", 0, 299)
    assert holds.next_end(299) == 300
    assert not holds.held("r", 0, 300)
    assert holds.held("r", 1, 300)
    assert holds.next_end(500) is None
    assert not holds.held("s", 1, 0)


def test_what_was_given_back_ends_a_hold() -> None:
    holds = Holds()
    holds.learn([Held("r", 1, 500, "5/h"), Held("s", 1, 600, "5/h")], 0)
    holds.forget("r")
    assert not holds.held("r", 1, 0)
    assert holds.next_end(0) == 600


def test_a_hold_that_was_learnt_by_a_clock_that_was_ahead_is_over_once_the_clock_is_right() -> None:
    holds, hour = Holds(), 3_600_000
    holds.learn([Held("r", 0, hour + 10_000, "2/10s")], hour)
    assert holds.held("r", 1, hour + 9_999)
    assert not holds.held("r", 1, 5_000), "the store is asked again"
    holds.learn([Held("r", 0, 12_000, "2/10s")], 5_000)
    assert holds.held("r", 1, 11_999), "and what it says then counts"
    assert holds.next_end(0) is None
