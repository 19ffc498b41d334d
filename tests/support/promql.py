"""What a PromQL expression asks of which metric, by a parser that keeps to Prometheus."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
from prometheus_client.metrics import MetricWrapperBase

from service.telemetry import Metrics

# labels that are not ours: of the scrape, of a histogram's buckets, and the two that the ServiceMonitor adds
FOREIGN = {"namespace", "pod", "le", "component", "sends"}
_OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}  # as the parser calls them
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


@dataclass(frozen=True)
class Asked:
    """One selector: the metric's name, and what it demands of labels."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]  # label, =, !=, =~ or !~, value


def parse(expression: str) -> Any:
    """The tree. Raises ValueError. Grafana's variables are replaced first."""
    return promql_parser.parse(expression.replace("$__rate_interval", "5m").replace("$namespace", "postroom"))


def selectors(expression: str) -> Iterator[Asked]:
    """All selectors of an expression."""
    found: list[Asked] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            matchers = tuple(
                (each.name, _OPERATORS[str(each.op).removeprefix("MatchOp.")], each.value)
                for each in node.matchers.matchers
            )
            found.append(Asked(node.name, matchers))

    promql_parser.walk(parse(expression), visit)
    yield from found


def grouped(expression: str) -> set[str]:
    """All labels that its aggregations keep."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)

    promql_parser.walk(parse(expression), visit)
    return found


def missed(expression: str) -> list[Asked]:
    """The selectors of which it says that nothing is there."""
    found: list[Asked] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.Call) and node.func.name == "absent":
            found.extend(selectors(node.args[0].prettify()))

    promql_parser.walk(parse(expression), visit)
    return found


def exported() -> dict[str, tuple[str, set[str]]]:
    """Every name that /metrics may show, with the attribute of Metrics that makes it, and its labels."""
    names = {}
    for attribute, metric in vars(Metrics()).items():
        if isinstance(metric, MetricWrapperBase):
            for suffix in _SUFFIXES[metric._type]:
                names[metric._name + suffix] = attribute, set(metric._labelnames)
    return names
