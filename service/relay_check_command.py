"""`postroom relay check`: one check of each relay, shown to a person or to a machine.

It asks the store who may log in and tells it of a refused login, as a running service does, so that checks by hand and
mail together log in no more often than either. Where there is no store yet, it is alone.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.clock import SYSTEM
from service.errors import PostroomError
from service.relay.config import RelayConfig
from service.relay.ledger import ProcessLedger
from service.relay.pool import Pool
from service.relay.port import CheckStep, Ledger, StepState
from service.settings import Settings
from service.spool.ledger import StoreLedger
from service.store import SQLITE, bounds_of, open_store
from service.telemetry import Metrics, configure_logging

_LAST = 5.0  # seconds for what was found to reach the store
_MARKS = {
    StepState.OK: "ok  ",
    StepState.WARNING: "WARN",
    StepState.FAILED: "FAIL",
    StepState.NOT_RUN: "-   ",
    StepState.SKIPPED: "    ",
}
_NO_TIME = "not run"


async def check_relays(
    configs: Sequence[RelayConfig], settings: Settings, *, sender: str = "", force: bool = False, as_json: bool = False
) -> int:
    """Check one after the other, and print. The exit status: 1 when one does not work, or was not looked at as a whole."""
    configure_logging("warning", "console")
    found: list[tuple[str, Sequence[CheckStep]]] = []
    async with _ledger(settings) as ledger:
        for config in configs:
            steps = await _steps(config, settings, ledger, sender, force=force)
            found.append((config.name, steps))
            if not as_json:
                _print_steps(config.name, steps)
    good = all(step.ok for _, steps in found for step in steps)
    if as_json:
        print(json.dumps({"ok": good, "relays": [_as_json(*each) for each in found]}, ensure_ascii=False, indent=2))
    return 0 if good else 1


async def _steps(
    config: RelayConfig, settings: Settings, ledger: Ledger, sender: str, *, force: bool
) -> Sequence[CheckStep]:
    """By a pool that sends nothing, and so probes nothing by itself."""
    pool = Pool(config, settings.model_copy(update={"role": "api"}), SYSTEM, ledger)
    try:
        return await pool.check(sender, force=force)
    finally:
        await pool.close(0)


@asynccontextmanager
async def _ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """What all processes know of accounts; this command's alone where the store is not there, or can't be opened."""
    url, holder, metrics = settings.database_url, SYSTEM.new_id("cli-"), Metrics()
    if not _may_be_there(url):
        yield ProcessLedger()
        return
    store = open_store(url, SYSTEM, holder=holder, bounds=bounds_of(settings), metrics=metrics)
    ledger = StoreLedger(store, holder, metrics)
    try:
        await store.open()
        await ledger.refresh()
    except PostroomError as error:
        print(f"postroom: the store is not asked who may log in: {error.detail}", file=sys.stderr)
        await store.close()
        yield ProcessLedger()
        return
    listening = asyncio.create_task(ledger.run())
    try:
        yield ledger
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await ledger.close(_LAST)
        await store.close()


def _may_be_there(url: str) -> bool:
    """A check makes no file; whether a server answers is seen when it is asked."""
    return not url.startswith(SQLITE) or Path(url.removeprefix(SQLITE)).exists()


def _print_steps(name: str, steps: Iterable[CheckStep]) -> None:
    print(name)
    for step in steps:
        time = "" if step.milliseconds is None else f"{step.milliseconds:.1f} ms"
        print(f"  {_MARKS[step.state]} {step.name:<8} {time:>11}  {step.detail or _word(step)}".rstrip())
        if step.hint:
            print(f"       {step.hint}")


def _word(step: CheckStep) -> str:
    return _NO_TIME if step.state is StepState.NOT_RUN else ""


def _as_json(name: str, steps: Sequence[CheckStep]) -> dict[str, Any]:
    return {
        "name": name,
        "ok": all(step.ok for step in steps),
        "steps": [
            {
                "name": step.name,
                "ok": step.ok,
                "state": step.state.value,
                "milliseconds": None if step.milliseconds is None else round(step.milliseconds, 2),
                "detail": step.detail,
                "hint": step.hint or None,
            }
            for step in steps
        ],
    }
