"""Generated requests against a real server: never a 5xx, only the statuses that the document names, and answers of their form."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from service.api.table import OPERATIONS
from tests.support.documented import assert_documented
from tests.support.process import ServiceProcess
from tests.support.sink_process import SinkProcess


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("schemathesis")
    with SinkProcess(folder) as sink, ServiceProcess(folder, sink.url) as service:
        yield schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def _json(response: Any) -> Any:
    """What it holds; None when that is no JSON."""
    media_type = response.headers.get("content-type", [""])[0]
    return response.json() if media_type.endswith("json") else None


@pytest.mark.parametrize(("method", "path"), [(each.method, each.path) for each in OPERATIONS])
def test_no_generated_request_gets_a_5xx_or_an_undocumented_status(api: Any, method: str, path: str) -> None:
    operation = api[path][method]
    documented = set(operation.definition.raw["responses"])

    @given(case=operation.as_strategy())
    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case) -> None:
        response = case.call(timeout=20)
        assert response.status_code < 500, response.text
        # a generated path may hold what makes it another path, or none
        assert str(response.status_code) in documented | {"404", "405"}, (response.status_code, response.text)
        if str(response.status_code) in documented and (body := _json(response)) is not None:
            assert_documented(method, path, response.status_code, body)

    check()
