"""A relay's quota as people see it: what waits says so, and GET /relays shows what is left."""

from pathlib import Path

from tests.support.running import ARTICLE, running
from tests.support.sink import Sink

RELAYS = """
[relays.netease]
url = "smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{port}?plaintext=allow"
quotas = ["5/15m", "200/d"]
recipient_quotas = ["10/h"]
headroom = 0.4
"""


async def test_what_a_quota_holds_says_so_and_high_priority_passes(tmp_path: Path) -> None:
    sink = await Sink().start()
    file = tmp_path / "relays.toml"
    file.write_text(RELAYS.format(port=sink.port))
    async with running(tmp_path, capture=False, relays_file=file) as (client, service):
        paths = [(await client.post("/send", json=ARTICLE)).headers["location"] for _ in range(4)]
        for path in paths[:3]:
            view = await service.messages.wait("default", path.rpartition("/")[2], 10)
            assert service.messages.status(view) == "sent"
        high = await client.post("/send", json={**ARTICLE, "priority": "high"}, headers={"Prefer": "wait=10"})
        assert high.json()["status"] == "sent"

        waiting = (await client.get(paths[3])).json()
        (recipient,) = waiting["recipients"]
        assert recipient["status"] == "queued"
        held = recipient["held_by"]
        assert (held["reason"], held["relay"], held["quota"]) == ("quota", "netease", "5/15m")
        assert recipient["held_back_by"] == f"the quota 5/15m of relay netease is used up until {held['until']}"
        assert held["until"] > waiting["created_at"]
        listed = (await client.get("/messages?status=queued")).json()["data"]
        assert [each["recipients"][0]["held_by"] for each in listed] == [held]
        assert (await client.get(paths[0])).json()["recipients"][0]["held_by"] is None

        (relay,) = (await client.get("/relays")).json()["data"]
        minutes, day, recipients = relay["quotas"]
        assert (minutes["quota"], minutes["limit"], minutes["used"]) == ("5/15m", 5, 4)
        assert (minutes["left"], minutes["left_for_high"]) == (0, 1)
        assert minutes["next_free_at"] == held["until"]
        assert minutes["next_free_at_for_high"] is None
        assert (day["used"], day["left"], day["next_free_at"]) == (4, 116, None)
        assert (recipients["per"], recipients["used"]) == ("recipient", None)
        paused = (await client.post("/relays/netease/pause", json={"reason": "x"})).json()
        assert paused["quotas"][0]["used"] == 4
    await sink.stop()
