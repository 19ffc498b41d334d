"""A client of the service that notes every 202, and repeats under its key whatever got no answer.

It decides what is sent: plain messages, some with three recipients that the sink answers with 250, 450 and 550, some with a
shared attachment, and some at most once. It knows no database.
"""

import base64
import itertools
import threading
from typing import Any

import httpx

from tests.support.checker import Promise

_ATTACHED = base64.b64encode(bytes(range(256)) * 80).decode()
_WAIT = 20.0  # seconds for one answer


def message(key: str, number: int) -> dict[str, Any]:
    """The body of one request. Each kind comes again after a few numbers."""
    body: dict[str, Any] = {
        "from": "zoucz <zouchengzhuo@163.com>",
        "to": [f"ok-{key}@example.org"],
        "subject": f"测试 {key}",
        "text": "这是一封测试邮件\n",
        "metadata": {"key": key},
    }
    if number % 3 == 1:
        body["to"] += [f"busy-{key}@example.org", f"gone-{key}@example.org"]
    if number % 5 == 2:
        body["attachments"] = [
            {"filename": "same.bin", "content": _ATTACHED, "content_type": "application/octet-stream"}
        ]
    if number % 4 == 3:
        body["delivery"] = "at_most_once"
    return body


class Client:
    """One for each run; its threads share it. `name` makes its keys its own."""

    def __init__(self, name: str) -> None:
        self._name, self._numbers, self._lock = name, itertools.count(), threading.Lock()
        self.promises: list[Promise] = []
        self._unanswered: dict[str, dict[str, Any]] = {}
        self.statuses: dict[int, int] = {}

    def post(self, http: httpx.Client) -> bool:
        """Send one more message, or repeat one that got no answer. False: no answer."""
        with self._lock:
            key, body = self._unanswered.popitem() if self._unanswered else self._new()
        try:
            answer = http.post("/send", json=body, headers={"Idempotency-Key": key}, timeout=_WAIT)
        except httpx.HTTPError:
            with self._lock:
                self._unanswered[key] = body
            return False
        with self._lock:
            self._learn(key, body, answer)
        return True

    def _new(self) -> tuple[str, dict[str, Any]]:
        number = next(self._numbers)
        key = f"{self._name}-{number}"
        return key, message(key, number)

    def _learn(self, key: str, body: dict[str, Any], answer: httpx.Response) -> None:
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        if answer.status_code == 202:
            given = answer.json()
            self.promises.append(Promise(given["id"], given["message_id"].strip("<>"), tuple(body["to"]), key))
        elif answer.status_code >= 500 or answer.status_code == 409:
            self._unanswered[key] = body  # nothing was promised: the same key may try again

    def repeat_unanswered(self, url: str) -> None:
        """Whatever got no answer gets one now."""
        with httpx.Client(base_url=url) as http:
            while self._unanswered:
                assert self.post(http), "the service does not answer"


class Load:
    """Threads that post as fast as they can, until it is left or the service does not answer any more."""

    def __init__(self, client: Client, url: str, threads: int = 3) -> None:
        self._client, self._url, self._ended = client, url, threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        with httpx.Client(base_url=self._url) as http:
            while not self._ended.is_set() and self._client.post(http):
                pass

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_WAIT + 5)
