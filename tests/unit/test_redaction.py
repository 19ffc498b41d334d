"""What log lines never show, by shape and by name; and that what is useful stays."""

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from service.redaction import redact, redact_text
from service.telemetry import Log, Metrics, bind_message, configure_logging, get_logger

KEY = "pr_" + "a1B2" * 8


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("smtps://me%40163.com:hunter2@smtp.163.com refused", "hunter2"),
        ("postgresql://app:p!w@db/post", "p!w"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("AUTH PLAIN AGEAYg==", "AGEAYg=="),
        (f"the key {KEY} was used", KEY),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "eyJzdWIiOiJ4In0"),
        ("refresh_token=1//abcdef&x=1", "1//abcdef"),
        ('{"client_secret": "s3cr3t-value"}', "s3cr3t-value"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "MIIEow"),
        ("-----BEGIN PRIVATE KEY-----\nMIIcut", "MIIcut"),
        ("550 no such user <bob.smith+x@example.org>", "bob.smith"),
        ('550 "bob smith"@example.org', "bob smith"),
        ("/suppressions/bob@example.org", "bob"),
    ],
)
def test_a_secret_and_a_local_part_are_taken_out_wherever_they_stand(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redact_text(text)
    assert secret not in json.dumps(redact({"a": [{"b": (text,)}]}))
    assert secret not in str(redact(Exception(text)))


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 mailbox unavailable",
        "https://docs.example.org/a?b=c",
        "smtp://127.0.0.1:2525 refused the connection",
        "the server is bearer of bad news",
        "msg_01JDX0000000000000000000",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


def test_the_domain_of_an_address_stays_and_the_whole_of_it_where_that_is_allowed() -> None:
    assert redact_text("no <bob@example.org>") == "no <[address]@example.org>"
    assert redact_text("no <bob@example.org>", addresses=True) == "no <bob@example.org>"


def test_names_of_secrets_are_enough_at_any_depth() -> None:
    found = redact({"relay": {"password": "x1", "Authorization": ["x2"]}, "variables": {"code": "x3"}, "n": 4})
    assert found == {
        "relay": {"password": "[redacted]", "Authorization": "[redacted]"},
        "variables": "[redacted]",
        "n": 4,
    }


def test_a_value_of_any_depth_and_any_length_comes_to_an_end() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "<list>" in str(redact(endless))
    assert len(redact_text("a" * 100_000 + "://" + ":" * 100_000 + "@" * 1000)) > 0


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was written there so far."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("form", ["json", "console"])
def test_traces_and_lines_of_libraries_pass_through_the_same_net(stderr: Callable[[], str], form: str) -> None:
    configure_logging("debug", form)
    secret = "hunter2"

    def fail() -> None:
        hidden = secret  # noqa: F841 - what a trace that shows variables would show
        raise ValueError(f"smtp://a:{secret}@host")

    for say in (get_logger().error, logging.getLogger("some.library").error):
        try:
            fail()
        except ValueError:
            say(Log.REQUEST_FAILED, exc_info=True)
    logging.getLogger("some.library").warning("retrying %s", f"http://u:{secret}@proxy/")
    written = stderr()
    assert written.count("raise ValueError") == 2, "both traces are there"
    assert "retrying http://u:[redacted]@proxy/" in written
    assert secret not in written


def test_lines_of_a_request_name_the_message_once_it_is_known(stderr: Callable[[], str]) -> None:
    configure_logging("info")
    structlog.contextvars.bind_contextvars(request_id="req_1")
    get_logger().info("before")
    bind_message("msg_1")
    get_logger().info("after")
    before, after = (json.loads(line) for line in stderr().splitlines())
    assert "id" not in before
    assert (after["request_id"], after["id"]) == ("req_1", "msg_1")


def test_a_line_that_cannot_be_written_is_lost_and_what_it_tells_of_goes_on(
    stderr: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> float:
        return Metrics().registry.get_sample_value("postroom_log_lines_lost_total") or 0

    before = lost()
    with open("/dev/full", "w", buffering=1, encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        configure_logging("info")
        monkeypatch.undo()
        get_logger().info("while the disk is full")
        logging.getLogger("some.library").error("and of a library")
        with contextlib.suppress(OSError):
            full.close()
    get_logger().info("after it was closed")
    assert stderr() == ""
    assert lost() - before == 3
