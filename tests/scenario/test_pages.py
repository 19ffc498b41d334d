"""Pages in a real browser without internet: the API docs render, the inbox shows mail, hostile mail does nothing."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.support.browser import dom, require_chromium, screenshot
from tests.support.process import ROOT
from tests.support.running import ARTICLE

PAGES = ROOT / "service" / "capture" / "pages"

pytestmark = pytest.mark.timeout(180)


class Beacon:
    """A listener that hostile mail tries to reach."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.reached: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.reached.append(connection.recv(200))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`postroom dev`, as a newcomer runs it."""
    require_chromium()
    folder = tmp_path_factory.mktemp("dev")
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "dev", "--port", "0"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    line = next(line for line in process.stdout if "/docs" in line)
    yield line.split()[-1].removesuffix("/docs")
    process.terminate()
    process.wait()


def deliver(url: str, **given: object) -> str:
    """Send a mail and wait until it is captured; its id in the inbox."""
    answer = httpx.post(f"{url}/send", json={**ARTICLE, **given}, headers={"Prefer": "wait=10"})
    assert answer.status_code == 200, answer.text
    message_id = answer.json()["message_id"]
    mails = httpx.get(f"{url}/inbox/api/messages").json()["messages"]
    return str(next(mail["id"] for mail in mails if mail["message_id"] == message_id))


def test_the_docs_page_renders_every_operation_without_internet(url: str, tmp_path: Path) -> None:
    page = dom(f"{url}/docs")
    for text in ("/send/batch", "/messages/{id}/events", "/templates/{name}/render", "Send one message", "OAS 3.1"):
        assert text in page, text
    screenshot(f"{url}/docs", str(tmp_path / "docs.png"), 1200, 1400)
    assert (tmp_path / "docs.png").stat().st_size > 30_000


def test_the_inbox_lists_a_mail_and_shows_its_parts(url: str) -> None:
    files = [{"filename": "发票.pdf", "content": "JVBERi0="}]
    id = deliver(url, attachments=files)
    listed = dom(f"{url}/inbox/")
    assert "测试SMTP发送邮件" in listed
    assert "zoucz" in listed
    assert "这是一封测试邮件" in dom(f"{url}/inbox/{id}?view=text")
    assert "Message-ID" in dom(f"{url}/inbox/{id}?view=headers")
    assert "=?UTF-8?B?" in dom(f"{url}/inbox/{id}?view=source")
    assert "发票.pdf" in dom(f"{url}/inbox/{id}?view=attachments")
    assert "<b>测试</b>" in dom(f"{url}/inbox/{id}/html")


MOMENT = re.compile(r'<time datetime="([^"]+)" title="([^"]+)">([^<]+)</time>')


@pytest.mark.parametrize(
    ("zone", "ahead", "shown"),
    [
        ("Asia/Shanghai", 480, "+08:00"),
        ("America/Caracas", -240, "-04:00"),
        ("Asia/Kolkata", 330, "+05:30"),
        ("UTC", 0, "UTC"),
    ],
)
def test_a_reader_sees_the_time_of_the_own_clock_and_can_copy_utc(
    url: str, monkeypatch: pytest.MonkeyPatch, zone: str, ahead: int, shown: str
) -> None:
    id = deliver(url)
    monkeypatch.setenv("TZ", zone)
    mail = httpx.get(f"{url}/inbox/api/messages/{id}").json()
    for page in (f"{url}/inbox/", f"{url}/inbox/{id}?view=text"):
        text = dom(page)
        moments = {moment: (title, words) for moment, title, words in MOMENT.findall(text)}
        title, words = moments[mail["received_at"]]
        at = datetime.fromisoformat(mail["received_at"])
        assert title == f"{at:%Y-%m-%d %H:%M:%S} UTC", "by which the reader can tell it to others"
        assert words == f"{at + timedelta(minutes=ahead):%Y-%m-%d %H:%M:%S} {shown}"
    assert f'<code class="utc">{mail["received_at"]}</code>' in text


