"""Another configuration while it runs: who keeps its pool, who gets a new one, and what survives."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.clock import SYSTEM
from service.errors import ConfigurationError
from service.mail.envelope import Offer
from service.relay.config import RelayConfig, load_relays, relay_from
from service.relay.port import Health
from service.relay.router import Reloaded, Router, is_same
from service.settings import load


def config(name: str, secret: str = "s", host: str = "127.0.0.1", **values: Any) -> RelayConfig:
    return relay_from(name, {"url": f"smtp://{name}:{secret}@{host}:9?plaintext=allow", **values}, name)


def router(*configs: RelayConfig) -> Router:
    return Router(configs, load(), SYSTEM)


RULE = {"name": "own", "codes": ["450"], "text": "busy", "scope": "message", "action": "TEMP"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"quotas": ["5/m"], "from": ["x.example"]},
        {"rules": [RULE]},
        {"priority": 3, "forbidden_extensions": [".exe"]},
    ],
)
async def test_a_relay_that_stays_the_same_keeps_its_pool(values: dict[str, Any]) -> None:
    relays = router(config("a", **values), config("b"))
    pool = relays.get("a")
    assert await relays.reload([config("b"), config("a", **values)]) == Reloaded()
    assert relays.get("a") is pool


@pytest.mark.parametrize(
    "values",
    [{"secret": "t"}, {"weight": 2}, {"from": ["x.example"]}, {"quotas": ["5/m"]}, {"rules": [RULE]}, {"max_connections": 1},
     {"cc": False}, {"sticky": True}, {"timezone": "Asia/Shanghai"}, {"dkim": False}, {"host": "localhost"}],
)  # fmt: skip
async def test_a_relay_of_which_anything_changes_gets_a_new_pool(values: dict[str, Any]) -> None:
    relays = router(config("a"), config("b"))
    old, other = relays.get("a"), relays.get("b")
    assert await relays.reload([config("a", **values), config("b")]) == Reloaded(changed=("a",))
    assert relays.get("a") is not old
    assert relays.get("b") is other
    await asyncio.sleep(0)
    assert old.free(SYSTEM.now()) == 0, "the old one takes nothing more"
    assert relays.get("a").free(SYSTEM.now()) > 0


@pytest.mark.parametrize("file", ["ca_file", "secret_file", "token_file"])
def test_another_content_of_a_file_is_a_change(tmp_path: Path, file: str) -> None:
    (tmp_path / "file").write_text("first")

    def made() -> RelayConfig:
        values = {"url": "smtps://u@h.example", file: str(tmp_path / "file")}
        return relay_from("a", values, "test")

    before, same = made(), made()
    (tmp_path / "file").write_text("other")
    after = made()
    assert is_same(before, same)
    assert not is_same(before, after)
    assert (before.secret_mark != after.secret_mark) is (file != "ca_file"), "only a secret makes a login worth a try"
    assert "first" not in repr(before)


@pytest.mark.parametrize("key", ["client_secret_file", "refresh_token_file", "client_id"])
def test_another_source_of_tokens_is_another_secret(tmp_path: Path, key: str) -> None:
    for name in ("client_secret_file", "refresh_token_file"):
        (tmp_path / name).write_text("first")
    files = {name: str(tmp_path / name) for name in ("client_secret_file", "refresh_token_file")}

    def made(client_id: str) -> RelayConfig:
        oauth2 = {"token_url": "https://h.example/token", "client_id": client_id, **files}
        return relay_from("a", {"url": "smtps://u@h.example", "oauth2": oauth2}, "test")

    before, same = made("me"), made("me")
    if key.endswith("_file"):
        (tmp_path / key).write_text("other")
    after = made("me" if key.endswith("_file") else "you")
    assert is_same(before, same)
    assert before.secret_mark == same.secret_mark
    assert not is_same(before, after)
    assert before.secret_mark != after.secret_mark


async def test_relays_come_and_go_and_are_in_order() -> None:
    relays = router(config("a"), config("b"))
    gone = relays.get("a")
    done = await relays.reload([config("b"), config("c", priority=0)])
    assert done == Reloaded(added=("c",), removed=("a",))
    assert relays.names() == ("c", "b")
    assert [relay.name for relay in relays.candidates("me@x.example", "a")] == []
    await asyncio.sleep(0)
    assert gone.free(SYSTEM.now()) == 0


async def test_whoever_waits_for_room_is_told_of_new_relays_too() -> None:
    relays, told = router(config("a")), []
    relays.on_capacity(lambda: told.append(relays.names()))
    await relays.reload([config("a"), config("b")])
    assert told[-1] == ("a", "b"), "mail that waited for a relay goes on"
    await relays.get("b").hold("a test")
    told.clear()
    await relays.get("b").resume()
    assert told, "and a new relay tells it of its room"


async def test_what_was_learnt_of_a_server_stays_known_and_of_another_it_is_not() -> None:
    relays = router(config("a"))
    relays.get("a").told(Offer(smtputf8=False, max_size=1000))
    await relays.reload([config("a", weight=2)])
    assert relays.get("a").max_size == 1000
    await relays.reload([config("a", host="localhost")])
    assert relays.get("a").offer is None


async def test_a_pause_outlives_a_change_and_ends_with_the_account() -> None:
    relays = router(config("a"))
    await relays.get("a").hold("a test")
    await relays.reload([config("a", secret="t", weight=2)])
    assert relays.get("a").status(SYSTEM.now()).health is Health.PAUSED
    await relays.reload([config("a", host="localhost")])
    assert relays.get("a").status(SYSTEM.now()).health is Health.OPEN


async def test_one_relay_that_cannot_be_made_changes_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    relays = router(config("a"), config("b"))
    pools = [relays.get("a"), relays.get("b")]
    bad = relay_from("b", {"url": "smtps://h.example", "ca_file": str(tmp_path / "ca.pem")}, "test")
    with pytest.raises(ConfigurationError, match="relay b: ca_file"):
        await relays.reload([config("a", weight=2), bad])
    assert [relays.get("a"), relays.get("b")] == pools
    assert all(pool.free(SYSTEM.now()) > 0 for pool in pools)


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_a_secret_that_is_no_text_is_told_with_its_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    (tmp_path / "relays.toml").write_text(f"[relays.a]\nurl='smtps://u@h.example'\nsecret_file='{tmp_path}/secret'\n")
    settings = load(relays_file=tmp_path / "relays.toml")
    if content:
        with pytest.raises(ConfigurationError, match=r"relays\.a: secret_file: .*UTF-8"):
            load_relays(settings)
    else:
        assert load_relays(settings)[0].secret.get_secret_value() == ""


async def test_a_configuration_that_comes_while_it_is_closed_opens_nothing() -> None:
    relays = router(config("a"))
    coming = asyncio.ensure_future(relays.reload([config("a"), config("b")]))
    await asyncio.sleep(0)
    await relays.close(0)
    assert await coming == Reloaded()
    assert relays.names() == ("a",)
