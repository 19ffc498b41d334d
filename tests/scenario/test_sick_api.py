"""What people see of a sick relay: GET /relays, GET /relays/{name}, metrics."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.support.running import ARTICLE, running
from tests.support.sink import Sink

MAIL = {**ARTICLE, "to": "a@example.org"}


def url_of(sink: Sink, secret: str = "AUTHCODE") -> str:
    return f"smtp://zouchengzhuo%40163.com:{secret}@127.0.0.1:{sink.port}?plaintext=allow"


async def shown(client: httpx.AsyncClient, is_so: Callable[[Any], bool]) -> Any:
    """The relay, as soon as it is so."""
    deadline = asyncio.get_running_loop().time() + 10
    while not is_so(relay := (await client.get("/relays/default")).json()):
        assert asyncio.get_running_loop().time() < deadline, relay
        await asyncio.sleep(0.02)
    return relay


async def test_a_refused_login_is_shown_with_its_trouble_and_what_happened(tmp_path: Path) -> None:
    sink = await Sink(password="another").start()
    async with running(tmp_path, capture=False, relay_url=url_of(sink, "WRONG-CODE")) as (client, _):
        await client.post("/send", json=MAIL)
        relay = await shown(client, lambda relay: relay["health"] == "broken" and relay["events"])
        assert relay["account"] == "zouchengzhuo@163.com@127.0.0.1"
        assert relay["reason"].startswith("auth-refused: 535")
        assert relay["until"] == relay["troubles"][0]["until"]
        assert (relay["proven_at"], relay["prober"]) == (None, None)
        (event,) = relay["events"]
        assert (event["kind"], event["relay"], event["detail"]) == ("broken", "default", relay["reason"])
        listed = (await client.get("/relays")).json()["data"]
        assert listed == [{name: value for name, value in relay.items() if name != "events"}]
        text = (await client.get("/metrics")).text
        assert "WRONG-CODE" not in str(relay) + text
        assert sink.logins == [(sink.logins[0][0], False)], "one login, and no second one"
    await sink.stop()


async def test_how_long_mail_took_is_counted_by_priority(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        for priority in ("high", "normal", "normal"):
            answer = await client.post("/send", json={**MAIL, "priority": priority}, headers={"Prefer": "wait=10"})
            assert answer.json()["status"] == "sent"
        text = (await client.get("/metrics")).text
    assert 'postroom_accept_to_sent_seconds_count{priority="0"} 1.0' in text
    assert 'postroom_accept_to_sent_seconds_count{priority="1"} 2.0' in text


async def test_a_check_that_succeeds_opens_a_broken_relay(tmp_path: Path) -> None:
    sink = await Sink(password="another").start()
    async with running(tmp_path, capture=False, relay_url=url_of(sink), check_force_interval=0) as (client, _):
        await client.post("/send", json=MAIL)
        await shown(client, lambda relay: relay["health"] == "broken")
        sink.password = "AUTHCODE"  # the account was unlocked
        withheld = (await client.post("/relays/default/check")).json()
        step = next(step for step in withheld["steps"] if step["name"] == "auth")
        assert (withheld["ok"], step["state"]) == (False, "not_run")
        assert "one may be tried at" in step["detail"]
        assert len(sink.logins) == 1
        assert (await client.post("/relays/default/check?force=true")).json()["ok"] is True
        relay = await shown(client, lambda relay: relay["health"] == "open" and len(relay["events"]) == 2)
        assert [event["kind"] for event in relay["events"]] == ["opened", "broken"]
        assert (relay["troubles"], relay["proven_at"] is not None) == ([], True)
        async with asyncio.timeout(10):
            await sink.arrived.wait()
    await sink.stop()


async def test_an_alert_is_an_event_and_is_counted(tmp_path: Path) -> None:
    sink = await Sink(data_replies=["553 Mail from must equal authorized user"] * 2).start()
    async with running(tmp_path, capture=False, relay_url=url_of(sink)) as (client, _):
        for _ in range(2):
            await client.post("/send", json=MAIL, headers={"Prefer": "wait=10"})
        relay = await shown(client, lambda relay: relay["events"])
        assert [(event["kind"], event["detail"].partition(":")[0]) for event in relay["events"]] == [
            ("alert", "sender-mismatch")
        ], "one a minute is kept"
        text = (await client.get("/metrics")).text
        assert 'postroom_relay_alerts_total{kind="sender-mismatch",relay="default"} 2.0' in text
        assert 'postroom_relay_health{health="open",relay="default"} 1.0' in text
    await sink.stop()


async def test_a_relay_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.get("/relays/defualt")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "default" in answer.json()["detail"]
        assert (await client.get("/relays/default?x=1")).status_code == 422


async def test_what_is_left_of_a_quota_is_a_metric_that_says_what_the_api_says(tmp_path: Path) -> None:
    sink = await Sink().start()
    (tmp_path / "relays.toml").write_text(f"[relays.netease]\nurl = '{url_of(sink)}'\nquotas = ['2/h']\n")
    async with running(tmp_path, capture=False, relays_file=tmp_path / "relays.toml") as (client, service):
        await client.post("/send", json=MAIL, headers={"Prefer": "wait=10"})
        await service.watch.show()
        (quota,) = (await client.get("/relays/netease")).json()["quotas"]
        assert (quota["left"], quota["left_for_high"]) == (0, 1), "the headroom is kept for priority high"
        text = (await client.get("/metrics")).text
        assert 'postroom_relay_quota_left{quota="2/h",relay="netease"} 0.0' in text
        assert 'postroom_relay_quota_left_for_high{quota="2/h",relay="netease"} 1.0' in text
    await sink.stop()


async def test_another_secret_in_the_relays_file_lets_the_mail_go_without_a_restart(tmp_path: Path) -> None:
    sink = await Sink().start()
    file = tmp_path / "relays.toml"
    file.write_text(f"[relays.default]\nurl = '{url_of(sink, 'OLD')}'\n")
    async with running(tmp_path, capture=False, relays_file=file) as (client, service):
        await client.post("/send", json=MAIL)
        await shown(client, lambda relay: relay["health"] == "broken")
        file.write_text(f"[relays.default]\nurl = '{url_of(sink)}'\n")
        service.reload()
        async with asyncio.timeout(10):
            await sink.arrived.wait()
        relay = await shown(client, lambda relay: relay["health"] == "open")
        assert [event["kind"] for event in relay["events"]] == ["secret_changed", "broken"]
        assert [good for _, good in sink.logins] == [False, True]
    await sink.stop()


async def test_relays_that_share_an_account_are_named_where_one_is_paused(tmp_path: Path) -> None:
    login = "smtp://me%40163.com:x@127.0.0.1:9?plaintext=allow"
    (tmp_path / "relays.toml").write_text(
        f"[relays.one]\nurl = '{login}'\n[relays.two]\nurl = '{login}'\n[relays.else]\nurl = 'smtps://h.example'\n"
    )
    async with running(tmp_path, capture=False, relays_file=tmp_path / "relays.toml") as (client, _):
        paused = (await client.post("/relays/one/pause")).json()
        assert (paused["name"], paused["health"], paused["same_account"]) == ("one", "paused", ["two"])
        listed = {each["name"]: each for each in (await client.get("/relays")).json()["data"]}
        assert (listed["two"]["health"], listed["two"]["same_account"]) == ("paused", ["one"])
        assert (listed["else"]["health"], listed["else"]["same_account"]) == ("open", [])
        assert (await client.post("/relays/two/resume")).json()["same_account"] == ["one"]


async def test_a_check_takes_an_address_and_refuses_what_is_none(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        steps = (await client.post("/relays/default/check?from=shop@a.example")).json()["steps"]
        assert next(step for step in steps if step["name"] == "sender")["detail"].startswith("shop@a.example: 250")
        for query, pointer in (("from=none", "#/from"), ("force=maybe", "#/force"), ("colour=red", "#/colour")):
            refused = await client.post(f"/relays/default/check?{query}")
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_a_second_check_of_an_account_is_refused_while_one_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        with service.relays.get("default").check_turns.turn(service.relays.get("default").account, "default"):
            refused = await client.post("/relays/default/check")
        assert (refused.status_code, refused.json()["code"]) == (409, "check_running")
        assert (await client.post("/relays/default/check")).json()["ok"] is True