def test_nothing_moves_when_the_time_of_the_reader_takes_the_place_of_utc(tmp_path: Path) -> None:
    """Lists that differ in that alone are measured with the style of the inbox."""
    rows = "".join(
        f'<ul class="mails"><li><a><span class="who">a</span><span class="to">to b</span><span class="subject">s</span>'
        f'<span class="when">676 B · <time>{words}</time></span></a></li></ul>'
        for words in ("2026-11-26 11:56:23 UTC", "2026-11-26 08:26:23 -03:30", "2026-11-26 19:56:23 +08:00")
    )
    measure = (
        "document.body.dataset.boxes = [...document.querySelectorAll('.mails')].map((each) => ["
        "each.offsetHeight, ...['.who', '.subject', '.when', 'time'].map((name) => each.querySelector(name).offsetWidth)]).join(' ')"
    )
    page = tmp_path / "page.html"
    style = (PAGES / "inbox.css").read_text(encoding="utf-8")
    page.write_text(
        f"<!doctype html><meta charset=utf-8><style>{style}</style><main>{rows}</main><script>{measure}</script>"
    )
    for width in (1200, 500):
        found = re.search(r'data-boxes="([^"]+)"', dom(page.as_uri(), f"--window-size={width},600"))
        assert found is not None
        first, *others = found[1].split()
        assert min(map(int, first.split(","))) > 0
        assert others == [first, first]


def test_hostile_mail_runs_nothing_and_fetches_nothing(url: str) -> None:
    beacon = Beacon()
    away = f"http://127.0.0.1:{beacon.port}"
    html = f"""<base href="{away}/"><meta http-equiv="refresh" content="0;url={away}/refresh">
    <link rel="stylesheet" href="{away}/style"><style>@import url({away}/import); body {{ background: url({away}/background) }}</style>
    <script>document.body.dataset.ran = "script"; fetch("{away}/script")</script>
    <img src="{away}/image" onerror="document.body.dataset.ran = 'onerror'">
    <img src=x onerror="document.body.dataset.ran = 'onerror2'">
    <svg onload="document.body.dataset.ran = 'svg'"></svg><iframe src="{away}/frame"></iframe>
    <iframe srcdoc="<script>parent.document.body.dataset.ran = 'srcdoc'</script>"></iframe>
    <object data="{away}/object"></object><embed src="{away}/embed"><video src="{away}/video" autoplay></video>
    <form action="{away}/form"><input name=a></form><script>document.forms[0].submit()</script><p id="seen">seen</p>"""
    id = deliver(url, html=html, subject="<script>alert(1)</script>")
    for page in (f"{url}/inbox/{id}", f"{url}/inbox/{id}/html"):
        shown = dom(page)
        assert "data-ran" not in shown, page
    assert "seen" in dom(f"{url}/inbox/{id}/html")
    assert "<script>alert(1)" not in dom(f"{url}/inbox/{id}?view=text").partition("<main>")[2]
    assert beacon.reached == []
    beacon.close()


def test_images_come_only_from_the_mail_itself(url: str) -> None:
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    files = [{"filename": "logo.png", "content": png, "content_id": "logo", "content_type": "image/png"}]
    id = deliver(url, html='<img id="i" src="cid:logo" alt="x"><img src="cid:missing" alt="y">', attachments=files)
    shown = httpx.get(f"{url}/inbox/{id}/html")
    assert f'src="/inbox/{id}/parts/' in shown.text
    assert "cid:" not in shown.text
    part = shown.text.split('src="')[1].split('"')[0]
    assert httpx.get(url + part).headers["content-type"] == "image/png"
    assert "sandbox" in shown.headers["content-security-policy"]


def test_clearing_needs_this_origin(url: str) -> None:
    deliver(url)
    assert httpx.post(f"{url}/inbox/clear", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert httpx.post(f"{url}/inbox/clear", headers={"Origin": "https://evil.example"}).status_code == 403
    assert httpx.get(f"{url}/inbox/api/messages").json()["total"] > 0
    assert httpx.post(f"{url}/inbox/clear", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert httpx.get(f"{url}/inbox/api/messages").json()["total"] == 0
