"""Every named place of service/failpoints.py, passed by a real process that kills itself there.

The processes follow one another on one store: each finds what the one before left, and the records are checked after each
death and at the end.
"""

from collections.abc import Collection

import httpx

from service.failpoints import NAMES
from tests.soak.fleet import Fleet
from tests.support.checker import Verdict
from tests.support.process import DoomedProcess, ServiceProcess
from tests.support.waiting import wait_for

_DEATH = 30.0  # seconds until a place is passed

# how often a place is passed before: work goes on, so that the kill meets more than one message
PASSED_BEFORE = {
    **dict.fromkeys(NAMES, 3),
    "heartbeat.before": 1,
    "template.publish": 0,
    "purge.within": 0,
    "rescue.within": 0,
    "claim.after_commit": 1,
    "claim.quota_taken": 1,
}


# the places that stand in the code of a database, and one that leaves what the rescuer needs
OF_THE_STORE = (
    "accept.before_commit", "claim.quota_taken", "settle.within", "template.publish", "dot.written", "rescue.within",
    "purge.within",
)  # fmt: skip


def _ordered(names: Collection[str]) -> list[str]:
    """The rescuer and the purge need what the death before them leaves: an attempt that is open, messages that are closed."""
    last = ["dot.written", "rescue.within", "purge.within"]
    return [name for name in [*(each for each in NAMES if each not in last), *last] if name in names]


def kill_at_each(fleet: Fleet, names: Collection[str] = tuple(NAMES)) -> Verdict:
    """The verdict at the end, with what was broken after any of the deaths."""
    broken: list[str] = []
    for name in _ordered(names):
        retention = {"content_retention": 0} if name == "purge.within" else {}
        process = fleet.doom(f"{name}=kill@{PASSED_BEFORE[name] + 1}", **retention)
        if process.port:
            _work(fleet, process, name)
        if not wait_for(process.died, _DEATH):
            broken.append(f"{name}: it is never passed")
            process.stop()
        fleet.lost()
        broken += [f"{name}: {sentence}" for sentence in fleet.verdict().broken]
    process = fleet.start()
    _flows(fleet, process, len(names))
    verdict = fleet.finish(process)
    verdict.broken[:0] = broken
    verdict.figures["places"] = len(names)
    return verdict


def _work(fleet: Fleet, process: DoomedProcess, name: str) -> None:
    """Requests until the process is dead."""
    with httpx.Client(base_url=process.url) as http:
        if name == "template.publish":
            _publish(http)
        with fleet.load(process, 2):
            wait_for(process.died, _DEATH)


def _flows(fleet: Fleet, process: ServiceProcess, count: int) -> None:
    """After all the deaths requests are answered as before."""
    with httpx.Client(base_url=process.url) as http:
        for _ in range(count):
            assert fleet.client.post(http), "the service does not answer"


def _publish(http: httpx.Client) -> None:
    try:
        answer = http.put("/templates/proof", json={}, timeout=20)
    except httpx.HTTPError:
        return  # it died as it should
    raise AssertionError(f"the template was published: {answer.status_code} {answer.text}")
