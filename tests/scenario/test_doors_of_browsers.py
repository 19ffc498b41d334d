"""What a web page, a hostile mail in the inbox, or an odd path may bring about: nothing, and an answer that says so."""

import time
from pathlib import Path

import pytest

from service import settings as configuration
from service.errors import ConfigurationError
from tests.support.running import ARTICLE, running

EMPTY = {"Content-Type": "text/plain"}
OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]
OWN = [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://postroom.test"}, {}]


@pytest.mark.parametrize("headers", OTHER_SITES)
async def test_a_page_of_another_site_changes_nothing_where_no_key_is_asked_for(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running(tmp_path) as (client, _):
        for path in ("/relays/default/pause", "/templates/reload", "/messages/msg_x/cancel"):
            answer = await client.post(path, headers={**EMPTY, **headers})
            assert answer.status_code == 403, (path, answer.text)
        assert (await client.get("/relays/default", headers=headers)).json()["health"] == "open"


@pytest.mark.parametrize("headers", OWN)
async def test_its_own_page_and_what_is_no_browser_may(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.post("/relays/default/pause", headers=headers)
        assert answer.json()["health"] == "paused"


@pytest.mark.parametrize("path", ["/send/", "/messages/", "/emails", "/v3/mail/send"])
async def test_a_path_that_there_is_not_is_a_problem_that_names_the_door_and_no_redirect(
    tmp_path: Path, path: str
) -> None:
    async with running(tmp_path, allowed_hosts="*") as (client, _):
        answer = await client.post(path, json=ARTICLE, headers={"Host": "evil.example"})
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert "POST /send" in answer.json()["detail"]
        inbox = await client.get("/inbox", headers={"Host": "evil.example"})
        assert (inbox.status_code, inbox.headers["location"]) == (307, "/inbox/")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "evillocalhost", "", "[::2]"]
)
async def test_a_name_pointed_at_this_machine_reads_and_sends_nothing_where_no_key_is_asked_for(
    tmp_path: Path, host: str
) -> None:
    async with running(tmp_path, allowed_hosts="") as (client, _):
        for method, path in [
            ("GET", "/messages"),
            ("POST", "/send"),
            ("GET", "/inbox/api/messages"),
            ("GET", "/nothing"),
        ]:
            answer = await client.request(method, path, json=ARTICLE, headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (421, "misdirected_request"), (method, path)
            assert repr(host) in answer.json()["detail"]
            assert "POSTROOM_ALLOWED_HOSTS" in answer.json()["detail"]
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path, headers={"Host": host})).status_code == 200, path
        mine = {"Host": "localhost:8000"}
        assert (await client.get("/messages", headers=mine)).json()["data"] == []
        assert (
            'postroom_submissions_refused_total{code="misdirected_request"} 4.0'
            in (await client.get("/metrics", headers=mine)).text
        )


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost.:8000", "mail.localhost", "127.0.0.1:8000", "[::1]:8000", "[::1]"]
)
async def test_loopbacks_own_names_are_answered(tmp_path: Path, host: str) -> None:
    async with running(tmp_path, allowed_hosts="") as (client, _):
        assert (await client.post("/send", json=ARTICLE, headers={"Host": host})).status_code == 202


async def test_names_that_are_set_are_the_only_ones_with_keys_too(tmp_path: Path) -> None:
    async with running(tmp_path, auth="keys", allowed_hosts="mail.example.com, *.internal.example [::1]") as (
        client,
        _,
    ):
        for host in ("mail.example.com:443", "a.b.internal.example", "[::1]:8000"):
            assert (await client.get("/messages", headers={"Host": host})).status_code == 401
        for host in ("internal.example", "example.com", "localhost"):
            assert (await client.get("/messages", headers={"Host": host})).status_code == 421


@pytest.mark.parametrize("settings", [{"auth": "keys"}, {"host": "0.0.0.0"}])
async def test_any_name_is_taken_where_keys_are_asked_for_or_others_reach_the_port(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    async with running(tmp_path, allowed_hosts="", **settings) as (client, _):
        assert (await client.get("/messages", headers={"Host": "10.1.2.3:8000"})).status_code in {200, 401}


@pytest.mark.parametrize("name", ["mail.example.com:8000", "https://mail.example.com", "a/b", "*example.com"])
def test_a_host_that_is_none_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match="POSTROOM_ALLOWED_HOSTS"):
        configuration.load(allowed_hosts=name)


async def test_the_inbox_shows_any_html_in_time_that_grows_with_its_length(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        html = "<p>x</p>" + "<META Http-Equiv=refresh " * 4000
        await client.post("/send", json={**ARTICLE, "html": html}, headers={"Prefer": "wait=20"})
        id = (await client.get("/inbox/api/messages")).json()["messages"][0]["id"]
        began = time.process_time()
        shown = await client.get(f"/inbox/{id}/html")
        assert shown.status_code == 200
        assert " http-equiv" not in shown.text.lower()
        assert time.process_time() - began < 20, "with a cubic search it takes minutes"
