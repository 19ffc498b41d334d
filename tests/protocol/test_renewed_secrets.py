"""A secret or token that was renewed during a login which is then refused: it is tried at once, and the old refusal counts for nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from service.clock import SYSTEM
from service.relay import open_relays
from service.relay.ledger import ProcessLedger
from service.relay.port import Health
from service.settings import load
from service.spool.relay_files import RelayFiles
from service.telemetry import Metrics
from tests.support.accounts import Provider
from tests.support.clock import SteppedClock
from tests.support.relaying import begin, outgoing
from tests.support.waiting import until


class Renewed(Provider):
    """What it takes is another secret from its first login on, and it is then that the file is renewed."""

    def __init__(self, renew: Callable[[str], object]) -> None:
        super().__init__(SteppedClock(), "NEW-SECRET")
        self._renew = renew

    def _log_in(self, line: bytes) -> bytes:
        if not self.logins:
            self._renew("NEW-SECRET")
        return super()._log_in(line)


def relays_file(folder: Path, port: int, *lines: str) -> Path:
    file = folder / "relays.toml"
    url = f"smtp://me%40example.com@127.0.0.1:{port}?plaintext=allow&max_connections=1"
    file.write_text("\n".join(["[relays.a]", f'url = "{url}"', *lines]))
    return file


async def test_a_secret_file_that_was_renewed_during_a_refused_login_is_read_at_once(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("OLD-SECRET")
    async with Renewed(secret.write_text) as provider:
        file = relays_file(tmp_path, provider.port, f'secret_file = "{secret}"', 'auth = ["PLAIN"]')
        settings = load(relays_file=file, relays_refresh=600)  # seconds: nobody waits for the next look
        relays = open_relays(settings, SYSTEM, ledger=ProcessLedger())
        running = asyncio.create_task(RelayFiles(settings, SYSTEM, relays, Metrics()).run())
        old = relays.get("a")
        report = await begin(old, outgoing())
        assert not report.mail_started
        await until(lambda: relays.get("a") is not old)
        assert relays.get("a").status(SYSTEM.now()).health is Health.OPEN, "its secret was never refused"
        assert (await begin(relays.get("a"), outgoing())).mail_started
        assert len(provider.logins) == 2
        running.cancel()
        await relays.close(0)


@pytest.mark.parametrize("refused", [False, True])
async def test_a_token_file_that_was_renewed_during_a_refused_login_costs_the_relay_nothing(
    refused: bool, tmp_path: Path
) -> None:
    """Only how the second login ends counts."""
    token = tmp_path / "token"
    token.write_text("OLD-TOKEN")

    class ByToken(Renewed):
        def _answer(self, line: bytes) -> bytes:
            return super()._answer(line).replace(b"AUTH PLAIN", b"AUTH XOAUTH2")

        def _log_in(self, line: bytes) -> bytes:
            if not self.logins:
                self._renew("NEW-TOKEN")
            self.logins.append(0.0)
            return b"535 5.7.8 no\r\n" if len(self.logins) == 1 or refused else b"235 2.7.0 ok\r\n"

    async with ByToken(token.write_text) as provider:
        file = relays_file(tmp_path, provider.port, f'token_file = "{token}"')
        relays = open_relays(load(relays_file=file, relays_refresh=0), SYSTEM, ledger=(ledger := ProcessLedger()))
        pool = relays.get("a")
        report = await begin(pool, outgoing())
        assert len(provider.logins) == 2
        troubles = ledger.standing(pool.account).of(pool.config.secret_mark)
        if refused:
            assert [each.times for each in troubles] == [1]
            assert pool.status(SYSTEM.now()).health is Health.BROKEN
        else:
            assert report.mail_started
            assert (troubles, pool.status(SYSTEM.now()).health) == ([], Health.OPEN)
        await relays.close(0)
