"""What a message costs before it is stored: composing beside the standard library and nodemailer, templates, DKIM.

The three composers make the same messages, turn by turn in one run; medians of the rounds. None of them sends. Ours
includes the gate, which the others do not have.
"""

import base64
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from service.mail.bodies import base64_lines
from service.mail.compose import compose
from service.mail.dkim import sign
from service.mail.dkim_keys import DkimKey, generate, load_private
from service.mail.draft import Attachment, Draft
from service.mail.gate import inspect
from service.mail.render import Template, compile_template
from service.mail.template import parse_files
from tests.support.drafts import draft
from tests.support.template_files import starter_files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / "tests" / "oracles" / "node_modules"
MEBIBYTE = 1024 * 1024


def microseconds(work: Callable[[], Any], count: int) -> float:
    """For each call, of `count` calls."""
    began = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - began) / count * 1e6


# --- the same message for all ---------------------------------------------------------------------------------------


def ours(message: Draft) -> int:
    """Compose, and read it again by the gate; the octets."""
    made = compose(message)
    inspect(made)
    return made.size


def standard_library(message: Draft) -> int:
    """The same by email.message."""
    made = EmailMessage(policy=SMTP)
    made["From"] = f"{message.from_.name} <{message.from_.email}>"
    made["To"] = ", ".join(f"{each.name} <{each.email}>" for each in message.to)
    made["Subject"] = message.subject
    made["Message-ID"] = f"<{message.message_id}>"
    made["Date"] = "Mon, 24 Nov 2025 16:00:00 +0000"
    made.set_content(message.text or "")
    if message.html is not None:
        made.add_alternative(message.html, subtype="html")
    for each in message.attachments:
        made.add_attachment(each.content, maintype="application", subtype="octet-stream", filename=each.filename)
    return len(made.as_bytes())


def _for_nodemailer(message: Draft) -> Mapping[str, Any]:
    return {
        "from": {"name": message.from_.name, "address": message.from_.email},
        "to": [{"name": each.name, "address": each.email} for each in message.to],
        "subject": message.subject,
        "messageId": f"<{message.message_id}>",
        "date": "2025-11-24T16:00:00Z",
        "text": message.text,
        "html": message.html,
        "attachments": [
            {"filename": each.filename, "content": base64.b64encode(each.content).decode()}
            for each in message.attachments
        ],
    }


