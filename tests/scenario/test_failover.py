"""Two relays for one sender, and the first dies: wherever that is, the message arrives once, and its log tells the story.

Before the final dot nothing can have been delivered: the other relay takes the message at once and nothing is charged.
After it a copy may be out: the message's own wish decides, and no copy ever goes out under another From.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.relay_process import Manner, RelayProcess, relays_file
from tests.support.running import ARTICLE, running

# how the first relay dies before the dot: its manner, its scheme, and the class of the attempts on it
DEATHS: dict[str, tuple[Manner, str, str]] = {
    "connection refused": ({}, "refused", "network"),
    "no greeting": ({"greeting": "silence"}, "smtp", "network"),
    "lost at the greeting": ({"greeting": "drop"}, "smtp", "network"),
    "421 in place of a greeting": ({"greeting": "421 4.3.2 not now"}, "smtp", "refused-for-now"),
    "no TLS": ({}, "smtps", "tls"),
    "lost at EHLO": ({"ehlo": "drop"}, "smtp", "network"),
    "535": ({"auth": "535 5.7.8 no"}, "smtp", "auth-refused"),
    "lost at AUTH": ({"auth": "drop"}, "smtp", "network"),
    "421 at MAIL": ({"mail": "421 4.3.2 not now"}, "smtp", "stale"),
    "lost at MAIL": ({"mail": "drop"}, "smtp", "broken-off"),
    "stalled at MAIL": ({"mail": "silence"}, "smtp", "broken-off"),
    "421 at RCPT": ({"rcpt": "421 4.3.2 not now"}, "smtp", "stale"),
    "lost at RCPT": ({"rcpt": "drop"}, "smtp", "broken-off"),
    "lost at DATA": ({"data": "drop"}, "smtp", "broken-off"),
    "421 at DATA": ({"data": "421 4.3.2 not now"}, "smtp", "stale"),
    "421 after 354": ({"data": "354 go on\r\n421 4.3.2 not now"}, "smtp", "stale"),
}
SOON = {"greeting_timeout": 1, "command_timeout": 1, "data_timeout": 1}


def table(relays: RelayProcess, name: str, scheme: str = "smtp", **values: object) -> Mapping[str, object]:
    url = relays.url(name, "smtp" if scheme == "refused" else scheme)
    if scheme == "refused":
        url = url.replace(f":{relays.ports[name]}", ":1")
    return {"url": url, **values}


async def log_of(client: httpx.AsyncClient, id: str) -> list[dict[str, Any]]:
    """The delivery log's data after the acceptance."""
    events = (await client.get(f"/messages/{id}/events")).json()["data"]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    return [event["data"] for event in events[1:]]


@pytest.mark.parametrize("death", DEATHS)
async def test_before_the_dot_the_other_relay_takes_over_at_once_and_uncharged(tmp_path: Path, death: str) -> None:
    manner, scheme, kind = DEATHS[death]
    with RelayProcess(tmp_path / "relays", first=manner, second={}) as relays:
        tables = {
            "first": table(relays, "first", scheme, priority=1),
            "second": table(relays, "second", priority=2),
        }
        given: dict[str, Any] = {"capture": False, "relays_file": relays_file(tmp_path, tables), **SOON}
        async with running(tmp_path, **given) as (client, _):
            answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=20"})
            assert (answer.status_code, answer.json()["status"]) == (200, "sent")
            log = await log_of(client, answer.json()["id"])
            view = (await client.get(f"/messages/{answer.json()['id']}")).json()
    told = [(data["relay"], data["class"], data["charged"]) for data in log]
    assert told == [("first", kind, False), ("second", "sent", True)]
    (recipient,) = view["recipients"]
    assert (recipient["relay"], recipient["attempts"], recipient["attempts_in_doubt"]) == ("second", 1, 0)
    assert [each.relay for each in relays.happened("taken")] == ["second"]


