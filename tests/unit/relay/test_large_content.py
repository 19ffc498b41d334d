"""A large content is handed over piece by piece: it is not held a second time."""

import time
import tracemalloc

from service.relay.content import BLOCK
from service.relay.conversation import Conversation
from service.relay.session import Timeouts
from service.relay.transaction import Transaction
from tests.support.relaying import outgoing

LINE = b"x" * 76 + b"\r\n"
CONTENT = (b"Subject: x\r\n\r\n", LINE * 100_000)


class Transport:
    """Takes everything at once and answers as a relay does."""

    def __init__(self) -> None:
        self.conversation: Conversation | None = None
        self.taken = 0

    def write(self, data: bytes) -> None:
        assert self.conversation is not None
        if data.endswith(b"DATA\r\n"):
            self.conversation.data_received(b"250 ok\r\n250 ok\r\n354 go\r\n")
            return
        self.taken += len(data)
        if data.endswith(b"\r\n.\r\n"):
            self.conversation.data_received(b"250 taken\r\n")

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing."""

    abort = close


async def test_a_large_content_goes_out_without_a_second_copy_of_it() -> None:
    transport = Transport()
    conversation = transport.conversation = Conversation(transport)
    sent = outgoing(content=CONTENT)
    transaction = Transaction(
        conversation, {"pipelining": ""}, sent, Timeouts(), pipelining=True, monotonic=time.monotonic
    )
    assert transaction.fits()
    await transaction.begin()
    assert await transaction.envelope()
    tracemalloc.start()
    try:
        await transaction.content(lambda: None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [each.reply.code for each in transaction.report().results if each.reply] == [250]
    assert transport.taken == sum(map(len, CONTENT)) + len(b".\r\n")
    assert most < 8 * BLOCK
