"""A private Postfix: its own configuration, queue and mailbox in a temporary folder, its own `master` on a loopback port.

Postfix takes mail for every address and delivers it into one Maildir, so that what arrived can be counted and compared.
It adds its own fields on top and stores LF line ends; `Arrived` has those undone. Postfix does not start without root.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

DAEMONS = Path("/usr/lib/postfix/sbin")
_QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
_NOBODY = 65534
_ESTABLISHED, _CLOSE_WAIT = "01", "08"
_PARAMETERS = {
    "compatibility_level": "3.6",
    "myhostname": "postfix.test",
    "mydestination": "",
    "inet_interfaces": "loopback-only",
    "inet_protocols": "ipv4",
    "mynetworks": "127.0.0.0/8",
    "smtpd_client_event_limit_exceptions": "",
    # what arrives is what was sent
    "local_header_rewrite_clients": "",
    "always_add_missing_headers": "no",
    "virtual_mailbox_domains": "b.example, d.example, gone.example",
    "virtual_mailbox_maps": "static:box/",
    "virtual_uid_maps": f"static:{_NOBODY}",
    "virtual_gid_maps": f"static:{_NOBODY}",
    "virtual_mailbox_limit": "0",
    "mailbox_size_limit": "0",
    # guards on
    "smtpd_forbid_bare_newline": "yes",
    "smtpd_forbid_bare_newline_exclusions": "",
    "smtpd_forbid_unauth_pipelining": "yes",
    "smtpd_data_restrictions": "reject_unauth_pipelining",
    "smtpd_error_sleep_time": "0",
    "bounce_size_limit": "1000",
    "smtpd_peername_lookup": "no",
    "tls_random_source": "dev:/dev/urandom",
}
_SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Arrived:
    """One message in the mailbox: for whom, and the content with CRLF line ends as it was handed in."""

    recipient: str
    content: bytes


def _missing() -> str | None:
    """Why Postfix can't be used here."""
    if not (DAEMONS / "master").exists():
        return "Postfix is not installed: our client was NOT tried against it (apt-get install postfix)"
    if os.geteuid() != 0:
        return "Postfix needs root: our client was NOT tried against it"
    return None


class Postfix:
    """Started by `with`. `parameters` are main.cf's, over those above."""

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        if (reason := _missing()) is not None:
            pytest.skip(reason)
        self.folder = Path(tempfile.mkdtemp(prefix="postroom-postfix-"))
        self.folder.chmod(0o755)  # its daemons are other users
        self._box, self._log = self.folder / "mail" / "box", self.folder / "log"
        self.port = _free_port()
        self._lay_out(parameters or {})

    def _lay_out(self, parameters: Mapping[str, str]) -> None:
        postfix = pwd.getpwnam("postfix")
        queue, data, configuration = (self.folder / name for name in ("queue", "data", "etc"))
        for path in (queue, data, configuration, self.folder / "mail"):
            path.mkdir()
        for name in (*_QUEUES, "public", "maildrop"):
            (queue / name).mkdir(mode=0o700)
            os.chown(queue / name, postfix.pw_uid, postfix.pw_gid)
        (queue / "pid").mkdir()
        (queue / "public").chmod(0o755)
        os.chown(data, postfix.pw_uid, postfix.pw_gid)
        os.chown(self.folder / "mail", _NOBODY, _NOBODY)
        own = {
            "queue_directory": str(queue),
            "data_directory": str(data),
            "virtual_mailbox_base": str(self.folder / "mail"),
            "maillog_file": str(self._log),
            "maillog_file_prefixes": str(self.folder),
        }
        given = {**_PARAMETERS, **own, **parameters}
        (configuration / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in given.items()))
        (configuration / "master.cf").write_text(_SERVICES.format(port=self.port))
        long_ago = time.time() - 60
        os.utime(configuration / "main.cf", (long_ago, long_ago))  # it waits until a new main.cf is 2 s old

    # --- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        command = [DAEMONS / "master", "-c", self.folder / "etc", "-d"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        _until(self._listens, "Postfix listens")
        self.until_logged("disconnect from")  # or the look just taken may still count among its connections
        return self

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._process.communicate()[1].decode()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """As `postfix abort` does; returns when its connections are dropped.

        `master` tells its daemons to end and does not wait for them: for a moment they still take what is sent.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
        _until(lambda: not self._is_connected(), "all connections are dropped")

    def _is_connected(self) -> bool:
        """Whether one of its daemons holds a connection: by proc(5), fields 2 and 4 of net/tcp are address and state."""
        held = {f"{_ESTABLISHED} 0100007F:{self.port:04X}", f"{_CLOSE_WAIT} 0100007F:{self.port:04X}"}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(f"{line[3]} {line[1]}" in held for line in lines)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # after `stop` nothing may be left of its session
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self.folder)

    # --- what came of it ---------------------------------------------------------------------------------------------

    def log(self) -> str:
        """Its log so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def until_logged(self, words: str) -> None:
        """Wait for a line with these words."""
        _until(lambda: words in self.log(), f"Postfix logs {words!r}")

    def arrived(self, count: int) -> list[Arrived]:
        """What is in the mailbox as soon as it holds so many messages."""
        new = self._box / "new"
        _until(lambda: new.exists() and len(list(new.iterdir())) >= count, f"{count} messages arrived")
        return [_read(file) for file in sorted(new.iterdir())]

    def idle(self) -> None:
        """Wait until its queue is empty: nothing further will arrive of what it took."""
        queues = [self.folder / "queue" / name for name in ("incoming", "active", "deferred", "maildrop")]
        _until(lambda: not any(path.is_file() for each in queues for path in each.rglob("*")), "the queue is empty")


def _read(file: Path) -> Arrived:
    """Return-Path, X-Original-To, Delivered-To and Received are Postfix's, in this order."""
    lines = file.read_bytes().split(b"\n")
    recipient = lines[1].removeprefix(b"X-Original-To: ").decode()
    first = next(number for number, line in enumerate(lines) if line.startswith(b"Received: ")) + 1
    while lines[first].startswith((b" ", b"\t")):
        first += 1
    return Arrived(recipient, b"\r\n".join(lines[first:]))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        time.sleep(0.01)
