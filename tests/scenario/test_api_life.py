"""The API in use: idempotency, schedules, cancel, retry, erase, keys, accounts, limits, guards."""

import asyncio
import email
import email.policy
import re
from pathlib import Path
from typing import Any

import pytest

from service.clock import SYSTEM, rfc3339
from tests.support.running import ARTICLE, running


def later(seconds: float) -> str:
    return rfc3339(SYSTEM.now() + int(seconds * 1000))


async def test_the_same_request_gets_the_same_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        first = await client.post("/send", json=ARTICLE, headers={"Idempotency-Key": "k"})
        again = await client.post("/send", json=dict(reversed(ARTICLE.items())), headers={"Idempotency-Key": '"k"'})
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.content == again.content
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        other = await client.post("/send", json={**ARTICLE, "subject": "x"}, headers={"Idempotency-Key": "k"})
        assert (other.status_code, other.json()["code"]) == (422, "invalid_idempotent_request")
        await client.get(first.headers["location"])
        assert len((await client.get("/messages")).json()["data"]) == 1


async def test_two_hundred_at_once_on_one_key_make_one_message(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        answers = await asyncio.gather(
            *(client.post("/send", json=ARTICLE, headers={"Idempotency-Key": "k"}) for _ in range(200))
        )
        statuses = {answer.status_code for answer in answers}
        assert statuses <= {202, 409}
        assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 409)
        assert len((await client.get("/messages")).json()["data"]) == 1


async def test_a_repeat_waits_for_its_twin_as_long_as_is_set(tmp_path: Path) -> None:
    async with running(tmp_path, idempotency_wait=0.05) as (client, service):
        accept, reached, gate = service.store.accept, asyncio.Event(), asyncio.Event()

        async def held(*given: Any) -> Any:
            reached.set()
            await gate.wait()
            return await accept(*given)

        service.store.accept = held  # type: ignore[method-assign, assignment]
        first = asyncio.ensure_future(client.post("/send", json=ARTICLE, headers={"Idempotency-Key": "k"}))
        await reached.wait()
        again = await client.post("/send", json=ARTICLE, headers={"Idempotency-Key": "k"})
        gate.set()
        assert (again.status_code, (await first).status_code) == (409, 202)


