"""What EHLO's SIZE says, and what of a delivery a session can carry by it."""

import pytest

from service.mail.envelope import Envelope
from service.mail.outcome import Failure
from service.relay.fitting import incapable, size_in


@pytest.mark.parametrize(
    ("told", "octets"),
    [("1000", 1000), ("", None), ("0", None), ("0001000", 1000), ("9" * 18, 10**18 - 1), ("-1", None), ("1 2", None)],
)
def test_a_bound_is_what_is_written_as_one(told: str, octets: int | None) -> None:
    assert size_in({"size": told}) == octets


@pytest.mark.parametrize("told", ["18446744073709551615", "9" * 20, "9" * 5000, "²", "٣"])
def test_a_bound_that_no_store_can_keep_or_that_is_no_number_is_none(told: str) -> None:
    """RFC 1870 lets 20 digits stand there; 64 bits take 18, and Python reads neither 5,000 nor a superscript."""
    assert size_in({"size": told}) is None
    assert incapable(Envelope("a@x.example", ("b@x.example",), 10), {"size": told}) is None


def test_a_message_over_the_bound_is_not_sent() -> None:
    found = incapable(Envelope("a@x.example", ("b@x.example",), 1001), {"size": "1000"})
    assert found == (Failure.CAPABILITY, "the relay takes at most 1000 octets (SIZE), the message has 1001")
