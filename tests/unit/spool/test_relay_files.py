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
from service.telemetry import Metrics
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
    await until(
        lambda: metrics.relays_reloads.labels("unchanged")._value.get() == 1
    )  # the first look, which is the last change
    assert pool.status(SYSTEM.now()).health is Health.BROKEN
    ledger.release_login(account, "other/a")
    await until(lambda: pool.status(SYSTEM.now()).health is Health.OPEN)
    assert relays.get("a") is pool
    running.cancel()
