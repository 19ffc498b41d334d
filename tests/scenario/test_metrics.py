"""Every metric that is declared is set by something that happens; and none grows with what clients make up."""

import asyncio
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from service.api.table import OPERATIONS
from service.clock import SYSTEM
from service.errors import InternalError, StorageUnavailable
from service.mail.lifecycle import Event
from service.store import open_store
from service.store.values import Delivery, Want
from service.telemetry import Metrics, configure_logging, get_logger
from tests.support.process import ROOT
from tests.support.running import running
from tests.support.sink import Sink
from tests.support.waiting import until


def unset(metrics: Iterable[Metric]) -> set[str]:
    """Names of counters and histograms that count nothing yet, and of gauges that nothing has set."""
    return {
        metric.name
        for metric in metrics
        if not metric.samples
        or (
            metric.type != "gauge"
            and not any(each.value for each in metric.samples if not each.name.endswith("_created"))
        )
    }


def relays(folder: Path, port: int) -> Path:
    file = folder / "relays.toml"
    file.write_text(f"""
[relays.good]
url = "smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{port}?plaintext=allow"
from = ["good.example"]
quotas = ["30/15m"]
[relays.bad]
url = "smtp://zouchengzhuo%40163.com:AUTHCODE@127.0.0.1:{port}?plaintext=allow"
from = ["bad.example"]
""")
    return file


def mail(domain: str) -> dict[str, str]:
    return {"from": f"a@{domain}.example", "to": f"b@{domain}.example", "subject": "s", "text": "t"}


async def claimed_by_a_process_that_died(url: str) -> Delivery:
    """Another process takes a delivery and is gone."""
    other = open_store(url, SYSTEM, holder="gone")
    await other.open()
    (route,) = [each.route for each in await other.due_routes()]
    claimed = await other.claim(lambda: [Want(route, "good", 1)], "gone", SYSTEM.now, 30)
    await other.close()
    (delivery,) = claimed.deliveries
    return delivery


def lose_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, contextlib.suppress(OSError), open("/dev/full", "w", buffering=1) as full:
        patch.setattr(sys, "stderr", full)
        configure_logging()
        get_logger().info("a line")
    configure_logging()


async def test_after_all_that_may_happen_every_declared_metric_has_been_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await Sink(
        data_replies=["drop"], replies={"b@bad.example": "553 Mail from must equal authorized user"}
    ).start()
    given = {"capture": False, "relays_file": relays(tmp_path, sink.port), "hold": True}
    async with running(tmp_path, **given) as (client, service):
        metrics, dispatcher = service.metrics, service.dispatcher
        assert dispatcher is not None
        assert (await client.post("/send", json=mail("good"))).status_code == 202
        delivery = await asyncio.to_thread(asyncio.run, claimed_by_a_process_that_died(service.settings.database_url))
        await until(lambda: metrics.rescued._value.get() == 1)
        dispatcher._recorder.end(delivery, Event.NOT_STARTED, "late", "the lease had gone to another")
        await dispatcher.settle_all()
        service.readiness.held = False
        dispatcher.wake()
        for domain in ("good", "good", "bad"):
            headers = {"Idempotency-Key": f"{domain}-1"}
            assert (await client.post("/send", json=mail(domain), headers=headers)).status_code == 202
        assert (await client.post("/send", json=mail("good"))).status_code == 202, "one more, after the one in doubt"
        assert (await client.post("/send", json={"to": 1})).status_code == 422
        await service._relay_files.reload()
        lose_a_line(monkeypatch)
        try:
            await until(lambda: not unset(metrics.registry.collect()) - {"postroom_storage_failures"})
        except TimeoutError:
            pytest.fail(f"never set: {unset(metrics.registry.collect())}")

        def deleted() -> None:
            raise FileNotFoundError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(service.store._writer._place, "check", deleted)  # type: ignore[attr-defined]
            assert (await client.post("/send", json=mail("good"))).status_code == 503
            assert "postroom_storage_healthy 0.0" in (await client.get("/metrics")).text
        assert unset(metrics.registry.collect()) == set()
    await sink.stop()


FAILED = {str(error.status) for error in (InternalError, StorageUnavailable)}


def failures(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    """Method, path and status of the 5xx answers that have a counter, and what it says."""
    shown = [sample for family in metrics.registry.collect() for sample in family.samples]
    asked = [each for each in shown if each.name == "postroom_http_requests_total" and each.labels["status"] >= "500"]
    return {(each.labels["method"], each.labels["route"], each.labels["status"]): each.value for each in asked}


async def test_5xx_answers_of_every_operation_that_clients_ask_for_are_counted_from_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A series that begins with its first count shows no increase."""
    async with running(tmp_path, hold=True) as (client, service):
        asked = [each for each in OPERATIONS if each.tag != "Operation"]
        born = failures(service.metrics)
        assert born == {(each.method, each.path, status): 0 for each in asked for status in FAILED}

        async def broken(*_: object) -> None:
            raise OSError("a fault that nobody foresaw")

        monkeypatch.setattr(service.store, "list_messages", broken)
        assert (await client.get("/messages")).status_code == 500
        assert failures(service.metrics) == {**born, ("GET", "/messages", "500"): 1}


async def test_a_process_that_only_sends_counts_no_answers_that_it_never_gives(tmp_path: Path) -> None:
    sink = await Sink().start()
    async with running(tmp_path, capture=False, role="sender", relays_file=relays(tmp_path, sink.port)) as (_, service):
        assert failures(service.metrics) == {}
    await sink.stop()


async def test_what_clients_make_up_makes_no_new_series(tmp_path: Path) -> None:
    async with running(tmp_path, hold=True) as (client, service):

        def series() -> int:
            return sum(len(metric.samples) for metric in service.metrics.registry.collect())

        async def ask(number: int) -> None:
            await client.request(f"MADEUP{number}", "/send")
            await client.get(f"/nowhere/{number}")
            await client.get(f"/messages/msg_{number}")
            await client.get(f"/suppressions/u{number}@example.org")
            await client.post("/send", json={**mail(f"d{number}"), f"field{number}": 1})
            assert (await client.post("/send", json=mail(f"d{number}"))).status_code == 202

        await ask(0)
        await service._janitor.count()
        await service.watch.show()
        before = series()
        await asyncio.gather(*map(ask, range(1, 6)))
        assert series() == before


def test_the_page_about_metrics_names_each_with_its_labels_and_no_other() -> None:
    declared = {}
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            suffix = "_total" if metric._type == "counter" else ""
            declared[metric._name + suffix] = (metric._type, ", ".join(metric._labelnames) or "-")
    lines = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `postroom_")]
    assert {name: (kind, labels.replace("`", "")) for name, kind, labels, _ in rows} == declared
    assert all(question.endswith("?") for *_, question in rows)
