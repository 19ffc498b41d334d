"""From a host name to a connected socket. It knows addresses and deadlines, and nothing of TLS or SMTP.

Each address gets its share of the deadline: one that swallows packets must not use up the time of the next.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.mail.outcome import Failure, Phase
from service.relay.failure import SessionFailure


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host name leads to."""

    family: int
    place: Any  # as the family has it: (host, port, ...)

    def __str__(self) -> str:
        return str(self.place[0])


async def resolve(host: str, port: int, timeout: float) -> list[Address]:
    """All addresses of a host, in the order of the system (RFC 6724). Raises SessionFailure; `timeout` is in seconds."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise _unresolved(host, f"no answer of the DNS within {timeout:g} s") from None
    except OSError as error:
        raise _unresolved(host, error.strerror or str(error)) from None
    except UnicodeError:
        raise _unresolved(host, "no valid host name") from None
    addresses = [Address(family, place) for family, _, _, _, place in found]
    if not addresses:
        raise _unresolved(host, "no address")
    return addresses


def _unresolved(host: str, words: str) -> SessionFailure:
    return SessionFailure(Phase.CONNECT, failure=Failure.DNS, detail=f"{host}: {words}")


async def dial(addresses: Sequence[Address], port: int, timeout: float) -> socket.socket:
    """A socket connected to the first address that answers. Raises SessionFailure that names each that did not."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout
    tried: list[str] = []
    failure = Failure.TIMEOUT
    for number, address in enumerate(addresses):
        share = max(ends - loop.time(), 0) / (len(addresses) - number)
        try:
            async with asyncio.timeout(share):
                return await _connected(address)
        except TimeoutError:
            tried.append(f"{address}: no answer within {share:.1f} s")
        except OSError as error:
            failure = Failure.REFUSED
            tried.append(f"{address}: {os.strerror(error.errno) if error.errno else error}")
    raise SessionFailure(Phase.CONNECT, failure=failure, detail=f"port {port}: {'; '.join(tried)}")


async def _connected(address: Address) -> socket.socket:
    made = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, address.place)
    except BaseException:
        made.close()
        raise
    return made
