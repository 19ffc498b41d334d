"""Named places where a test may kill, pause or break the process: the proof of docs/promises.md stands on them.

This file decides what happens when the code passes such a place. It knows nothing of what stands around it. A name is armed
by POSTROOM_FAILPOINTS, which is refused unless POSTROOM_FAILPOINTS_ALLOWED says that this is a test; while none is armed,
passing a place costs one look at an empty dictionary.
"""

import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import ConfigurationError

NAMES = {
    "accept.before_commit": "a submission's rows are written, and its transaction is not committed",
    "accept.after_commit": "the submission is durable, and nobody has heard of it",
    "answer.before_202": "the answer is made, and no octet of it has left",
    "claim.quota_taken": "a claim has taken from a relay's quotas, in its transaction",
    "claim.after_commit": "deliveries are leased, and no relay has been asked",
    "mail.before": "the next octets to the relay begin with MAIL",
    "content.before_mark": "the mark that the content starts is to be written",
    "content.before": "a mark that was due is durable, and the final dot, or the chunk with all of it, is not written",
    "dot.written": "the final dot was handed to the transport, and its reply is not read",
    "settle.before": "the reply to the final dot, or a refusal, is known, and not recorded",
    "settle.within": "the attempt is closed and its recipients are not, in one transaction",
    "settle.after": "the result is durable, and nobody has heard of it",
    "rescue.within": "the rescuer has counted a kill and has not closed the attempt, in one transaction",
    "heartbeat.before": "leases are to be renewed",
    "template.publish": "a version of a template is written and is not yet the current one, in one transaction",
    "purge.within": "some bytes of closed messages are deleted, in one transaction",
}
_SETTING = "POSTROOM_FAILPOINTS"
_ACTION = re.compile(r"(?P<what>kill|raise|sleep:(?P<ms>\d{1,7}))(?:@(?P<nth>[1-9]\d{0,8}))?")


class FailpointRaised(Exception):
    """What an armed `raise` raises: an error that no code expects."""


@dataclass(slots=True)
class _Armed:
    """`left`: how often the place is passed until the action, which then happens once; None: it happens each time."""

    action: Callable[[], None]
    left: int | None


_armed: dict[str, _Armed] = {}


def passed(name: str) -> None:
    """The code is at this place. May not return, may be late, or may raise FailpointRaised."""
    if _armed:
        _act(name)


def _act(name: str) -> None:
    if (armed := _armed.get(name)) is None:
        return
    if armed.left is not None:
        armed.left -= 1
    if not armed.left:
        armed.action()


def arm(text: str, *, allowed: bool) -> None:
    """Arm the places that `text` names; the rest are disarmed. Empty: none.

    text: `name=action` with commas between. The actions are `kill` (SIGKILL to this process), `sleep:MS` (the thread stands
    still for so many milliseconds) and `raise`; with `@N` after it that happens the Nth time only, else each time.

    Raises ConfigurationError for an unknown name or action, and for any text while it is not `allowed`.
    """
    _armed.clear()
    if text.strip() and not allowed:
        raise ConfigurationError(
            f"{_SETTING}: it kills the service on purpose, in tests; set {_SETTING}_ALLOWED=true there"
        )
    _armed.update(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(part: str) -> tuple[str, _Armed]:
    name, _, action = part.partition("=")
    if name not in NAMES:
        raise ConfigurationError(f"{_SETTING}: there is no place `{name}`; there are {', '.join(NAMES)}")
    if (found := _ACTION.fullmatch(action)) is None:
        raise ConfigurationError(
            f"{_SETTING}: {name}: `{action}` is none of kill, raise, sleep:MS, each with @N or not"
        )
    left = int(found["nth"]) if found["nth"] else None
    if found["ms"] is not None:
        seconds = int(found["ms"]) / 1000
        return name, _Armed(lambda: _stand_still(seconds), left)
    return name, _Armed(_kill if found["what"] == "kill" else lambda: _raise(name), left)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal ends all threads; no code runs after this place


def _stand_still(seconds: float) -> None:
    threading.Event().wait(seconds)


def _raise(name: str) -> None:
    raise FailpointRaised(name)
