"""Traces: one from a caller's request to the 250, over two roles; nothing of the mail in them; and nothing when off."""

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.errors import ConfigurationError
from service.settings import standard_otel_endpoint
from service.tracing import OFF, Traces, open_tracing, trace_id
from tests.support.running import ARTICLE, running
from tests.support.sink_process import SinkProcess
from tests.support.waiting import until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{PARENT}-01"


class Recorded:
    """The spans of one process."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Traces(provider)

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


async def test_one_trace_reaches_from_the_callers_request_to_the_250_over_two_roles(tmp_path: Path) -> None:
    at_the_door, at_the_relay = Recorded(), Recorded()
    with SinkProcess(tmp_path) as sink:
        given = {"capture": False, "relay_url": sink.url}
        async with (
            running(tmp_path, role="api", tracing=at_the_door.tracing, **given) as (client, _),
            running(tmp_path, role="sender", tracing=at_the_relay.tracing, **given),
        ):
            sent = await client.post("/send", json=ARTICLE, headers={"traceparent": CALLER})
            await until(lambda: "attempt" in at_the_relay.spans())
            events = (await client.get(f"{sent.headers['location']}/events")).json()["data"]
    door, attempt = at_the_door.spans(), at_the_relay.spans()["attempt"]
    assert {"POST /send", "prepare", "compose", "commit"} <= set(door)
    request = door["POST /send"]
    every = [request, door["prepare"], door["compose"], door["commit"], attempt]
    assert {f"{span.context.trace_id:032x}" for span in every} == {TRACE}
    assert f"{request.parent.span_id:016x}" == PARENT
    assert door["compose"].parent.span_id == door["prepare"].context.span_id
    for child in (door["prepare"], door["commit"], attempt):
        assert child.parent.span_id == request.context.span_id
    assert request.attributes["http.response.status_code"] == 202
    assert attempt.attributes["postroom.id"] == sent.json()["id"]
    assert (attempt.attributes["postroom.result"], attempt.attributes["smtp.response.status_code"]) == ("sent", 250)
    accepted = next(each for each in events if each["type"] == "accepted")
    assert accepted["data"]["trace_id"] == TRACE
    shown = "".join(span.to_json() for span in every)
    for word in ("405966530", "zoucz", "zouchengzhuo", "测试", json.dumps("测试")[1:-1]):
        assert word not in shown, "no address and no content"


async def test_who_samples_no_trace_gets_none_from_the_sender_either(tmp_path: Path) -> None:
    recorded = Recorded()
    unsampled = CALLER[:-2] + "00"
    async with running(tmp_path, tracing=recorded.tracing) as (client, _):
        headers = {"traceparent": unsampled, "Prefer": "wait=10"}
        assert (await client.post("/send", json=ARTICLE, headers=headers)).status_code == 200
        headers = {"traceparent": CALLER, "Prefer": "wait=10"}
        assert (await client.post("/send", json=ARTICLE, headers=headers)).status_code == 200
        await until(lambda: "attempt" in recorded.spans())
    assert {f"{span.context.trace_id:032x}" for span in recorded.exporter.get_finished_spans()} == {TRACE}
    assert [span.name for span in recorded.exporter.get_finished_spans()].count("attempt") == 1


@pytest.mark.parametrize(
    "nonsense", ["", "x", "00-zz-1-01", "ff-" + CALLER[3:], CALLER + "é", "00-" + "0" * 32 + CALLER[35:]]
)
async def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(tmp_path: Path, nonsense: str) -> None:
    recorded = Recorded()
    async with running(tmp_path, tracing=recorded.tracing, hold=True) as (client, _):
        sent = await client.post("/send", json=ARTICLE, headers={"traceparent": nonsense.encode("latin-1")})
        assert sent.status_code == 202
        events = (await client.get(f"{sent.headers['location']}/events")).json()["data"]
    span = recorded.spans()["POST /send"]
    assert span.parent is None
    assert events[0]["data"]["trace_id"] == f"{span.context.trace_id:032x}" != TRACE


async def test_an_error_is_told_by_its_class_and_not_by_its_words(tmp_path: Path) -> None:
    recorded = Recorded()
    async with running(tmp_path, tracing=recorded.tracing, hold=True) as (client, _):
        use = {"name": "verify-email", "variables": {"code": "canary-8731"}}
        asked = {"from": "a@example.com", "to": "b@example.org", "template": use}
        assert (await client.post("/send", json=asked)).status_code == 422
    span = recorded.spans()["prepare"]
    assert span.attributes["error.type"] == "TemplateVariablesInvalid"
    assert "canary" not in "".join(each.to_json() for each in recorded.exporter.get_finished_spans())


async def test_without_an_endpoint_nothing_is_traced_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    async with running(tmp_path, hold=True) as (client, service):
        assert service.tracing is OFF
        sent = await client.post("/send", json=ARTICLE, headers={"traceparent": CALLER})
        events = (await client.get(f"{sent.headers['location']}/events")).json()["data"]
    assert events[0]["data"] == {}


async def test_either_variable_turns_it_on_and_the_standard_switch_turns_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert standard_otel_endpoint() == "http://127.0.0.1:9"
    async with running(tmp_path, hold=True) as (_, service):
        assert service.tracing.on
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert standard_otel_endpoint() is None
    async with running(tmp_path, hold=True) as (_, service):
        assert not service.tracing.on


async def test_without_the_extra_our_own_variable_stops_the_start_and_the_standard_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("opentelemetry")

    monkeypatch.setattr("service.app.open_tracing", missing)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    async with running(tmp_path, hold=True) as (_, service):
        assert not service.tracing.on
    with pytest.raises(ConfigurationError, match=r"POSTROOM_OTEL_ENDPOINT: install postroom\[otel\]"):
        async with running(tmp_path, hold=True, otel_endpoint="http://127.0.0.1:9"):
            pass


def test_the_name_of_the_service_is_ours_unless_the_environment_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def name() -> str:
        made: Any = open_tracing("http://127.0.0.1:9", role="api")
        try:
            return str(made._provider.resource.attributes["service.name"])
        finally:
            made._provider.shutdown()

    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    assert name() == "postroom"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mail")
    assert name() == "mail"


@pytest.mark.parametrize("text", ["", "a-b", "00-short-b-01"])
def test_what_is_no_traceparent_has_no_trace(text: str) -> None:
    assert trace_id(text) == ""
    assert trace_id(CALLER) == TRACE