@contextlib.contextmanager
def nodemailer() -> Iterator[Callable[[Draft, int], float] | None]:
    """A function (message, count) -> microseconds; None without npm's packages."""
    if shutil.which("node") is None or not (PACKAGES / "nodemailer").is_dir():
        yield None
        return
    process = subprocess.Popen(
        ["node", "bench/mailcomposer.cjs"],
        cwd=ROOT,
        env={**os.environ, "NODE_PATH": str(PACKAGES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def run(message: Draft, count: int) -> float:
        process.stdin.write(json.dumps({"mail": _for_nodemailer(message), "count": count}) + "\n")
        process.stdin.flush()
        return float(json.loads(process.stdout.readline())["microseconds"])

    try:
        yield run
    finally:
        process.stdin.close()
        process.wait(10)


# --- the tables -----------------------------------------------------------------------------------------------------


def composers(count: int, rounds: int) -> None:
    """The three composers, turn by turn."""
    english, chinese = rendered("order-confirmation", "en"), rendered("verify-email", "zh-CN")
    messages: list[tuple[str, Draft, int]] = [
        ("text and html, 3 KB of Chinese", draft(html="<p>你好，世界</p>\n" * 70, text="你好，世界\n" * 70), count),
        ("verify-email, Chinese", chinese, count),
        ("order-confirmation, English", english, count),
        ("the first with 1 MiB attached", draft(attachments=(Attachment("a.bin", os.urandom(MEBIBYTE)),)), count // 20),
    ]
    print(f"\nComposing, microseconds a message, medians of {rounds} rounds, turn by turn")
    print(f"  {'':<34}{'Postroom':>10}{'email':>10}{'nodemailer':>12}   ratios")
    with nodemailer() as other:
        for title, message, times in messages:
            times = max(times, 20)
            mine, library, rival = [], [], []
            for _ in range(rounds):
                mine.append(microseconds(lambda message=message: ours(message), times))
                library.append(microseconds(lambda message=message: standard_library(message), max(times // 5, 5)))
                if other is not None:
                    rival.append(other(message, times))
            a, b = statistics.median(mine), statistics.median(library)
            c = statistics.median(rival) if rival else float("nan")
            print(f"  {title:<34}{a:10.1f}{b:10.1f}{c:12.1f}   {b / a:.0f} x, {c / a:.1f} x")
        if other is None:
            print("  nodemailer is not installed (npm): not measured")


def _template(name: str) -> Template:
    return compile_template(parse_files(name, starter_files(name)))


def _render(template: Template, locale: str) -> Any:
    return template.render(
        template.sample(locale), locale, deadline=1e18, monotonic=time.monotonic, max_bytes=2 * MEBIBYTE
    )


def rendered(name: str, locale: str) -> Draft:
    """A starter template with its sample, ready to be composed."""
    made = _render(_template(name), locale)
    return draft(html=made.html, text=made.text, subject=made.subject)


def templates(count: int, rounds: int) -> None:
    """A templated message by step, in both languages."""
    print(f"\nA templated message by step, microseconds, medians of {rounds} rounds (CSS is inlined at load)")
    print(f"  {'':<34}{'check':>8}{'render':>8}{'compose':>9}{'gate':>8}{'in all':>9}")
    for name in ("verify-email", "order-confirmation"):
        template = _template(name)
        for locale in ("en", "zh-CN"):
            sample, message = template.sample(locale), rendered(name, locale)
            made = compose(message)
            steps: tuple[Callable[[], Any], ...] = (
                lambda template=template, sample=sample: template.check(sample),
                lambda template=template, locale=locale: _render(template, locale),
                lambda message=message: compose(message),
                lambda made=made: inspect(made),
            )
            taken = [statistics.median(microseconds(step, count) for _ in range(rounds)) for step in steps]
            print(
                f"  {name + ', ' + locale:<34}{taken[0]:8.1f}{taken[1]:8.1f}{taken[2]:9.1f}{taken[3]:8.1f}"
                f"{sum(taken):9.1f}"
            )


def signatures(count: int, rounds: int) -> None:
    """What a DKIM signature adds to a message when it is sent."""
    keys = {kind: DkimKey("163.com", kind, load_private(generate(kind))) for kind in ("rsa", "ed25519")}
    segments = compose(draft(html="<p>你好，世界</p>\n" * 70, text="你好，世界\n" * 70)).segments
    print(f"\nDKIM, microseconds a message, medians of {rounds} rounds")
    for title, used in (
        ("RSA-2048", (keys["rsa"],)),
        ("Ed25519", (keys["ed25519"],)),
        ("both", (keys["rsa"], keys["ed25519"])),
    ):
        taken = [microseconds(lambda used=used: sign(segments, used, 0), count) for _ in range(rounds)]
        print(f"  {title:<34}{statistics.median(taken):10.1f}")


def attachments(rounds: int) -> None:
    """base64 in lines of 76 with CRLF, 25 MiB."""
    raw = os.urandom(25 * MEBIBYTE)
    ways: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
        ("Postroom", base64_lines),
        ("standard library", lambda content: base64.encodebytes(content).replace(b"\n", b"\r\n")),
    )
    print(f"\nAttachments: base64 in lines of 76, 25 MiB, medians of {rounds} rounds")
    for title, way in ways:
        taken = statistics.median(microseconds(lambda way=way: way(raw), 1) for _ in range(rounds))
        print(f"  {title:<34}{len(raw) / taken:8.0f} MB/s of content")


def run(count: int, rounds: int) -> None:
    """All of it."""
    composers(count, rounds)
    templates(count, rounds)
    signatures(max(count // 4, 50), rounds)
    attachments(rounds)
