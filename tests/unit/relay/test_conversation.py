"""What a conversation says of a transport that has ended and did not tell yet, and of one that does not end."""

import pytest

from service.mail.outcome import Failure
from service.mail.reply_id import id_in
from service.relay.conversation import Conversation, Lost
from service.relay.hidden import Hidden


class Transport:
    """It was reset, or not; `connection_lost` has not been called."""

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset

    def is_closing(self) -> bool:
        return self.reset

    def close(self) -> None:
        self.reset = True


async def test_a_transport_that_was_reset_is_lost_before_it_says_so_and_takes_no_content() -> None:
    with pytest.raises(Lost) as caught:
        Conversation(Transport(reset=True)).unasked()
    assert caught.value.failure is Failure.LOST
    assert Conversation(Transport(reset=False)).unasked() is None


async def test_a_relay_that_talks_on_though_nobody_asks_is_left_and_what_it_said_first_still_counts() -> None:
    """Between two messages nobody reads: whatever comes would be kept."""
    transport = Transport(reset=False)
    conversation = Conversation(transport)
    conversation.data_received(b"250 taken\r\n")
    for _ in range(100):
        conversation.data_received(b"250 \r\n" * 1000)
    assert transport.is_closing()
    assert not conversation.usable
    assert conversation.ended is not None
    assert conversation.ended.failure is Failure.PROTOCOL
    assert (await conversation.reply(1)).text == "taken"
    kept = 0
    while conversation.arrived() is not None:
        kept += 1
    assert 1002 < kept < 10_000, "as many as a message with a thousand recipients has, and no more by the minute"


async def test_no_name_of_a_message_is_read_out_of_the_secret_that_a_relay_says_back() -> None:
    hidden = Hidden()
    hidden.add("SG.0123456789abcdefghij")
    conversation = Conversation(Transport(reset=False), hidden)
    conversation.data_received(b"250 Ok: queued as SG.0123456789abcdefghij\r\n250 Ok: queued as 4WxyZ0abcd\r\n")
    assert [id_in((await conversation.reply(1)).text) for _ in range(2)] == [None, "4WxyZ0abcd"]
