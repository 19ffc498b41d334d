"""Which relays may carry a message and in which order: by sender, by its needs, by priority, weight and kept senders."""

from collections import Counter
from typing import Any

import pytest

from service.clock import SYSTEM
from service.mail.envelope import Offer
from service.relay.config import relay_from
from service.relay.router import Router
from service.settings import load

MIB = 1024 * 1024


def router(**relays: dict[str, Any]) -> Router:
    """Relays that nobody connects to."""
    configs = [
        relay_from(name, {"url": f"smtp://{name}%40x.example:s@127.0.0.1:9?plaintext=allow", **values}, name)
        for name, values in relays.items()
    ]
    return Router(configs, load(), SYSTEM)


def names(relays: Router, sender: str = "", pinned: str | None = None, needs: tuple[str, ...] = ()) -> list[str]:
    return [relay.name for relay in relays.candidates(sender, pinned, needs)]


# --- by sender ----------------------------------------------------------------------------------------------------------


async def test_addresses_and_domains_choose_the_relay() -> None:
    relays = router(a={"from": ["news@x.example"]}, b={"from": ["y.example"]}, c={"priority": 2})
    assert names(relays, "News@X.example") == ["a", "c"]
    assert names(relays, "anybody@Y.example") == ["b", "c"]
    assert names(relays, "other@x.example") == ["c"]
    assert names(relays, "anybody@sub.y.example") == ["c"], "a domain does not stand for those below it"


async def test_a_sender_that_is_not_known_goes_by_relays_that_take_any() -> None:
    """A route that was stored while no relay minded its sender must not go by one that does."""
    assert names(router(a={"from": ["x.example"]}, b={}), "") == ["b"]
    assert names(router(a={"sender_must_equal_login": True}, b={}), "") == ["b"]
    both = router(a={"from": ["x.example"]}, b={"from": ["y.example"], "priority": 2})
    assert names(both, "") == ["a", "b"], "where each minds, the one that took it then is among them"


@pytest.mark.parametrize(
    ("relays", "decides"),
    [({"a": {}}, False), ({"a": {}, "b": {}}, False), ({"a": {"from": ["x.example"]}}, True), ({"a": {"sender_must_equal_login": True}}, True),
     ({"a": {"sender_must_equal_login": True, "rewrite_from": True}}, False), ({"a": {"sticky": True}}, False),
     ({"a": {"sticky": True}, "b": {}}, True), ({"a": {"sticky": True}, "b": {"priority": 2}}, False)],
)  # fmt: skip
async def test_the_sender_is_part_of_the_route_where_any_relay_minds(relays: Any, decides: bool) -> None:
    assert router(**relays).sender_decides() is decides


# --- by needs -----------------------------------------------------------------------------------------------------------


async def test_a_relay_is_left_out_where_its_limits_refuse_a_need_or_it_refused_the_message_itself() -> None:
    relays = router(
        a={"cc": False, "forbidden_extensions": [".exe"]}, b={"max_bytes": 5 * MIB, "priority": 2}, c={"priority": 3}
    )
    assert names(relays) == ["a", "b", "c"]
    assert names(relays, needs=("cc",)) == ["b", "c"]
    assert names(relays, needs=(".exe", "6M")) == ["c"]
    assert names(relays, needs=("!c", ".exe")) == ["b"]
    assert names(relays, "", "a", ("cc",)) == [], "not even where it is pinned"
    assert names(relays, "", "a", (".js",)) == ["a"]


async def test_what_relays_offer_decides_while_one_of_them_offers_it() -> None:
    relays = router(a={}, b={"priority": 2})
    relays.get("a").told(Offer(smtputf8=False, max_size=MIB))
    assert names(relays, needs=("smtputf8",)) == ["b"]
    assert names(relays, needs=("3M",)) == ["b"]
    relays.get("b").told(Offer(smtputf8=False, max_size=None))
    assert names(relays, needs=("smtputf8",)) == ["a", "b"], "none does: the next session tells it, instead of silence"


# --- equals -------------------------------------------------------------------------------------------------------------

EQUALS = {"a": {"sticky": True}, "b": {"weight": 2}, "c": {}, "spare": {"priority": 2}}
SENDERS = [f"sender-{number}@x.example" for number in range(4000)]


async def test_a_sender_keeps_to_one_of_equal_relays_and_senders_are_shared_by_weight() -> None:
    relays = router(**EQUALS)
    first = {sender: names(relays, sender)[0] for sender in SENDERS}
    assert all(names(relays, sender.upper())[0] == relay for sender, relay in first.items())
    shares = {name: count / len(SENDERS) for name, count in Counter(first.values()).items()}
    assert shares == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.25}, abs=0.03)


async def test_without_it_each_message_is_drawn_anew() -> None:
    relays = router(**{**EQUALS, "a": {}})
    first = Counter(names(relays, "me@x.example")[0] for _ in range(4000))
    assert {name: count / 4000 for name, count in first.items()} == pytest.approx(
        {"a": 0.25, "b": 0.5, "c": 0.25}, abs=0.04
    )


async def test_when_a_relay_goes_only_its_own_senders_move_and_they_move_by_weight() -> None:
    kept = {name: {**values, "sticky": True} for name, values in EQUALS.items() if name != "a"}
    before, after = router(a={}, **kept), router(**kept)
    moved: Counter[str] = Counter()
    for sender in SENDERS:
        was, now = names(before, sender)[0], names(after, sender)[0]
        if was == "a":
            moved[now] += 1
        else:
            assert now == was
    assert {name: count / moved.total() for name, count in moved.items()} == pytest.approx(
        {"b": 2 / 3, "c": 1 / 3}, abs=0.05
    )


async def test_mail_waits_for_the_relay_its_sender_keeps_to_and_goes_by_the_next_when_that_is_shut() -> None:
    relays = router(**EQUALS)
    ranked = names(relays, "me@x.example")
    now = SYSTEM.now()
    assert list(relays.preferred(ranked, now)) == ranked[:1]
    await relays.get(ranked[0]).hold("a test")
    assert list(relays.preferred(ranked, now)) == [ranked[1]]
    assert list(relays.preferred(ranked[1:], now)) == [ranked[1]], "one whose quota is used up is not asked about"
    for name in ranked[1:3]:
        await relays.get(name).hold("a test")
    assert list(relays.preferred(ranked, now)) == ["spare"]
    await relays.get(ranked[0]).resume()
    assert list(relays.preferred(ranked, now)) == ranked[:1], "and back again"


async def test_relays_that_are_not_sticky_are_all_preferred() -> None:
    relays = router(a={}, b={}, c={"sticky": True, "priority": 2})
    await relays.get("a").hold("a test")
    assert list(relays.preferred(["a", "b", "c"], SYSTEM.now())) == ["a", "b", "c"]
