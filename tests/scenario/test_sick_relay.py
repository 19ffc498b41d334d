"""A relay that refuses the login, and real processes on one store: one asks for all, and all know what it heard."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.login_sink import LoginSink
from tests.support.process import ServiceProcess
from tests.support.running import ARTICLE


@contextlib.contextmanager
def processes(folder: Path, url: str, count: int) -> Iterator[tuple[httpx.Client, list[ServiceProcess]]]:
    """One process of role api, with a client on it, and so many that send."""
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(ServiceProcess(folder, url, role="api"))
        senders = [stack.enter_context(ServiceProcess(folder, url, role="sender")) for _ in range(count)]
        client = stack.enter_context(httpx.Client(base_url=api.url, timeout=30))
        yield client, senders


def post(client: httpx.Client, count: int = 1) -> list[str]:
    """Hand in so many mails; their paths."""
    return [client.post("/send", json=ARTICLE).raise_for_status().headers["location"] for _ in range(count)]


def relay(client: httpx.Client) -> Any:
    return client.get("/relays/default").raise_for_status().json()


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def kinds(client: httpx.Client) -> list[str]:
    return [event["kind"] for event in relay(client)["events"]]


def test_four_processes_ask_once_and_another_secret_lets_the_mail_go(tmp_path: Path) -> None:
    with LoginSink(secret="RIGHT") as sink:
        with processes(tmp_path, sink.url("WRONG"), 4) as (client, _):
            paths = post(client, 30)
            sink.wait_for(lambda: len(sink.logins) > 0)
            until(lambda: relay(client)["health"] == "broken")
            time.sleep(6)  # what must not happen takes time
            assert [good for _, good in sink.logins] == [False]
            shown = relay(client)
            assert shown["reason"] == "auth-refused: 535 5.7.8 Error: authentication failed"
            assert [(each["kind"], each["probe"], each["times"]) for each in shown["troubles"]] == [
                ("auth-refused", True, 1)
            ]
            assert kinds(client) == ["broken"], "told once"
            recipient = client.get(paths[0]).json()["recipients"][0]
            assert (recipient["attempts"], recipient["held_by"]["reason"]) == (0, "relay"), "nothing is charged"
        with processes(tmp_path, sink.url("RIGHT"), 1) as (client, _):
            sink.wait_for(lambda: sink.taken == 30)
            assert relay(client)["health"] == "open"
            assert kinds(client)[0] == "secret_changed"


def test_a_prober_that_is_killed_blocks_nobody(tmp_path: Path) -> None:
    with LoginSink(secret="RIGHT") as sink:
        sink.go_on.clear()
        url = sink.url("RIGHT")
        with ServiceProcess(tmp_path, url, role="sender") as first, ServiceProcess(tmp_path, url, role="api") as api:
            client = httpx.Client(base_url=api.url, timeout=30)
            post(client, 2)
            sink.wait_for(lambda: len(sink.logins) == 1)
            until(lambda: relay(client)["prober"] is not None)
            with ServiceProcess(tmp_path, url, role="sender"):
                time.sleep(2)  # there is mail for it too
                assert len(sink.logins) == 1, "while the first one waits for its answer, nobody else knocks"
                first.kill()
                sink.wait_for(lambda: len(sink.logins) == 2)
                sink.go_on.set()
                sink.wait_for(lambda: sink.taken == 1)


def test_a_pause_in_one_process_stops_the_others_and_what_they_see_is_added_up(tmp_path: Path) -> None:
    with LoginSink(secret="RIGHT") as sink, processes(tmp_path, sink.url("RIGHT"), 2) as (client, senders):
        post(client, 3)
        sink.wait_for(lambda: sink.taken == 3)
        until(lambda: relay(client)["sent"] == 3)
        assert relay(client)["last_reply"] == "250 2.0.0 taken"
        paused = client.post("/relays/default/pause", json={"reason": "maintenance"}).json()
        assert (paused["health"], paused["reason"]) == ("paused", "maintenance")
        gauge = 'postroom_relay_health{health="paused",relay="default"} 1.0'
        until(lambda: all(gauge in httpx.get(f"{each.url}/metrics").text for each in senders))
        (path,) = post(client)
        time.sleep(2)
        assert sink.taken == 3
        assert client.get(path).json()["recipients"][0]["held_back_by"] == "relay default is paused: maintenance"
        assert client.post("/relays/default/resume").json()["health"] == "open"
        sink.wait_for(lambda: sink.taken == 4)
        assert kinds(client)[:2] == ["resumed", "paused"]
