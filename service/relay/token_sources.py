"""Access tokens from this machine: what a command prints, or what stands in a file.

A command runs without a shell and is killed with its children when its time is over; a file is read at each login. What
a token looks like is oauth's.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.relay.failure import Cause
from service.relay.files import MOST_OF_A_SECRET, read_regular
from service.relay.oauth import Fetched, hash_of, no_token, parse_token

_REAP = 1.0  # seconds for a killed command to be gone


@dataclass(frozen=True, slots=True)
class Command:
    """`token_command`: a program that prints a token, or JSON with access_token and expires_in."""

    words: Sequence[str]

    async def fetch(self, timeout: float) -> Fetched:
        """See Source. What it writes to stderr is dropped: it may hold what must not be in a log."""
        name = self.words[0]
        quiet = asyncio.subprocess.DEVNULL
        try:
            transport, running = await asyncio.get_running_loop().subprocess_exec(
                _Running, *self.words, stdin=quiet, stderr=quiet, start_new_session=True
            )
        except OSError as error:
            raise no_token(Cause.TOKEN_COMMAND, f"token_command: {name}: {error.strerror}") from None
        try:
            async with asyncio.timeout(timeout):
                await running.over.wait()
        except TimeoutError:
            raise no_token(Cause.TOKEN_COMMAND, f"token_command: {name}: not done within {timeout:.3g} s") from None
        finally:
            status = transport.get_returncode()
            await _end(transport, running)
        if status:
            raise no_token(Cause.TOKEN_COMMAND, f"token_command: {name}: exit status {status}")
        return parse_token(bytes(running.output), "token_command")

    async def basis(self, timeout: float) -> str:
        """See Source. What a program reads is not known: the token that it just printed is its newest."""
        return ""


class _Running(asyncio.SubprocessProtocol):
    """What a command wrote, until it has ended and closed its output, or has written too much."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.exited, self.closed, self.over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Of stdout, the only pipe."""
        if len(self.output) <= MOST_OF_A_SECRET:
            self.output += data
        else:
            self.over.set()

    def process_exited(self) -> None:
        """Its output may still be open: a child of it may hold it."""
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has exited, and its output is closed."""
        self.closed.set()
        self.over.set()


async def _end(transport: asyncio.SubprocessTransport, running: _Running) -> None:
    """Kill what is still there, with whatever it started."""
    if not running.closed.is_set():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP):
                await running.exited.wait()
    transport.close()


@dataclass(frozen=True, slots=True)
class File:
    """`token_file`: read at each login, so that whoever renews it needs to tell nobody."""

    path: Path

    async def fetch(self, timeout: float) -> Fetched:
        """See Source."""
        content = await read_within(self.path, timeout, "token_file")
        return Fetched(parse_token(content, "token_file").value, 0, hash_of(content))

    async def basis(self, timeout: float) -> str:
        """See Source."""
        return hash_of(await read_within(self.path, timeout, "token_file"))


async def read_within(path: Path, timeout: float, key: str) -> bytes:
    """A file's content, within `timeout` seconds: a file system may be slow, or gone. Raises SessionFailure that names the key."""
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.to_thread(read_regular, path, MOST_OF_A_SECRET)
    except TimeoutError:
        raise no_token(Cause.TOKEN_FILE, f"{key}: {path}: not read within {timeout:.3g} s") from None
    except OSError as error:
        raise no_token(Cause.TOKEN_FILE, f"{key}: {path}: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise no_token(Cause.TOKEN_FILE, f"{key}: {path}: is no path") from None