async def test_a_421_between_the_blocks_of_a_large_content_is_before_the_dot_too(tmp_path: Path) -> None:
    closing: Manner = {"data": "354 go on\r\n421 4.3.2 not now"}
    with RelayProcess(tmp_path / "relays", first=closing, second={}) as relays:
        tables = {name: table(relays, name, priority=number) for number, name in enumerate(("first", "second"))}
        given: dict[str, Any] = {"capture": False, "relays_file": relays_file(tmp_path, tables)}
        async with running(tmp_path, **given) as (client, _):
            mail = {**ARTICLE, "text": "line\n" * 500_000}
            answer = await client.post("/send", json=mail, headers={"Prefer": "wait=20"})
            log = await log_of(client, answer.json()["id"])
    first, second = log
    # a reset may overtake the 421 in the client's buffer: then it is told as lost
    assert (first["relay"], first["charged"], first["class"] in ("stale", "broken-off")) == ("first", False, True)
    assert (second["relay"], second["class"]) == ("second", "sent")


# --- after the dot ----------------------------------------------------------------------------------------------------


async def in_doubt(
    folder: Path,
    first: Manner | Sequence[Manner],
    mail: Mapping[str, object],
    pause_first: bool = False,
    **values: object,
) -> tuple[RelayProcess, list[dict[str, Any]], dict[str, Any]]:
    """The log and the final view of one message whose first attempt lost the connection after the dot."""
    with RelayProcess(folder / "relays", first=first, second={}) as relays:
        tables = {
            name: table(relays, name, priority=number, **values) for number, name in enumerate(("first", "second"))
        }
        given: dict[str, Any] = {
            "capture": False,
            "relays_file": relays_file(folder, tables),
            "in_doubt_delay": 0.5,
            "retry_schedule": (0.5,),
        }
        async with running(folder, **given) as (client, service):
            id = (await client.post("/send", json={**ARTICLE, **mail})).json()["id"]
            moved = service.signals.watch(id)
            async with asyncio.timeout(30):
                while not (log := await log_of(client, id)):
                    await moved.wait()
                    moved.clear()
                if pause_first:
                    await client.post("/relays/first/pause", json={"reason": "it lost a reply"})
                while (view := (await client.get(f"/messages/{id}")).json())["closed_at"] is None:
                    await moved.wait()
                    moved.clear()
            log = await log_of(client, id)
    return relays, log, view


LOST_REPLY: Manner = {"dot": "drop"}


async def test_after_the_dot_at_least_once_repeats_later_and_charged(tmp_path: Path) -> None:
    _, log, view = await in_doubt(tmp_path, [LOST_REPLY, {}], {"delivery": "at_least_once"})
    assert [(data["class"], data["charged"]) for data in log] == [("in-doubt", True), ("sent", True)]
    assert view["status"] == "sent"
    assert view["recipients"][0]["attempts_in_doubt"] == 1


async def test_after_the_dot_at_most_once_is_unknown_and_never_repeated(tmp_path: Path) -> None:
    relays, log, view = await in_doubt(tmp_path, LOST_REPLY, {"delivery": "at_most_once"})
    assert [(data["relay"], data["class"]) for data in log] == [("first", "in-doubt")]
    assert view["status"] == "unknown"
    assert relays.happened("open", "second") == []


async def test_after_the_dot_another_relay_that_keeps_the_from_may_repeat_it(tmp_path: Path) -> None:
    _, log, view = await in_doubt(tmp_path, LOST_REPLY, {}, pause_first=True)
    assert [(data["relay"], data["class"]) for data in log] == [("first", "in-doubt"), ("second", "sent")]
    assert view["status"] == "sent"


async def test_after_the_dot_no_relay_repeats_it_under_another_from(tmp_path: Path) -> None:
    values = {"sender_must_equal_login": True, "rewrite_from": True}
    relays, log, view = await in_doubt(tmp_path, LOST_REPLY, {}, pause_first=True, **values)
    assert [(data["relay"], data["class"]) for data in log] == [("first", "in-doubt"), ("second", "sealed-differently")]
    assert view["status"] == "unknown"
    assert relays.happened("open", "second") == []
