"""What a web page, a hostile mail in the inbox, or an odd path may bring about: nothing, and an answer that says so."""

import time
from pathlib import Path

import pytest

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
    async with running(tmp_path) as (client, _):
        answer = await client.post(path, json=ARTICLE, headers={"Host": "evil.example"})
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert "POST /send" in answer.json()["detail"]
        inbox = await client.get("/inbox", headers={"Host": "evil.example"})
        assert (inbox.status_code, inbox.headers["location"]) == (307, "/inbox/")


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
