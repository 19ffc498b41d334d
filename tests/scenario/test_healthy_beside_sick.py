"""A sick relay hurts no other: two healthy relays beside five sick ones send as fast as when they were alone.

All have the same load and the same priority, and each may send 50 messages a second. The rate of the healthy ones is
taken over ten seconds in the middle of a run with and of a run without the sick, on the same machine, one after the
other. What is pinned to a sick relay waits; what is not goes by the healthy ones; nothing is lost, bounced or doubled.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.process import ServiceProcess, every_message
from tests.support.relay_process import Happened, Manner, RelayProcess, relays_file
from tests.support.running import ARTICLE

HEALTHY = ("north", "south")
CLOSING = "421 4.3.2 come back later"
SICK: dict[str, Manner | Sequence[Manner]] = {
    "hangs": {"greeting": "silence"},
    # at each command in turn; not in place of a greeting, which would end the storm: a relay that says so rests
    "storms": [{"mail": CLOSING}, {"rcpt": CLOSING}, {"data": CLOSING}, {"dot": CLOSING}],
    "drips": {"pace": 1},
    "refuses": {"auth": "535 5.7.8 Error: authentication failed"},
    "limited": {"dot": "550 Domain frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1"},
}
RATE = 50  # messages a second that a quota lets each relay send
PINNED = 800  # messages for each relay: more than fit into warm-up and window
FREE = 200  # messages that any relay may take
WARM_UP, WINDOW = 2.0, 10.0  # seconds
KEPT = 0.95  # of the rate without the sick
ROUNDS = 2  # another one where the machine was busy with something else
IMPATIENT = {"greeting_timeout": 5, "command_timeout": 5}


def fill(service: ServiceProcess, relays: Iterable[str]) -> None:
    """PINNED messages for each of the relays, FREE for any; told apart by a tag."""
    loads = [*((name, PINNED, {"relay": name}) for name in relays), ("any", FREE, {})]
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for tag, count, pinned in loads:
            for first in range(0, count, 200):
                messages = [{"to": f"{tag}{first + number}@example.org"} for number in range(200)]
                batch = {"base": {**ARTICLE, **pinned, "tags": [tag]}, "messages": messages}
                answer = client.post("/send/batch", json=batch)
                assert answer.status_code == 202, answer.text


def started(folder: Path, relays: RelayProcess, names: Sequence[str]) -> ServiceProcess:
    """A service with these relays and its queue filled; sending begins as it starts."""
    folder.mkdir()
    tables = {name: {"url": relays.url(name), "quotas": [f"{RATE}/s"], "headroom": 0} for name in names}
    settings = {"relays_file": relays_file(folder, tables), **IMPATIENT}
    with ServiceProcess(folder, "", hold="true", **settings) as held:
        fill(held, names)
    return ServiceProcess(folder, "", **settings)


def rates(relays: RelayProcess, since: float) -> dict[str, float]:
    """Messages a second at each healthy relay, over the window after the warm-up; waits until it is over."""

    def taken() -> list[Happened]:
        return [each for each in relays.happened("taken") if each.at > since]

    until(lambda: {each.relay for each in taken()} >= set(HEALTHY), "both take mail")
    begin = min(each.at for each in taken()) + WARM_UP
    until(lambda: time.time() > begin + WINDOW + 0.5, "the window is over")
    counted = Counter(each.relay for each in taken() if begin <= each.at < begin + WINDOW)
    return {name: counted[name] / WINDOW for name in HEALTHY}


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_two_healthy_relays_beside_five_sick_ones_send_as_fast_as_alone(tmp_path: Path) -> None:
    healthy: dict[str, Manner] = {name: {} for name in HEALTHY}
    with RelayProcess(tmp_path / "relays", **healthy, **SICK) as relays:
        since = time.time()
        with started(tmp_path / "alone", relays, HEALTHY):
            alone = rates(relays, since)
        for number in range(ROUNDS):
            since = time.time()
            with (
                started(tmp_path / f"among{number}", relays, (*HEALTHY, *SICK)) as service,
                httpx.Client(base_url=service.url, timeout=30) as client,
            ):
                among = rates(relays, since)
                until(lambda client=client: all_sent(client, "any", *HEALTHY), "what a healthy relay may take has gone")
                messages = every_message(client)
                suppressed = client.get("/suppressions").json()["data"]
            assert_harmless(relays, since, messages)
            assert suppressed == []
            if kept(among, alone):
                break
    assert kept(among, alone), f"{among} beside the sick, {alone} alone"


def kept(among: Mapping[str, float], alone: Mapping[str, float]) -> bool:
    """Whether each healthy relay sent as much among the sick as it must."""
    return all(among[name] >= KEPT * alone[name] for name in HEALTHY)


def assert_harmless(relays: RelayProcess, since: float, messages: Sequence[dict[str, Any]]) -> None:
    """Nothing is lost, bounced or doubled."""
    assert len(messages) == FREE + PINNED * 7, "none is lost"
    by_tag = {(next(iter(each["tags"])), each["status"]) for each in messages}
    assert {tag for (tag, status) in by_tag if status == "sent"} == {"any", *HEALTHY}
    assert {status for (tag, status) in by_tag if tag in SICK} <= {"queued", "sending", "deferred"}
    taken = Counter(each.message_id for each in relays.happened("taken") if each.at > since)
    assert set(taken.values()) == {1}, "none is doubled"
    assert {each.relay for each in relays.happened("taken")} == set(HEALTHY)


def all_sent(client: httpx.Client, *tags: str) -> bool:
    """Whether no message with these tags waits."""
    filters = [
        {"tag": tag, "status": status, "limit": 1} for tag in tags for status in ("queued", "sending", "deferred")
    ]
    return not any(client.get("/messages", params=each).json()["data"] for each in filters)
