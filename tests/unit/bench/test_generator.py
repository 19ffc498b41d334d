"""The benchmark's clients: every request goes out once, and what was accepted, refused or dropped is told apart."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bench.rivals.generator import Job, perform

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}"
HELD_SECONDS = 0.3
CONNECTIONS: list[asyncio.StreamWriter] = []  # that the last server was given


@asynccontextmanager
async def server(
    answer: Callable[[int], bytes | None], hold_first: float = 0
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port, and the bodies that came. `answer`: to the request with this number; None hangs up."""
    bodies: list[bytes] = []
    CONNECTIONS.clear()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        CONNECTIONS.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                number = len(bodies) - 1
                if number == 0 and hold_first:
                    await asyncio.sleep(hold_first)
                if (reply := answer(number)) is None:
                    break
                writer.write(reply)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], bodies


def job(port: int, count: int, clients: int, **more: float) -> Job:
    return Job(port, "/send", "simple", "r", count, clients, **more)  # type: ignore[arg-type]


async def test_every_message_is_asked_for_once_and_what_was_refused_is_not_accepted() -> None:
    async with server(lambda number: REFUSED if number == 3 else ACCEPTED) as (port, bodies):
        result = await perform(job(port, 40, 4))
    assert result.statuses == {"202": 39, "429": 1}
    assert len(set(bodies)) == 40
    assert len(set(result.accepted)) == 39


async def test_a_client_that_is_hung_up_on_comes_again_and_its_request_counts_as_closed() -> None:
    async with server(lambda number: None if number in (0, 5) else ACCEPTED) as (port, bodies):
        result = await perform(job(port, 20, 1))
    assert result.statuses == {"202": 18, "closed": 2}
    assert len(bodies) == 20, "a request that may have been taken is not sent again"


async def test_no_more_connections_are_opened_than_there_is_work_for() -> None:
    async with server(lambda number: ACCEPTED) as (port, bodies):
        few = await perform(job(port, 3, 50))
    assert few.statuses == {"202": 3}
    assert len(bodies) == 3
    assert len(CONNECTIONS) == 3


async def test_nobody_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await perform(job(port, 5, 2))


async def test_an_open_load_charges_a_stall_to_all_who_were_due_meanwhile() -> None:
    async with server(lambda number: ACCEPTED, HELD_SECONDS) as (port, _):
        result = await perform(job(port, 20, 1, rate=1000.0))
    assert result.p50 > HELD_SECONDS * 1000 / 2, "all 20 were due within 20 ms, behind the one that was held"


async def test_a_batch_is_one_request() -> None:
    async with server(lambda number: ACCEPTED) as (port, bodies):
        result = await perform(Job(port, "/send/batch", "postroom-batch", "r", 25, 2, batch=10))
    assert len(bodies) == 3
    assert sorted(result.accepted) == sorted(f"r-{number}" for number in range(25))