async def test_a_refused_request_does_not_burn_its_key(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        key = {"Idempotency-Key": "k"}
        assert (await client.post("/send", json={**ARTICLE, "to": "bad"}, headers=key)).status_code == 422
        assert (await client.post("/send", json=ARTICLE, headers=key)).status_code == 202


async def test_a_scheduled_message_is_moved_and_canceled(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        answer = await client.post("/send", json={**ARTICLE, "scheduled_at": later(3600)})
        assert answer.json()["status"] == "scheduled"
        path = answer.headers["location"]
        moved_to = later(7200)
        moved = await client.patch(path, json={"scheduled_at": moved_to})
        assert moved.json()["scheduled_at"] == moved_to
        raw = email.message_from_bytes((await client.get(f"{path}/raw")).content, policy=email.policy.default)
        assert int(raw["date"].datetime.timestamp()) == (SYSTEM.now() // 1000 + 7200)  # within the same second or so
        assert (await client.patch(path, json={"scheduled_at": "2001-01-01T00:00:00Z"})).status_code == 422
        canceled = await client.post(f"{path}/cancel")
        assert canceled.json()["status"] == "canceled"
        assert (await client.post(f"{path}/cancel")).json()["code"] == "not_cancelable"
        assert (await client.patch(path, json={"scheduled_at": later(60)})).json()["code"] == "not_reschedulable"
        assert service.capture is not None
        assert len(service.capture.mailbox) == 0


async def test_a_message_goes_out_when_its_time_has_come_and_not_before(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        due = SYSTEM.now() + 1200
        answer = await client.post(
            "/send", json={**ARTICLE, "scheduled_at": rfc3339(due)}, headers={"Prefer": "wait=10"}
        )
        assert answer.status_code == 200
        sent_at = (await client.get(f"/messages/{answer.json()['id']}/events")).json()["data"][1]["at"]
        assert rfc3339(due) <= sent_at < rfc3339(due + 1000)


async def test_what_bounced_is_retried_once_the_suppression_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "to": "bounce@example.org"}, headers={"Prefer": "wait=10"})
        assert answer.json()["status"] == "bounced"
        path = f"/messages/{answer.json()['id']}"
        refused = await client.post("/send", json={**ARTICLE, "to": "bounce@example.org"})
        assert refused.json()["code"] == "all_recipients_suppressed"
        assert (await client.delete("/suppressions/bounce@example.org")).status_code == 204
        assert (await client.post(f"{path}/retry")).status_code == 202
        types = [each["type"] for each in (await client.get(f"{path}/events")).json()["data"]]
        assert types[:3] == ["accepted", "refused", "retry"]


async def test_erased_content_is_gone_and_the_log_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
        path = f"/messages/{answer.json()['id']}"
        assert (await client.get(f"{path}/raw")).headers["content-type"] == "message/rfc822"
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(f"{path}/raw")).json()["code"] == "content_purged"
        assert (await client.get(path)).json()["subject"] == ""
        assert [each["type"] for each in (await client.get(f"{path}/events")).json()["data"]] == [
            "accepted",
            "sent",
            "erased",
        ]


async def test_stop_wrong_mail_cancels_by_filter(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        for kind in ("spring", "spring", "otp"):
            await client.post("/send", json={**ARTICLE, "scheduled_at": later(3600), "tags": {"campaign": kind}})
        assert (await client.post("/messages/cancel", json={})).status_code == 422
        canceled = await client.post("/messages/cancel", json={"tag": "campaign:spring"})
        assert canceled.json()["canceled"] == 2
        assert len((await client.get("/messages?status=canceled&tag=campaign")).json()["data"]) == 2


async def test_pages_follow_their_cursor(tmp_path: Path) -> None:
    async with running(tmp_path, recipient_limit="off") as (client, _):
        for _ in range(5):
            await client.post("/send", json={**ARTICLE, "metadata": {"order": "7"}})
        seen, path = [], "/messages?metadata.order=7&limit=2"
        after: str | None = ""
        while after is not None:
            page = (await client.get(path + (f"&after={after}" if after else ""))).json()
            seen += [each["id"] for each in page["data"]]
            after = page["next"]
        assert len(seen) == len(set(seen)) == 5


async def test_a_batch_is_all_or_nothing_unless_told_otherwise(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        batch = {
            "base": {**ARTICLE, "to": []},
            "messages": [{"to": "a@example.org"}, {"to": "bad"}, {"to": "c@example.org", "ttl": "x"}],
        }
        refused = await client.post("/send/batch", json=batch)
        assert refused.status_code == 422
        assert {each["pointer"] for each in refused.json()["errors"]} == {"#/messages/1/to", "#/messages/2/ttl"}
        assert (await client.get("/messages")).json()["data"] == []
        partly = await client.post("/send/batch?on_error=partial", json=batch)
        assert partly.status_code == 202
        assert (partly.json()["accepted"], partly.json()["refused"]) == (1, 2)
        assert [("message" in each, "error" in each) for each in partly.json()["results"]] == [
            (True, False),
            (False, True),
            (False, True),
        ]
        nothing = await client.post("/send/batch?on_error=partial", json={"messages": [{"to": "bad"}]})
        assert nothing.status_code == 422


async def test_an_item_of_a_batch_is_replayed_by_its_own_key(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        item = {"to": "a@example.org", "idempotency_key": "item"}
        first = await client.post("/send/batch", json={"base": {**ARTICLE, "to": []}, "messages": [item]})
        again = await client.post(
            "/send/batch", json={"base": {**ARTICLE, "to": []}, "messages": [{"to": "b@example.org"}, item]}
        )
        assert again.json()["results"][1]["replayed"] is True
        assert again.json()["results"][1]["message"]["id"] == first.json()["results"][0]["message"]["id"]
        assert len((await client.get("/messages")).json()["data"]) == 2


async def test_a_dry_run_makes_everything_and_stores_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send?dry_run=true", json={**ARTICLE, "bcc": "secret@example.org"})
        shown = answer.json()
        assert answer.status_code == 200
        assert shown["subject"] == ARTICLE["subject"]
        assert [each["name"] for each in shown["relays"]] == ["default"]
        assert {"From", "To", "Subject", "Message-ID"} <= {each["name"] for each in shown["headers"]}
        assert "secret@example.org" not in str(shown["headers"])
        assert (await client.get("/messages")).json()["data"] == []


async def _key(client: Any, token: str, **given: Any) -> dict[str, str]:
    made = await client.post("/keys", json={"name": "k", **given}, headers={"Authorization": f"Bearer {token}"})
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}


@pytest.fixture
def admin(tmp_path: Path) -> str:
    token = "pr_" + "A" * 43
    (tmp_path / "key").write_text(token + "\n")
    return token


async def test_keys_have_scopes_senders_and_rates(tmp_path: Path, admin: str) -> None:
    settings = {"auth": "keys", "bootstrap_key_file": tmp_path / "key"}
    async with running(tmp_path, **settings) as (client, _):
        missing = await client.post("/send", json=ARTICLE)
        assert (missing.status_code, missing.json()["code"]) == (401, "missing_api_key")
        assert missing.headers["www-authenticate"].startswith("Bearer")
        for name, value in (
            ("X-Api-Key", "secret-of-mine"),
            ("X-Postmark-Server-Token", "secret-of-mine"),
            ("Authorization", "Basic c2VjcmV0LW9mLW1pbmU="),
            ("Authorization", "secret-of-mine"),
        ):
            elsewhere = await client.post("/send", json=ARTICLE, headers={name: value})
            assert (elsewhere.status_code, elsewhere.json()["code"]) == (401, "missing_api_key")
            named = "HTTP Basic" if value.startswith("Basic") else name
            assert re.search(f"{named}( header)? is not read. Send `Authorization: Bearer", elsewhere.json()["detail"])
            assert value.split()[-1] not in elsewhere.text
        wrong = await client.post("/send", json=ARTICLE, headers={"Authorization": "Bearer pr_" + "B" * 43})
        assert wrong.json()["code"] == "invalid_api_key"
        reader = await _key(client, admin, scopes=["read"])
        assert (await client.post("/send", json=ARTICLE, headers=reader)).json()["code"] == "insufficient_scope"
        bound = await _key(client, admin, scopes=["send"], from_allowed=["example.com"])
        refused = await client.post("/send", json=ARTICLE, headers=bound)
        assert (refused.status_code, refused.json()["code"]) == (403, "from_not_allowed")
        allowed = await client.post("/send", json={**ARTICLE, "from": "x@example.com"}, headers=bound)
        assert allowed.status_code == 202
        forged = {**ARTICLE, "from": "x@example.com", "envelope_from": "y@163.com"}
        assert (await client.post("/send", json=forged, headers=bound)).status_code == 403
        limited = await _key(client, admin, scopes=["send"], rate="2/h")
        answers = [await client.post("/send", json=ARTICLE, headers=limited) for _ in range(3)]
        assert [each.status_code for each in answers] == [202, 202, 429]
        assert int(answers[2].headers["retry-after"]) > 0
        listed = (await client.get("/keys", headers={"Authorization": f"Bearer {admin}"})).text
        assert bound["Authorization"].removeprefix("Bearer ") not in listed
        revoked = [
            each["id"]
            for each in (await client.get("/keys", headers={"Authorization": f"Bearer {admin}"})).json()["data"]
        ][1]
        assert (
            await client.delete(f"/keys/{revoked}", headers={"Authorization": f"Bearer {admin}"})
        ).status_code == 204
        assert (await client.get("/messages", headers=reader)).status_code == 401


async def test_another_account_finds_nothing(tmp_path: Path, admin: str) -> None:
    settings = {"auth": "keys", "bootstrap_key_file": tmp_path / "key"}
    async with running(tmp_path, **settings) as (client, service):
        mine = {"Authorization": f"Bearer {admin}"}
        path = (await client.post("/send", json=ARTICLE, headers=mine)).headers["location"]
        _, token = await service.keys.create("rival", "k")
        rival = {"Authorization": f"Bearer {token}"}
        for method, suffix in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/raw"),
            ("POST", "/cancel"),
            ("POST", "/retry"),
            ("DELETE", ""),
        ):
            answer = await client.request(method, path + suffix, headers=rival)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, suffix)
        assert (await client.get("/messages", headers=rival)).json()["data"] == []
        assert (await client.get("/keys", headers=rival)).json()["data"][0]["account"] == "rival"


async def test_one_recipient_can_not_be_bombed(tmp_path: Path) -> None:
    async with running(tmp_path, recipient_limit="2/h") as (client, _):
        answers = [await client.post("/send", json=ARTICLE) for _ in range(3)]
        assert [each.status_code for each in answers] == [202, 202, 429]
        assert "405966530@qq.com" in answers[2].json()["detail"]
        assert (await client.post("/send", json={**ARTICLE, "to": "other@example.org"})).status_code == 202


async def test_the_staging_guard_redirects_and_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, redirect_all_to="test@example.net") as (client, service):
        answer = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
        assert answer.headers["x-postroom-guard"] == "redirect_all_to=test@example.net"
        assert [each["email"] for each in answer.json()["recipients"]] == ["test@example.net"]
        assert answer.json()["warnings"][0]["code"] == "redirected"
        assert (await client.get("/readyz")).json()["guard"] == "redirect_all_to=test@example.net"
        assert service.capture is not None
        assert [list(mail.recipients) for mail in service.capture.mailbox] == [["test@example.net"]]


