"""A relay in threads of this process, for whole services beside it: it counts logins, and one secret is the right one."""

import base64
import socketserver
import threading
import time
from collections.abc import Callable
from typing import Any, Self


class LoginSink:
    """AUTH PLAIN with a wrong secret gets 535. `stalled`: a login is not answered while it is set."""

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self.logins: list[tuple[float, bool]] = []  # when (monotonic seconds), and whether it was let in
        self.taken = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.changed = threading.Condition()
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    sink._serve(self.rfile, self.wfile)
                except (ConnectionError, ValueError):
                    return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def _serve(self, received: Any, answer: Any) -> None:
        answer.write(b"220 sink\r\n")
        while line := received.readline():
            verb = line.partition(b" ")[0].strip().upper()
            if verb == b"EHLO":
                answer.write(b"250-sink\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n")
            elif verb == b"AUTH":
                answer.write(self._log_in(line))
            elif verb == b"DATA":
                answer.write(b"354 go\r\n")
                while received.readline() != b".\r\n":
                    pass
                self._note(lambda: setattr(self, "taken", self.taken + 1))
                answer.write(b"250 2.0.0 taken\r\n")
            elif verb == b"QUIT":
                answer.write(b"221 bye\r\n")
                return
            else:
                answer.write(b"250 ok\r\n")

    def _log_in(self, line: bytes) -> bytes:
        good = base64.b64decode(line.split()[2]).split(b"\0")[2].decode() == self.secret
        self._note(lambda: self.logins.append((time.monotonic(), good)))
        self.go_on.wait(60)
        return b"235 2.7.0 ok\r\n" if good else b"535 5.7.8 Error: authentication failed\r\n"

    def _note(self, what: Callable[[], object]) -> None:
        with self.changed:
            what()
            self.changed.notify_all()

    def wait_for(self, what: Callable[[], bool], seconds: float = 30) -> None:
        """Until it is so."""
        with self.changed:
            assert self.changed.wait_for(what, seconds), (self.logins, self.taken)

    def url(self, secret: str) -> str:
        """For POSTROOM_RELAY_URL."""
        return f"smtp://me%40163.com:{secret}@127.0.0.1:{self.port}?plaintext=allow&max_connections=5"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
