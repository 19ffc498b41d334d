"""Another configuration while it runs: who keeps its pool, who gets a new one, and what survives."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.clock import SYSTEM
from service.errors import ConfigurationError
from service.mail.envelope import Offer
from service.mail.trouble import OPERATOR, Trouble
from service.relay.config import RelayConfig, load_relays, relay_from
from service.relay.ledger import ProcessLedger
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


@pytest.mark.parametrize("file", ["ca_file", "secret_file"])
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


OAUTH2 = {"token_url": "https://h.example/token", "client_id": "me", "refresh_token": "r", "client_secret": "c"}


def with_tokens(name: str = "a", user: str = "u", **values: Any) -> RelayConfig:
    return relay_from(name, {"url": f"smtps://{user}@h.example", **values}, name)


@pytest.mark.parametrize(
    "other",
    [
        {"token_file": "/other"},
        {"token_command": ["/bin/token"]},
        {"oauth2": OAUTH2},
        {"oauth2": {**OAUTH2, "client_id": "you"}},
        {"oauth2": {**OAUTH2, "refresh_token": "s"}},
    ],
)
def test_another_source_of_tokens_is_another_secret(other: dict[str, Any]) -> None:
    for first in ({"token_file": "/token"}, {"oauth2": {**OAUTH2, "scope": "mail"}}):
        before, after = with_tokens(**first), with_tokens(**other)
        assert not is_same(before, after)
        assert before.secret_mark != after.secret_mark


@pytest.mark.parametrize("key", ["token_file", "client_secret_file", "refresh_token_file"])
def test_another_content_of_a_tokens_file_is_the_same_relay_with_the_same_secret(tmp_path: Path, key: str) -> None:
    file = tmp_path / "file"
    oauth2 = {"token_url": "https://h.example/token", "client_id": "me", "client_secret": "c", "refresh_token": "r"}
    oauth2.pop(key.removesuffix("_file"), None)
    values: dict[str, Any] = {key: str(file)} if key == "token_file" else {"oauth2": {**oauth2, key: str(file)}}
    file.write_text("first")
    before = with_tokens(**values)
    file.write_text("other")
    after = with_tokens(**values)
    assert is_same(before, after)
    assert before.secret_mark == after.secret_mark
    assert 0 < before.tokens_written_at <= after.tokens_written_at
    assert "first" not in repr(before)


def refused(config: RelayConfig, at: int, mark: str | None = None) -> Trouble:
    mark = config.secret_mark if mark is None else mark
    return Trouble("auth-refused", at, at + 3_600_000, "535", mark, probe=True, login=True)


async def test_a_renewed_file_of_tokens_ends_the_refusal_of_the_old_one_and_no_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    ledger = ProcessLedger()
    first = with_tokens(token_file=str(file))
    relays = Router([first], load(), SYSTEM, ledger)
    pool = relays.get("a")
    ledger.record_trouble(first.account, refused(first, first.tokens_written_at + 1), None)
    assert await relays.reload([with_tokens(token_file=str(file))]) == Reloaded(), "the file is as old as it was"
    assert pool.status(SYSTEM.now()).health is Health.BROKEN
    later = replace(first, tokens_written_at=first.tokens_written_at + 2)
    assert await relays.reload([later]) == Reloaded(renewed=("a",))
    assert relays.get("a") is pool
    assert pool.status(SYSTEM.now()).health is Health.OPEN


async def test_a_renewed_file_of_tokens_is_seen_at_the_next_start_too(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("new")
    ledger, made = ProcessLedger(), with_tokens(token_file=str(tmp_path / "token"))
    ledger.record_trouble(made.account, refused(made, made.tokens_written_at - 1), None)
    relays = Router([made, config("b")], load(), SYSTEM, ledger)
    assert relays.tokens_renewed() == ("a",)
    assert relays.tokens_renewed() == (), "nothing is left of it"
    assert relays.get("a").status(SYSTEM.now()).health is Health.OPEN


async def test_a_renewed_file_of_tokens_changes_nothing_while_somebody_logs_in(tmp_path: Path) -> None:
    """A server may have given that one a new refresh token, which stands in the file now."""
    (tmp_path / "token").write_text("new")
    ledger, made = ProcessLedger(), with_tokens(token_file=str(tmp_path / "token"))
    ledger.record_trouble(made.account, refused(made, made.tokens_written_at - 10_000_000), None)
    await ledger.ask_login(made.account, made.secret_mark, "other/a", SYSTEM.now(), 60)
    relays = Router([made], load(), SYSTEM, ledger)
    assert relays.tokens_renewed() == ()
    ledger.release_login(made.account, "other/a")
    assert relays.tokens_renewed() == ("a",)


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble("network", 1, 2**60, "refused", "", probe=True, login=True),
        Trouble("rate", 1, 2**60, "451"),
        Trouble(OPERATOR, 1, None, "by hand"),
    ],
)
async def test_a_renewed_file_of_tokens_mends_nothing_else(tmp_path: Path, trouble: Trouble) -> None:
    (tmp_path / "token").write_text("new")
    ledger, made = ProcessLedger(), with_tokens(token_file=str(tmp_path / "token"))
    ledger.record_trouble(made.account, trouble, None)
    assert Router([made], load(), SYSTEM, ledger).tokens_renewed() == ()


async def test_a_process_that_sends_nothing_ends_no_refusal(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("new")
    ledger, made = ProcessLedger(), with_tokens(token_file=str(tmp_path / "token"))
    ledger.record_trouble(made.account, refused(made, 1), None)
    assert Router([made], load(role="api"), SYSTEM, ledger).tokens_renewed() == ()


@pytest.mark.parametrize(("changes", "keeps"), [({"weight": 2}, True), ({"oauth2": {**OAUTH2, "scope": "x"}}, False)])
async def test_what_a_server_gave_in_place_of_a_refresh_token_outlives_a_harmless_change(
    changes: dict[str, Any], keeps: bool
) -> None:
    relays = router(with_tokens(oauth2=OAUTH2))
    keeper = relays.get("a").config.tokens
    assert keeper is not None
    await relays.reload([with_tokens(**{"oauth2": OAUTH2, **changes})])
    assert (relays.get("a").config.tokens is keeper) is keeps
    await relays.reload([with_tokens("renamed", **{"oauth2": OAUTH2, **changes})])
    assert (relays.get("renamed").config.tokens is keeper) is keeps, "by another name it is the same source"


async def test_relays_with_one_source_of_tokens_have_one_keeper_of_them() -> None:
    """Each would use up the refresh token of the other, where a server gives a new one each time."""
    relays = router(
        with_tokens("a", oauth2=OAUTH2),
        with_tokens("b", oauth2=OAUTH2),
        with_tokens("c", oauth2={**OAUTH2, "client_id": "other"}),
    )
    a, b, c = (relays.get(name).config.tokens for name in "abc")
    assert a is b
    assert a is not c


async def test_a_change_that_leaves_the_secret_leaves_its_refusal(tmp_path: Path) -> None:
    ledger = ProcessLedger()
    relays = Router([config("a")], load(), SYSTEM, ledger)
    made = relays.get("a").config
    broken = Trouble("network", SYSTEM.now(), SYSTEM.now() + 3_600_000, "refused", "", probe=True, login=True)
    ledger.record_trouble(made.account, broken, None)
    ledger.record_trouble(made.account, refused(made, SYSTEM.now()), None)
    await relays.reload([config("a", weight=2)])
    assert [each.kind for each in ledger.standing(made.account).of(made.secret_mark)] == ["auth-refused"]
    assert relays.get("a").status(SYSTEM.now()).health is Health.BROKEN, "a provider counts each login that it refuses"


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


async def test_the_least_of_what_is_configured_and_what_was_told_is_the_size_that_a_relay_takes() -> None:
    relays = router(config("open"), config("bound", max_bytes=500))
    assert [relays.get(name).max_size for name in ("open", "bound")] == [None, 500]
    for told, sizes in ((1000, [1000, 500]), (100, [100, 100]), (0, [None, 500]), (None, [None, 500])):
        for name in ("open", "bound"):
            relays.get(name).told(Offer(smtputf8=False, max_size=told))
        assert [relays.get(name).max_size for name in ("open", "bound")] == sizes


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


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe", "UTF-8"), (b"", "is empty")])
def test_a_secret_that_is_no_text_is_told_with_its_key(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "secret").write_bytes(content)
    (tmp_path / "relays.toml").write_text(f"[relays.a]\nurl='smtps://u@h.example'\nsecret_file='{tmp_path}/secret'\n")
    with pytest.raises(ConfigurationError, match=rf"relays\.a: secret_file: .*{words}"):
        load_relays(load(relays_file=tmp_path / "relays.toml"))


async def test_a_configuration_that_comes_while_it_is_closed_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    relays, closed = router(config("a")), threading.Event()
    monkeypatch.setattr("service.relay.router.tls_context", lambda _: closed.wait(10) and None)
    coming = asyncio.ensure_future(relays.reload([config("a"), config("b")]))
    await asyncio.sleep(0)
    await relays.close(0)
    closed.set()
    assert await coming == Reloaded()
    assert relays.names() == ("a",)
