"""The sink that scenario tests send to: what still arrives while it ends is remembered, or not taken."""

import re
import signal
import socket
from pathlib import Path

import pytest

from tests.support.sink_process import SinkProcess

_MESSAGE = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nMessage-ID: <%d@here>\r\n\r\n" + b"x" * 1000 + b"\r\n.\r\n"
_READ_AT_ONCE = 256 * 1024  # octets that asyncio takes from a socket before it looks at signals again


def test_a_sink_that_ends_while_mail_arrives_logs_what_it_takes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It stands still until the signal and more mail than it reads at once wait for it together."""
    sink = SinkProcess(tmp_path)
    clients = [socket.create_connection(("127.0.0.1", sink.port)) for _ in range(4)]
    try:
        for client in clients:
            assert client.recv(100) == b"220 sink\r\n"
        sink.process.send_signal(signal.SIGSTOP)
        mail = b"".join(_MESSAGE % number for number in range(2000))
        assert len(mail) > 4 * _READ_AT_ONCE
        for client in clients:
            client.setblocking(False)
            client.send(mail)
        sink.process.terminate()
        sink.process.send_signal(signal.SIGCONT)
        assert sink.process.wait(30) == 0
        taken = sum(len(re.findall(rb"250 2\.0\.0 taken", _all_of(client))) for client in clients)
    finally:
        sink.process.kill()
        for client in clients:
            client.close()
    assert "Error" not in capfd.readouterr().err
    assert sum(sink.copies().values()) >= taken > 0


def _all_of(client: socket.socket) -> bytes:
    """Everything that came before the connection broke."""
    client.settimeout(10)
    found = b""
    try:
        while part := client.recv(65536):
            found += part
    except ConnectionResetError:
        return found
    return found
