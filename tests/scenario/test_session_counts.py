"""A provider that counts connections and the messages on each sees no more of either than its preset says."""

import time
from collections import Counter
from pathlib import Path

import httpx

from service.relay.presets import load_presets
from tests.support.process import ServiceProcess
from tests.support.relay_process import RelayProcess, relays_file
from tests.support.running import ARTICLE

MESSAGES = 1000


def test_a_thousand_messages_by_the_preset_163_take_a_hundred_sessions_two_at_once(tmp_path: Path) -> None:
    preset = load_presets()["163"]
    assert (preset.max_connections, preset.max_messages_per_connection) == (2, 10)
    with RelayProcess(tmp_path / "relays", netease={}) as relays:
        table = {"url": relays.url("netease"), "preset": "163", "sender_must_equal_login": False, "quotas": []}
        file = relays_file(tmp_path, {"netease": table})
        with ServiceProcess(tmp_path, "", relays_file=file) as service:
            for _ in range(MESSAGES // 500):
                messages = [{"to": f"u{number}@example.org"} for number in range(500)]
                batch = {"base": ARTICLE, "messages": messages}
                assert httpx.post(f"{service.url}/send/batch", json=batch, timeout=60).status_code == 202
            until_taken(relays, MESSAGES)
        assert len(set(relays.taken())) == len(relays.taken()) == MESSAGES
        served = Counter(each.connection for each in relays.happened("taken"))
        assert max(served.values()) == 10
        # where the mail ends, the last session of each connection but one may be left with room for more
        assert len(relays.happened("open")) <= MESSAGES // 10 + preset.max_connections - 1
        assert most_at_once(relays) == 2


def until_taken(relays: RelayProcess, count: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while len(relays.taken()) < count:
        assert time.monotonic() < deadline, f"{len(relays.taken())} of {count}"
        time.sleep(0.05)


def most_at_once(relays: RelayProcess) -> int:
    """Connections that were open at the same time."""
    changes = [(each.at, 1) for each in relays.happened("open")] + [(each.at, -1) for each in relays.happened("close")]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