async def test_the_staging_guard_drops_other_recipients(tmp_path: Path) -> None:
    async with running(tmp_path, recipients_allowed="example.org") as (client, _):
        some = await client.post("/send", json={**ARTICLE, "to": ["a@example.org", "b@qq.com"]})
        assert [each["email"] for each in some.json()["recipients"]] == ["a@example.org"]
        assert some.json()["warnings"][0]["code"] == "recipient_not_allowed"
        assert (await client.post("/send", json=ARTICLE)).status_code == 422


async def test_duplicates_are_merged(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        body = {**ARTICLE, "to": ["a@example.org", "A@Example.org"], "cc": "a@example.org", "bcc": "b@example.org"}
        recipients = (await client.post("/send", json=body)).json()["recipients"]
        assert [(each["email"], each["kind"]) for each in recipients] == [
            ("a@example.org", "to"),
            ("b@example.org", "bcc"),
        ]


async def test_a_full_queue_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, max_queued=1) as (client, service):
        counted = 'postroom_submissions_refused_total{code="queue_full"}'
        assert f"{counted} 0.0" in (await client.get("/metrics")).text
        service.readiness.waiting_recipients = 1
        answer = await client.post("/send", json=ARTICLE)
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
        assert "retry-after" in answer.headers
        assert f"{counted} 1.0" in (await client.get("/metrics")).text


