"""Routes and their stored form."""

import pytest

from service.mail.route import Route


@pytest.mark.parametrize("route", [Route("acme"), Route("acme", "netease"), Route("acme", "", "a|b@c.example")])
def test_a_route_survives_its_stored_form(route: Route) -> None:
    assert Route.parse(route.key) == route
