"""The files of tokens are renewed by other programs: nothing is opened anew, and what was refused before is tried again."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.clock import SYSTEM
from service.mail.trouble import Trouble
from service.relay import open_relays
from service.relay.ledger import ProcessLedger
from service.relay.port import Health
from service.relay.router import Router
from service.settings import Settings, load
from service.spool.relay_files import RelayFiles
from service.telemetry import Metrics, labelled
from tests.support.waiting import until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """One relay whose token stands in a file."""
    (tmp_path / "token").write_text("old")
    file = tmp_path / "relays.toml"
    file.write_text(f"[relays.a]\nurl = 'smtps://u@h.example'\ntoken_file = '{tmp_path}/token'\n")
    return load(relays_file=file, relays_refresh=0)


def refuse(ledger: ProcessLedger, relays: Router) -> None:
    """A login with the token that stands in the file was refused."""
    made = relays.get("a").config
    at = made.tokens_written_at + 1
    refused = Trouble("auth-refused", at, at + 3_600_000, "535", made.secret_mark, probe=True, login=True)
    ledger.record_trouble(made.account, refused, None)
    assert relays.get("a").status(SYSTEM.now()).health is Health.BROKEN


def renew(file: Path, before: int) -> None:
    """As a program does it; file systems count time in milliseconds or more."""
    while file.stat().st_mtime_ns // 1_000_000 <= before + 1:
        file.write_text("new")


async def test_a_renewed_token_is_tried_at_once_over_the_same_pool(settings: Settings, tmp_path: Path) -> None:
    relays = open_relays(settings, SYSTEM, ledger=(ledger := ProcessLedger()))
    files, pool = RelayFiles(settings, SYSTEM, relays, Metrics()), relays.get("a")
    refuse(ledger, relays)
    with capture_logs() as lines:
        await files.reload(asked=False)
        assert pool.status(SYSTEM.now()).health is Health.BROKEN, "it holds what was refused"
        renew(tmp_path / "token", pool.config.tokens_written_at)
        await files.reload(asked=False)
    assert relays.get("a") is pool
    assert pool.status(SYSTEM.now()).health is Health.OPEN
    assert [(line["event"], line["changed"], line["renewed"]) for line in lines] == [("relays.reloaded", (), ("a",))]


async def test_a_token_that_was_renewed_while_nothing_ran_is_tried_at_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    ledger = ProcessLedger()
    first = open_relays(settings, SYSTEM, ledger=ledger)
    refuse(ledger, first)
    renew(tmp_path / "token", first.get("a").config.tokens_written_at)
    second = open_relays(settings, SYSTEM, ledger=ledger)
    with capture_logs() as lines:
        await RelayFiles(settings, SYSTEM, second, Metrics()).run()  # it ends, since nothing is to be looked at later
    assert second.get("a").status(SYSTEM.now()).health is Health.OPEN
    assert [line["renewed"] for line in lines] == [("a",)]


RELAY = "[relays.{}]\nurl = 'smtp://127.0.0.1:9?plaintext=allow'\n"
RULE = "[[relays.{}.rules]]\nname = '{}'\nphases = ['rcpt']\ncodes = ['550']\nscope = 'recipient'\naction = 'PERM'\n"


def counted(metrics: Metrics) -> set[tuple[str, str]]:
    """Relay and kind of the refusals that have a counter, and relay and nothing where contents in doubt have one."""
    shown = [sample for family in metrics.registry.collect() for sample in family.samples]
    outcomes = [each.labels for each in shown if each.name == "postroom_recipient_outcomes_total"]
    doubts = {(each.labels["relay"], "") for each in shown if each.name == "postroom_attempts_in_doubt_total"}
    return doubts | {(labels["relay"], labels["kind"]) for labels in outcomes if labels["event"] == "refused"}


async def test_what_alerts_ask_of_a_relay_is_counted_from_zero_and_ends_with_it(tmp_path: Path) -> None:
    """A series that begins with its first count shows no increase."""
    file, metrics = tmp_path / "relays.toml", Metrics()
    file.write_text(RELAY.format("a") + RULE.format("a", "first"))
    settings = load(relays_file=file, relays_refresh=0)
    relays = open_relays(settings, SYSTEM, ledger=ProcessLedger())
    files = RelayFiles(settings, SYSTEM, relays, metrics)
    assert {("a", ""), ("a", "first"), ("a", "bad-address")} <= counted(metrics)
    labelled(metrics.in_doubt, "a").inc()
    file.write_text(RELAY.format("b") + RULE.format("b", "second"))
    await files.reload()
    assert {("b", ""), ("b", "second")} <= counted(metrics)
    assert "a" not in {relay for relay, _ in counted(metrics)}
    file.write_text(RELAY.format("a"))
    await files.reload()
    labelled(metrics.in_doubt, "a").inc()
    assert b'postroom_attempts_in_doubt_total{relay="a"} 1.0' in metrics.render(), "a relay that is back counts anew"


async def test_a_process_that_does_not_send_counts_no_replies(settings: Settings) -> None:
    metrics = Metrics()
    asking = settings.model_copy(update={"role": "api"})
    RelayFiles(asking, SYSTEM, open_relays(settings, SYSTEM, ledger=ProcessLedger()), metrics)
    assert counted(metrics) == set()


async def test_a_token_that_was_renewed_while_somebody_logged_in_is_tried_when_that_one_has_ended(
    settings: Settings, tmp_path: Path
) -> None:
    """It found out nothing: its process died, or the network failed. No file changes any more."""
    settings = settings.model_copy(update={"relays_refresh": 0.02})
    relays = open_relays(settings, SYSTEM, ledger=(ledger := ProcessLedger()))
    metrics = Metrics()
    files, pool = RelayFiles(settings, SYSTEM, relays, metrics), relays.get("a")
    refuse(ledger, relays)
    account, mark = pool.config.account, pool.config.secret_mark
    renew(tmp_path / "token", pool.config.tokens_written_at)
    ledger.standing(account).grant(mark, "other/a", SYSTEM.now() + 60_000)
    running = asyncio.create_task(files.run())
    # the first look, which is the last change
    await until(lambda: metrics.relays_reloads.labels("unchanged")._value.get() == 1)
    assert pool.status(SYSTEM.now()).health is Health.BROKEN
    ledger.release_login(account, "other/a")
    await until(lambda: pool.status(SYSTEM.now()).health is Health.OPEN)
    assert relays.get("a") is pool
    running.cancel()
