"""What one relay can't carry goes by the next, uncharged; when none is left the message fails and names each one's reason."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.relay_process import Manner, RelayProcess, relays_file
from tests.support.running import ARTICLE, running

LARGE = {**ARTICLE, "text": "a line of words\n" * 2000}  # 32 KB: less than a word of its needs would tell
EAI = {**ARTICLE, "to": "用户@例子.example"}
OUT_OF_TURN: Manner = {"rcpt": "503 5.5.1 MAIL first", "data": "503 5.5.1 MAIL first"}
NO_SIZE: Manner = {"mail": "552 5.3.4 Message size exceeds fixed limit", **OUT_OF_TURN}
SMALL: Manner = {"extensions": ["SIZE 20000"]}
OLD: Manner = {"ehlo": "250-relay.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 AUTH PLAIN"}
SEVEN_BITS: Manner = {"ehlo": "250-relay.test\r\n250-SMTPUTF8\r\n250 AUTH PLAIN"}
NO_UTF8: Manner = {"mail": "553 5.6.7 Non-ASCII addresses not permitted", **OUT_OF_TURN}


def service(folder: Path, relays: RelayProcess, **values: dict[str, Any]) -> dict[str, Any]:
    """Settings with these relays, each of the next priority."""
    tables = {
        name: {"url": relays.url(name), "priority": number, **values.get(name, {})}
        for number, name in enumerate(relays.ports)
    }
    return {"capture": False, "relays_file": relays_file(folder, tables)}


async def sent(client: httpx.AsyncClient, mail: dict[str, Any]) -> dict[str, Any]:
    """The view of a message whose end was waited for."""
    answer = await client.post("/send", json=mail, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = (await client.get(f"/messages/{answer.json()['id']}")).json()
    return view


async def log_of(client: httpx.AsyncClient, id: str) -> list[dict[str, Any]]:
    """The delivery log's data after the acceptance."""
    return [event["data"] for event in (await client.get(f"/messages/{id}/events")).json()["data"][1:]]


@pytest.mark.parametrize(
    ("manner", "mail", "kind", "phase"),
    [
        (SMALL, LARGE, "not-offered", "mail"),
        (NO_SIZE, LARGE, "too-big", "mail"),
        (OLD, EAI, "not-offered", "mail"),
        (SEVEN_BITS, EAI, "not-offered", "mail"),
        (NO_UTF8, EAI, "not-offered", "mail"),
    ],
)
async def test_what_the_first_relay_can_not_carry_goes_by_the_second_at_once_and_uncharged(
    tmp_path: Path, manner: Manner, mail: dict[str, Any], kind: str, phase: str
) -> None:
    with RelayProcess(tmp_path / "relays", first=manner, second={}) as relays:
        async with running(tmp_path, **service(tmp_path, relays)) as (client, running_service):
            view = await sent(client, mail)
            first, second = await log_of(client, view["id"])
            offer = running_service.relays.get("first").offer
            # the relay is not at fault: other mail still goes by it, if it takes any
            assert (await client.get("/relays/first")).json()["health"] == "open"
    assert (view["status"], view["recipients"][0]["attempts"], view["recipients"][0]["relay"]) == ("sent", 1, "second")
    assert offer is not None
    assert offer.smtputf8 == (manner not in (OLD, SEVEN_BITS)), "so the next one is not even given to it"
    told = {key: first[key] for key in ("relay", "class", "scope", "action", "phase", "charged")}
    expected = ("first", kind, "message", "ELSEWHERE", phase, False)
    assert tuple(told.values()) == expected
    assert (second["relay"], second["class"]) == ("second", "sent")
    assert [each.relay for each in relays.happened("taken")] == ["second"]


async def test_when_no_relay_is_left_it_fails_and_each_ones_reason_is_told(tmp_path: Path) -> None:
    with RelayProcess(tmp_path / "relays", small=SMALL, old=NO_SIZE, strict={}) as relays:
        given = service(tmp_path, relays, strict={"sender_must_equal_login": True})
        async with running(tmp_path, **given) as (client, _):
            view = await sent(client, LARGE)
            log = await log_of(client, view["id"])
    assert [(each["relay"], each["class"], each["action"], each["charged"]) for each in log] == [
        ("small", "not-offered", "ELSEWHERE", False),
        ("old", "too-big", "PERM", True),
    ]
    assert view["status"] == "bounced"
    reason = log[-1]["text"]
    assert reason.startswith("no relay can carry this message: small: the relay takes at most 20000 octets (SIZE)")
    assert "old: 552 5.3.4 Message size exceeds fixed limit" in reason
    assert f"strict: may not carry mail from {view['from']}" in reason


async def test_a_message_that_no_relay_offered_to_carry_failed_and_may_be_tried_again(tmp_path: Path) -> None:
    """The first try ends with every relay; the operator changes one of them, and the second try finds it."""
    with RelayProcess(tmp_path / "relays", first=[SMALL, {}], second=SMALL) as relays:
        given = service(tmp_path, relays, first={"max_messages_per_connection": 1})
        async with running(tmp_path, **given) as (client, running_service):
            view = await sent(client, LARGE)
            (_, last) = await log_of(client, view["id"])
            assert (view["status"], last["class"], last["action"], last["scope"]) == (
                "failed",
                "no-relay",
                "FAILED",
                "message",
            )
            moved = running_service.signals.watch(view["id"])
            await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=20"})
            assert (await client.post(f"/messages/{view['id']}/retry")).status_code == 202
            while (await client.get(f"/messages/{view['id']}")).json()["closed_at"] is None:
                await moved.wait()
                moved.clear()
            view = (await client.get(f"/messages/{view['id']}")).json()
    assert (view["status"], view["recipients"][0]["relay"]) == ("sent", "first")


async def test_a_relay_that_the_request_named_is_the_only_one_that_is_asked(tmp_path: Path) -> None:
    with RelayProcess(tmp_path / "relays", first=SMALL, second={}) as relays:
        async with running(tmp_path, **service(tmp_path, relays)) as (client, _):
            view = await sent(client, {**LARGE, "relay": "first"})
            (only,) = await log_of(client, view["id"])
    assert (view["status"], only["relay"], only["class"]) == ("failed", "first", "no-relay")
    assert only["text"].startswith("no relay can carry this message: first: the relay takes at most 20000 octets")
    assert "second" not in only["text"]
    assert relays.happened("open", "second") == []


async def test_a_message_of_several_transactions_goes_elsewhere_as_a_whole(tmp_path: Path) -> None:
    people = [f"reader-{number}@example.org" for number in range(5)]
    with RelayProcess(tmp_path / "relays", first=SMALL, second={}) as relays:
        given = service(tmp_path, relays, first={"max_recipients": 2})
        async with running(tmp_path, **given) as (client, _):
            view = await sent(client, {**LARGE, "to": people})
            events = (await client.get(f"/messages/{view['id']}/events")).json()["data"][1:]
    assert view["status"] == "sent"
    attempts = {(each["attempt"], each["data"]["relay"]) for each in events if "relay" in each["data"]}
    asked = sorted(relay for _, relay in attempts)
    assert asked.count("first") == 1, "once, not once for each part"
    assert set(asked) == {"first", "second"}
    assert {each["relay"] for each in view["recipients"]} == {"second"}
