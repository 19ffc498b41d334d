"""Canaries: secrets and words of mail go through every failure there is, and come out nowhere that an operator reads."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenario.test_crash import wait_for
from tests.support.process import ServiceProcess
from tests.support.sink_process import SinkProcess

KEY = "pr_" + "c4nary" * 8
WRONG_KEY = "pr_" + "wr0ng1" * 8
PASSWORD, URL_PASSWORD, BODY, VARIABLE = "canary-login", "canary-url", "canary-body", "canary-variable"
LOCAL_PART = "canaryreader"
CANARIES = (KEY, WRONG_KEY, PASSWORD, URL_PASSWORD, BODY, VARIABLE)


def relays(folder: Path, open_port: int, sick_port: int) -> Path:
    """One relay that works, one that refuses a login, one without TLS where TLS is asked, one that is not there."""
    (folder / "secret").write_text(PASSWORD)
    file = folder / "relays.toml"
    file.write_text(f"""
[relays.good]
url = "smtp://127.0.0.1:{open_port}?plaintext=allow"
from = ["good.example"]
[relays.login]
url = "smtp://user@127.0.0.1:{sick_port}?plaintext=allow"
secret_file = "{folder}/secret"
from = ["login.example"]
[relays.tls]
url = "smtps://other:{URL_PASSWORD}@127.0.0.1:{sick_port}"
from = ["tls.example"]
[relays.gone]
url = "smtp://other:{URL_PASSWORD}@127.0.0.1:9?plaintext=allow"
from = ["gone.example"]
""")
    return file


def requests(client: httpx.Client) -> list[httpx.Response]:
    """Good and bad, by every door."""

    def mail(domain: str, **more: Any) -> dict[str, Any]:
        to = f"{LOCAL_PART}@example.org"
        return {"from": f"a@{domain}.example", "to": to, "subject": BODY, "text": BODY, **more}

    broken = {"name": "verify-email", "variables": {"code": VARIABLE, "nonsense": VARIABLE}}
    without_text = {name: value for name, value in mail("good").items() if name not in ("subject", "text")}
    attachment = [{"filename": "a.txt", "content": base64.b64encode(BODY.encode()).decode() + "!"}]
    answers = [client.post("/send", json=mail(domain)) for domain in ("good", "login", "tls", "gone", "none")]
    answers += [
        client.post("/send", json={**without_text, "template": broken}),
        client.post("/send", json=mail("good", attachments=attachment)),
        client.post("/send", json=mail("good", headers={"X-A": f"{BODY}\r\nBcc: x@y.example"})),
        client.post(
            "/send", content=b'{"text": "' + BODY.encode() + b'"', headers={"Content-Type": "application/json"}
        ),
        client.post("/send", json=mail("good", txet=BODY)),
        client.post("/send", json=mail("good"), headers={"Authorization": f"Bearer {WRONG_KEY}"}),
        client.get("/messages", headers={"Authorization": f"Basic {base64.b64encode(PASSWORD.encode()).decode()}"}),
        client.get(f"/suppressions/{LOCAL_PART}@example.org"),
        client.get(f"/nowhere/{LOCAL_PART}@example.org"),
        client.get("/messages/msg_01JDX0000000000000000000000"),
    ]
    answers += [client.post(f"/relays/{name}/check") for name in ("login", "tls", "gone")]
    return answers


def seen(client: httpx.Client, service: ServiceProcess) -> dict[str, str]:
    """All that an operator may look at, by place."""
    found = {path: client.get(path).text for path in ("/metrics", "/readyz", "/relays", "/relays/login", "/relays/tls")}
    for message in client.get("/messages", params={"limit": 200}).json()["data"]:
        found[f"events of {message['id']}"] = client.get(f"/messages/{message['id']}/events").text
    return found


@pytest.mark.timeout(120)
def test_no_canary_comes_out_anywhere_and_no_reader_is_named_in_a_log(tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    sick.mkdir()
    (tmp_path / "key").write_text(KEY)
    with SinkProcess(tmp_path) as sink, SinkProcess(sick) as other:
        given = {
            "relay_url": "",
            "relays_file": relays(tmp_path, sink.port, other.port),
            "auth": "keys",
            "bootstrap_key_file": tmp_path / "key",
            "log_level": "debug",
            "connect_timeout": 2,
            "greeting_timeout": 2,
            "retry_schedule": "1s",
        }
        with (
            ServiceProcess(tmp_path, **given) as service,
            httpx.Client(base_url=service.url, timeout=60, headers={"Authorization": f"Bearer {KEY}"}) as client,
        ):
            answers = requests(client)
            assert {answer.status_code for answer in answers} >= {202, 400, 401, 404, 422}
            assert wait_for(lambda: sink.copies(), 20)
            assert wait_for(lambda: any(line.get("relay") in ("login", "tls", "gone") for line in service.lines), 20)
            (tmp_path / "secret").write_text(PASSWORD + "\nsecond line")
            service.process.send_signal(1)
            assert wait_for(lambda: any("relays." in str(line.get("event")) for line in service.lines), 20)
            places = seen(client, service)
        places["log"] = "\n".join(json.dumps(line, ensure_ascii=False) for line in service.lines)
        for number, answer in enumerate(answers):
            # what a request asked itself may be told back to it but for secrets
            places[f"answer {number}"] = answer.text if answer.status_code != 200 else ""
    for place, text in places.items():
        for canary in CANARIES:
            assert canary not in text, f"{canary} in {place}"
    assert LOCAL_PART not in places["log"]
    assert LOCAL_PART not in places["/metrics"]
    assert "Traceback" not in places["log"]
    requests_logged = [line for line in service.lines if line.get("event") == "http.request"]
    assert all(line["path"] and line["request_id"] for line in requests_logged)
    assert any(line["path"] == "/suppressions/[address]@example.org" for line in requests_logged)
    posted = [line for line in requests_logged if line["status"] == 202]
    assert posted
    assert all(re.fullmatch(r"msg_[0-9A-Z]{26}", line["id"]) for line in posted)
    about_mail = [line for line in service.lines if str(line.get("event", "")).startswith("delivery.")]
    assert about_mail
    assert all(line["id"].startswith("msg_") for line in about_mail if line["event"] == "delivery.attempt")


def test_a_broken_template_is_told_to_the_one_who_works_on_it(tmp_path: Path) -> None:
    folder = tmp_path / "templates" / "hello"
    folder.mkdir(parents=True)
    (folder / "template.toml").write_text('subject = "hi"\n')
    (folder / "html.j2").write_text("<p>fine</p>")
    given = {"templates_dir": folder.parent, "templates_watch": True, "hold": True}
    asked = {"from": "a@example.com", "to": "b@example.org", "template": {"name": "other"}}
    with SinkProcess(tmp_path) as sink, ServiceProcess(tmp_path, sink.url, **given) as service:
        assert httpx.post(f"{service.url}/send", json=asked).json()["code"] == "template_not_found"
        other = folder.parent / "other"
        other.mkdir()
        (other / "template.toml").write_text('subject = "hi"\n')
        (other / "html.j2").write_text("<p>\n{{ broken</p>")
        answer = httpx.post(f"{service.url}/send", json=asked)
        assert (answer.status_code, answer.json()["code"]) == (422, "template_refused")
        assert "other/html.j2:2" in answer.json()["errors"][0]["detail"]
        assert wait_for(lambda: any(line.get("event") == "templates.refused" for line in service.lines), 10)
        (other / "html.j2").write_text("<p>mended</p>")
        assert httpx.post(f"{service.url}/send", json=asked).status_code == 202
