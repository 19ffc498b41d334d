"""Bodies made to be read as the end of one message and the start of another: exactly one message at the sink, each time."""

from pathlib import Path

import pytest

from tests.support.running import ARTICLE, running
from tests.support.sink import Sink

SECOND = "MAIL FROM:<x@evil.example>{0}RCPT TO:<y@evil.example>{0}DATA{0}Subject: smuggled{0}{0}x{0}.{0}"
ENDS = ["\n.\n", "\r.\r", "\r\n.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r\n", "\r.\n", "\n.\r", "\0.\r\n"]


@pytest.mark.parametrize("end", ENDS, ids=[repr(end) for end in ENDS])
@pytest.mark.parametrize("padding", ["", "é" * 30, "x" * 2000], ids=["plain", "base64", "long line"])
async def test_one_request_is_one_message(end: str, padding: str, tmp_path: Path) -> None:
    sink = await Sink().start()
    url = f"smtp://zouchengzhuo%40163.com:AUTHCODE@localhost:{sink.port}?plaintext=allow"
    body = f"{padding}before{end}{SECOND.format(end.replace('.', ''))}after"
    async with running(tmp_path, capture=False, relay_url=url) as (client, _):
        answer = await client.post("/send", json={**ARTICLE, "text": body, "html": None}, headers={"Prefer": "wait=10"})
        if "\0" in body:
            assert answer.status_code == 422
        else:
            assert answer.json()["status"] == "sent"
            again = await client.post("/send", json=ARTICLE, headers={"Prefer": "wait=10"})
            assert again.json()["status"] == "sent"
    assert [each.rcpt_tos for each in sink.received] == ([] if "\0" in body else [["405966530@qq.com"]] * 2)
    await sink.stop()
