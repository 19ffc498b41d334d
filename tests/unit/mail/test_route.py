"""Routes and their stored form."""

import pytest

from service.mail.route import Route, envelope_in, ordered, refused_by, unfit_for

NEEDS = ("+cc+.exe+25M!tencent!other-1~small", ("cc", ".exe", "25M", "!tencent", "!other-1", "~small"))


@pytest.mark.parametrize(
    "route",
    [Route("acme"), Route("acme", "netease"), Route("acme", "", "a|b@c.example"), Route("acme", "", "a+b!c@d.example", NEEDS[1]),
     Route("acme", "netease", "", ("cc",)), Route("acme", "", "", ("!ses",)), Route("acme", "netease", "a~b@c.example", ("~netease",)), Route("acme", "netease", "x@y.example", ("smtputf8", "2M"))],
)  # fmt: skip
def test_a_route_survives_its_stored_form(route: Route) -> None:
    assert Route.parse(route.key) == route


@pytest.mark.parametrize(
    ("key", "route"),
    [("acme||", Route("acme")), ("acme|netease|", Route("acme", "netease")), ("acme||me+tag@x.example", Route("acme", "", "me+tag@x.example")),
     (f"acme|{NEEDS[0]}|me@x.example", Route("acme", "", "me@x.example", NEEDS[1]))],
)  # fmt: skip
def test_stored_forms_with_and_without_needs_are_read(key: str, route: Route) -> None:
    assert Route.parse(key) == route
    assert route.key == key


def test_equal_needs_are_one_route_in_whatever_order_they_were_found() -> None:
    assert ordered([".exe", "cc", ".exe"], ["b", "a"]) == ordered(["cc", ".exe"], ["a", "b", "a"])


def test_a_relay_that_refused_is_told_from_one_whose_name_begins_alike() -> None:
    needs = ordered(["cc"], ["ses-2"])
    assert refused_by(needs, "ses-2")
    assert not refused_by(needs, "ses")
    assert not refused_by(needs, "cc")


def test_relays_that_were_found_unable_are_added_and_taken_out_again() -> None:
    accepted = Route("acme", "", "me@x.example", ("cc", "!ses"))
    route = accepted.without("small").without("old").without("small")
    assert route.key == "acme|+cc!ses~old~small|me@x.example"
    assert Route.parse(route.key).unfit == ("old", "small")
    assert accepted.without("old").without("small") == route, "in whatever order"
    assert route.as_accepted() == accepted
    assert accepted.unfit == ()


@pytest.mark.parametrize("address", ["a+b!c~d@e.example", '"x|y z"@e.example', "bounces@e.example", "用户@例子.公司", "a%40@e.example"])  # fmt: skip
def test_an_envelope_that_a_relay_refused_stands_in_the_route_once(address: str) -> None:
    accepted = Route("acme", "", "me|x@x.example", ("cc", "!ses"))
    route = accepted.without("small").with_envelope(address).with_envelope("other@x.example").with_envelope(address)
    assert Route.parse(route.key) == route == accepted.with_envelope(address).without("small")
    assert envelope_in(route.needs) == address
    assert (route.unfit, refused_by(route.needs, "ses"), unfit_for(route.needs, "small")) == (("small",), True, True)
    assert envelope_in(accepted.needs) == ""


def test_a_relay_that_was_found_unable_did_not_refuse_at_the_door() -> None:
    needs = Route("acme").without("ses-2").needs
    assert unfit_for(needs, "ses-2")
    assert not unfit_for(needs, "ses")
    assert not refused_by(needs, "ses-2")
