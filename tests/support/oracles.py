"""Readers of mail that nobody here wrote, behind one interface: npm mailparser, Perl MIME-tools, Python's email.

Each reads raw bytes and says what it understood, as a Reading. Where a reader errs it is put right in `_corrected`, and
nowhere else. The programs of npm and Perl run once and answer a line of
base64 with a line of JSON.
"""

import base64
import email
import email.policy
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from email.header import decode_header, make_header
from email.utils import getaddresses
from pathlib import Path
from typing import Any, Protocol, Self

import idna
import pytest

PROGRAMS = Path(__file__).resolve().parents[1] / "oracles"
_TOLD_ELSEWHERE = {"from", "sender", "to", "cc", "reply-to", "content-type", "content-transfer-encoding"}
MAILBOX_FIELDS = ("from", "sender", "to", "cc", "reply-to")

Mailboxes = tuple[tuple[str, str], ...]  # (display name, address)


@dataclass(frozen=True)
class File:
    """An attachment or inline image as a reader sees it."""

    filename: str | None
    content_type: str
    sha256: str
    content_id: str | None
    disposition: str | None


@dataclass(frozen=True)
class Reading:
    """What a reader understood.

    Texts have LF line ends, and no body is the same as an empty one. `headers` are (name in lower case, value), sorted,
    without those that `mailboxes` and the parts tell.
    """

    subject: str
    mailboxes: dict[str, Mailboxes]
    headers: tuple[tuple[str, str], ...]
    text: str
    html: str
    files: tuple[File, ...]
    calendar: tuple[str, str] | None = None  # method and content of the alternative, not of the file
    alternatives: tuple[tuple[str, str], ...] = ()


class Oracle(Protocol):
    """A reader."""

    def read(self, raw: bytes) -> Reading:
        """What it understood."""
        ...


class Program:
    """A reader that is a program of its own; it lives until `close`."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROGRAMS)

    def read(self, raw: bytes) -> Reading:
        """What it understood."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(raw) + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"{self._process.args} died of a message"
        return _corrected(_reading(json.loads(answer)))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def mailparser() -> Program:
    """npm mailparser. Skips loudly without it."""
    if shutil.which("node") is None or not (PROGRAMS / "node_modules" / "mailparser").is_dir():
        pytest.skip("npm mailparser is not installed: this oracle did NOT read our bytes (make setup, with npm)")
    return Program("node", "mailparser.mjs")


def mimetools() -> Program:
    """Perl MIME-tools. Skips loudly without them."""
    modules = ("-MMIME::Parser", "-MMail::Address", "-MJSON::PP")
    if shutil.which("perl") is None or subprocess.run(["perl", *modules, "-e1"], capture_output=True).returncode:
        pytest.skip(
            "Perl MIME-tools are not installed: this oracle did NOT read our bytes (apt-get install libmime-tools-perl)"
        )
    return Program("perl", "mimetools.pl")


class PythonEmail:
    """Python's email: the tree by the newer parser, names and free text by the older.

    The newer one keeps the space between adjacent encoded words (against RFC 2047 6.2) when they stand in a display
    name, and the other two readers and the older one do not.
    """

    def read(self, raw: bytes) -> Reading:
        """What it understood."""
        message = email.message_from_bytes(raw, policy=email.policy.SMTPUTF8)
        headers = [(name, _unfolded(value)) for name, value in message.raw_items()]
        given = {name.lower(): value for name, value in headers}
        return _corrected(
            _reading(
                {
                    "subject": _free_text(given.get("subject", "")),
                    "mailboxes": {
                        name: [
                            (_free_text(phrase), address)
                            for phrase, address in (getaddresses([given[name]]) if name in given else [])
                        ]
                        for name in MAILBOX_FIELDS
                    },
                    "headers": [
                        (name.lower(), _free_text(value))
                        for name, value in headers
                        if name.lower() not in _TOLD_ELSEWHERE
                    ],
                    "leaves": [_leaf(part) for part in message.walk() if not part.is_multipart()],
                }
            )
        )


def _unfolded(value: str) -> str:
    return re.sub(r"\r?\n(?=[ \t])", "", value).strip(" \r\n").encode("ascii", "surrogateescape").decode()


def _free_text(value: str) -> str:
    return str(make_header(decode_header(value)))


def _leaf(part: Any) -> dict[str, Any]:
    octets = part.get_payload(decode=True)
    disposition = part.get_content_disposition()
    return {
        "filename": part.get_filename(),
        "type": part.get_content_type(),
        "method": part.get_param("method"),
        "disposition": disposition,
        "content_id": part["content-id"].strip("<>") if part["content-id"] else None,
        "sha256": hashlib.sha256(octets).hexdigest(),
        "text": None if disposition else octets.decode(),
    }


def _reading(told: dict[str, Any]) -> Reading:
    bodies = [leaf for leaf in told["leaves"] if leaf["disposition"] is None]
    files = [leaf for leaf in told["leaves"] if leaf["disposition"] is not None]
    by_type = {leaf["type"]: leaf for leaf in bodies}
    assert len(by_type) == len(bodies), "two bodies of one type"
    calendar = by_type.get("text/calendar")
    own = {"text/plain", "text/html", "text/calendar"}
    return Reading(
        subject=told["subject"],
        mailboxes={name: tuple((phrase, address) for phrase, address in told["mailboxes"][name]) for name in MAILBOX_FIELDS},
        headers=tuple(sorted((name, value) for name, value in told["headers"] if name not in _TOLD_ELSEWHERE)),
        text=_lf(told["text"] if "text" in told else by_type.get("text/plain", {}).get("text")),
        html=_lf(told["html"] if "html" in told else by_type.get("text/html", {}).get("text")),
        files=tuple(
            File(leaf["filename"], leaf["type"], leaf["sha256"], leaf["content_id"], leaf["disposition"]) for leaf in files
        ),
        calendar=(calendar["method"], _lf(calendar["text"])) if calendar else None,
        alternatives=tuple((leaf["type"], _lf(leaf["text"])) for leaf in bodies if leaf["type"] not in own),
    )  # fmt: skip


def _lf(text: str | None) -> str:
    return (text or "").replace("\r\n", "\n")


def _corrected(reading: Reading) -> Reading:
    """What readers do to be kind, undone.

    - mailparser turns A-labels of domains into U-labels for display; the wire has A-labels, as the other two say.
    - an empty group (RFC 5322 3.4) holds no mailbox; each tells it in its own way, as a mailbox without address.
    """
    mailboxes = {
        name: tuple((phrase, _wire(address)) for phrase, address in given if "@" in address)
        for name, given in reading.mailboxes.items()
    }
    return replace(reading, mailboxes=mailboxes)


def _wire(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return address if domain.isascii() else f"{local}@{idna.encode(domain).decode()}"
