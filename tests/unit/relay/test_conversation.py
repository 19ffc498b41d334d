"""What a conversation says of a transport that has ended and did not tell yet."""

import pytest

from service.mail.outcome import Failure
from service.relay.conversation import Conversation, Lost


class Transport:
    """It was reset, or not; `connection_lost` has not been called."""

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset

    def is_closing(self) -> bool:
        return self.reset


async def test_a_transport_that_was_reset_is_lost_before_it_says_so_and_takes_no_content() -> None:
    with pytest.raises(Lost) as caught:
        Conversation(Transport(reset=True)).unasked()
    assert caught.value.failure is Failure.LOST
    assert Conversation(Transport(reset=False)).unasked() is None
