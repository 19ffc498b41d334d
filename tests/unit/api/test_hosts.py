"""Which names a service without keys answers to, by where it listens."""

from typing import Any

import pytest

from service.api.hosts import hosts_of
from service.settings import load


def answers(host: str, asked: str, **given: Any) -> bool:
    """Whether a service that listens on `host` answers who asks for `asked`."""
    hosts = hosts_of(load(host=host, auth="none", **given))
    return hosts is None or hosts.refusal({"headers": [(b"host", asked.encode())], "path": "/messages"}) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_on_every_address_of_loopback_other_names_are_refused(host: str) -> None:
    own = f"[{host}]:8000" if ":" in host else f"{host}:8000"
    assert answers(host, own)
    assert answers(host, "localhost:8000")
    assert not answers(host, "evil.example:8000")


def test_elsewhere_any_name_is_answered_until_names_are_set() -> None:
    assert answers("0.0.0.0", "evil.example")
    assert not answers("0.0.0.0", "evil.example", allowed_hosts="mail.example.com")
