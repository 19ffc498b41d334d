"""Names and sockets: the next address is tried while there is time, and each that failed is named."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from service.mail.outcome import Failure, Phase
from service.relay.dial import Address, dial, resolve
from service.relay.failure import SessionFailure
from tests.support.logging_in import LOOPS, on_loop


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """A port that swallows what comes to it: its queue is full, and nobody accepts."""
    with contextlib.ExitStack() as held:
        listening = held.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        while True:
            filling = held.enter_context(socket.socket())
            filling.settimeout(0.2)
            try:
                filling.connect(listening.getsockname())
            except TimeoutError:
                break
        yield listening.getsockname()[1]


def at(port: int) -> Address:
    return Address(socket.AF_INET, ("127.0.0.1", port))


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.mark.parametrize("loop", LOOPS)
def test_an_address_that_swallows_everything_leaves_time_for_the_next(loop: str) -> None:
    with deaf() as port, socket.create_server(("127.0.0.1", 0)) as good:
        wanted = good.getsockname()[1]
        connected = on_loop(loop, dial([at(port), at(wanted)], 1, 3))
        assert connected.getpeername() == ("127.0.0.1", wanted)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connected.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_every_address_that_failed_is_named(loop: str, closed: int) -> None:
    with deaf() as port, pytest.raises(SessionFailure) as caught:
        on_loop(loop, dial([at(closed), at(port)], 25, 1))
    failure = caught.value
    assert (failure.phase, failure.failure) == (Phase.CONNECT, Failure.REFUSED)
    assert failure.detail.startswith("port 25: 127.0.0.1: Connection refused; 127.0.0.1: no answer within ")


@pytest.mark.parametrize("loop", LOOPS)
def test_where_no_address_answers_it_is_a_timeout(loop: str) -> None:
    with deaf() as port, pytest.raises(SessionFailure) as caught:
        on_loop(loop, dial([at(port)], 25, 0.3))
    assert caught.value.failure is Failure.TIMEOUT
    assert caught.value.detail == "port 25: 127.0.0.1: no answer within 0.3 s"


async def test_a_name_leads_to_its_addresses_and_a_wrong_one_to_a_sentence() -> None:
    assert "127.0.0.1" in map(str, await resolve("localhost", 25, 10))
    assert [str(each) for each in await resolve("::1", 25, 10)] == ["::1"]
    for name, words in (("nowhere.invalid", "nowhere.invalid: "), ("a" * 70 + ".example", "no valid host name")):
        with pytest.raises(SessionFailure) as caught:
            await resolve(name, 25, 10)
        assert (caught.value.phase, caught.value.failure) == (Phase.CONNECT, Failure.DNS)
        assert words in caught.value.detail


async def test_a_dns_that_does_not_answer_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(SessionFailure, match=r"no answer of the DNS within 0\.1 s"):
        await resolve("h.example", 25, 0.1)
