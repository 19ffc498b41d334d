"""One form to a token endpoint and its answer (RFC 6749 3.2): https, no redirect, a bounded answer, one deadline for all.

http.client runs in a thread. When the deadline passes its socket is shut, so that the thread ends with it.
"""

import asyncio
import contextlib
import http.client
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

_MAX_ANSWER = 64 * 1024  # octets


class Unanswered(Exception):
    """No answer came, or none that can be read; the text says why."""


async def post_form(url: str, form: Mapping[str, str], timeout: float) -> tuple[int, bytes]:
    """Status and body of the answer. `timeout` is in seconds and holds for all of it. Raises TimeoutError, Unanswered."""
    call = _Call(url, form, timeout)
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.to_thread(call.run)
    except TimeoutError:  # an OSError too
        raise
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(str(error) or type(error).__name__) from None
    finally:
        call.shut()


class _Call:
    def __init__(self, url: str, form: Mapping[str, str], timeout: float) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._body = urlencode(form).encode()
        self._shut = False
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            # Judged as a relay's certificate is, under every Python. The default context is stricter from 3.13 on: it takes none
            # without an authority key identifier (RFC 5280 4.2.1.1), and the own authorities of companies may leave it out.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificate and host name
            context.load_default_certs()
            self._connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def run(self) -> tuple[int, bytes]:
        """In the thread."""
        fields = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        try:
            self._connection.connect()
            if self._shut:
                raise TimeoutError
            self._connection.request("POST", self._target, self._body, fields)
            answer = self._connection.getresponse()
            body = answer.read(_MAX_ANSWER + 1)
            if len(body) > _MAX_ANSWER:
                raise Unanswered(f"an answer over {_MAX_ANSWER} octets")
            return answer.status, body
        finally:
            self._connection.close()

    def shut(self) -> None:
        """On the loop: whatever the thread waits for ends now."""
        self._shut = True
        with contextlib.suppress(OSError):
            if self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
