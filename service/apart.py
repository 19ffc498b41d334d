"""Two processes for one machine: one answers requests, one sends, so that each has a core.

This file starts both, hands signals on to them, and ends both when one has ended, for one without the other is half a
service: whoever supervises us starts us again. It refuses to know what they do; they meet in the store.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

from service.settings import PREFIX, Settings

_SPARE = 5.0  # seconds beyond the grace, to close the store


async def run(settings: Settings, flags: Sequence[str]) -> int:
    """Until a signal, or until one of the two ends; the exit status, 1 when one of them had a fault.

    flags: of the command line, for both.
    """
    processes = [
        await _start("sender", flags, {f"{PREFIX}PORT": str(sender_port(settings))}),
        await _start("api", flags, {}),
    ]
    loop = asyncio.get_running_loop()
    asked_to_end = asyncio.Event()

    def end(number: signal.Signals) -> None:
        asked_to_end.set()
        _hand_on(processes, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, _hand_on, processes, signal.SIGHUP)
    ends = [asyncio.ensure_future(each.wait()) for each in processes]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not asked_to_end.is_set():  # a second signal would cut its drain short
        end(signal.SIGTERM)
    await asyncio.wait(ends, timeout=settings.drain_delay + settings.drain_grace + _SPARE)
    _hand_on(processes, signal.SIGKILL)
    return int(any(await asyncio.gather(*ends)))


def sender_port(settings: Settings) -> int:
    """Where the sending process answers what orchestrators and monitors ask: by default the next port."""
    if settings.sender_port is not None:
        return settings.sender_port
    return settings.port + 1 if 0 < settings.port < 65535 else 0


async def _start(role: str, flags: Sequence[str], environment: dict[str, str]) -> Process:
    """A process in a group of its own: what a terminal sends to ours it gets from us, once.

    It ends when its standard input does, which is ours alone: so it outlives us for no longer than it drains.
    """
    command = [sys.executable, "-m", "service", "serve", "--role", role, "--until-stdin-ends", *flags]
    return await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stdin=PIPE, start_new_session=True
    )


def _hand_on(processes: Sequence[Process], number: signal.Signals) -> None:
    for each in processes:
        if each.returncode is None:
            each.send_signal(number)