async def test_a_relay_is_held_and_resumed(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        assert (await client.post("/relays/default/pause", json={"reason": "maintenance"})).json()["health"] == "paused"
        path = (await client.post("/send", json=ARTICLE)).headers["location"]
        held = (await client.get(path)).json()["recipients"][0]["held_back_by"]
        assert held == "relay default is paused: maintenance"
        assert (await client.post("/relays/default/resume")).json()["health"] == "open"
        view = await service.messages.wait("default", path.rpartition("/")[2], 5)
        assert service.messages.status(view) == "sent"
        check = (await client.post("/relays/default/check")).json()
        assert check["ok"] is True
        assert [step["name"] for step in check["steps"]] == [
            "dns", "tcp", "tls", "greeting", "ehlo", "auth", "sender", "quit"
        ]  # fmt: skip


async def test_a_sender_rule_is_checked_before_the_202(tmp_path: Path) -> None:
    url = "smtp://me%40163.com:x@127.0.0.1:9?plaintext=allow&sender_must_equal_login=true"
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        refused = await client.post("/send", json=ARTICLE)
        assert (refused.status_code, refused.json()["code"]) == (422, "sender_not_accepted")
        assert "me@163.com" in refused.json()["detail"]
        unknown = await client.post("/send", json={**ARTICLE, "relay": "defualt"})
        assert unknown.json()["code"] == "relay_not_found"
        assert "did you mean default?" in unknown.json()["detail"]


async def test_metrics_tell_what_happened(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
        await client.post("/send", json={})
        text = (await client.get("/metrics")).text
        assert "postroom_messages_accepted_total 1.0" in text
        assert 'postroom_submissions_refused_total{code="validation_error"} 1.0' in text
        assert 'postroom_recipient_outcomes_total{event="sent",kind="sent",relay="default"} 1.0' in text


async def test_a_retry_does_not_go_before_its_schedule(tmp_path: Path) -> None:
    """The message says its date; it must not arrive days before it."""
    async with running(tmp_path) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "scheduled_at": later(3600)})
        path = answer.headers["location"]
        assert (await client.post(f"{path}/cancel")).status_code == 200
        assert (await client.post(f"{path}/retry")).status_code == 202
        view = (await client.get(path)).json()
        assert view["status"] == "scheduled"
        assert view["recipients"][0]["next_attempt_at"] == view["scheduled_at"]
