"""The composed message as the API shows it: fixed when it is accepted, and never stored when the gate finds it wrong."""

import dataclasses
import email
import email.policy
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.clock import SYSTEM, rfc3339
from service.mail.compose import Composed, compose
from service.mail.draft import Draft
from service.spool import prepare
from tests.support.running import ARTICLE, running


def compose_with_a_second_subject(draft: Draft) -> Composed:
    made = compose(draft)
    head = made.segments[0].replace(b"Subject:", b"Subject: another\r\nSubject:", 1)
    return dataclasses.replace(made, segments=(head, *made.segments[1:]))


async def test_bytes_that_were_not_intended_are_a_500_with_an_alert_and_are_never_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (client, service):
        with monkeypatch.context() as broken, capture_logs() as lines:
            broken.setattr(prepare, "compose", compose_with_a_second_subject)
            answer = await client.post("/send", json=ARTICLE, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "internal_error"
        assert "another" not in answer.text
        assert (await client.get("/messages")).json()["data"] == []
        assert service.capture is not None
        assert len(service.capture.mailbox) == 0

        mended = await client.post("/send", json=ARTICLE, headers={"Idempotency-Key": "k"})
        assert mended.status_code == 202  # the failed request did not burn its key
    (alert,) = [line for line in lines if line["event"] == "alert.compose_violation"]
    assert alert["log_level"] == "error"
    assert alert["id"].startswith("msg_")
    assert "Subject" in alert["detail"]


async def test_the_message_id_is_of_the_senders_domain_and_stays_when_the_date_moves(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        times = [rfc3339(SYSTEM.now() + hours * 3_600_000) for hours in (1, 2)]
        answer = await client.post("/send", json={**ARTICLE, "scheduled_at": times[0]})
        path = answer.headers["location"]
        first = email.message_from_bytes((await client.get(f"{path}/raw")).content, policy=email.policy.default)
        assert first["message-id"] == answer.json()["message_id"]
        assert first["message-id"].endswith("@163.com>")
        assert (await client.patch(path, json={"scheduled_at": times[1]})).status_code == 200
        moved = email.message_from_bytes((await client.get(f"{path}/raw")).content, policy=email.policy.default)
        assert {name for name, value in first.items() if moved[name] != value} == {"Date"}
