"""Tables on the terminal, and with a plot each in docs/performance.md between the marks of their dimension."""

from collections.abc import Callable, Sequence

from bench.cost.curves import Plot, Seen, curves
from bench.cost.measuring import FLAT, Dimension, Point
from bench.rivals import report


def rows(dimension: Dimension, points: Sequence[Point]) -> list[list[str]]:
    """A row for each point, under head()."""
    made = []
    for series in dimension.series:
        mine = [point for point in points if point.series == series.name]
        for point in mine:
            cells = [f"{point.value:,}", _shown(point.of("rate"))]
            cells += [_shown(_rate(dimension, point))] if dimension.unit != "message" else []
            cells += [_shown(_cost(dimension, point)), f"{_by_first(dimension, point, mine[0]):.2f}"]
            made.append([*([series.name] if series.name else []), *cells, "; ".join(point.faults) or "all, once"])
    return made


def head(dimension: Dimension) -> list[str]:
    """Of the table."""
    cells = [*([""] if dimension.series[0].name else []), dimension.axis, "messages/s"]
    cells += [f"{dimension.unit}s/s"] if dimension.unit != "message" else []
    return [*cells, f"processor, us a {dimension.unit}", "by the first", "copies"]


def verdict(dimension: Dimension, points: Sequence[Point]) -> str:
    """Whether it is flat, in words."""
    worst = max(
        _by_first(dimension, point, first)
        for series in dimension.series
        for first, *others in [[point for point in points if point.series == series.name]]
        for point in (first, *others)
    )
    said = f"a {dimension.unit} costs at most {worst:.2f} of what it costs at the first point"
    return said if worst <= FLAT else f"NOT FLAT: {said}"


def _rate(dimension: Dimension, point: Point) -> Seen:
    """Of the unit, a second."""
    median, least, most = point.of("rate")
    times = point.recipients if dimension.unit == "recipient" else 1
    return median * times, least * times, most * times


def _cost(dimension: Dimension, point: Point) -> Seen:
    """Of the unit, in microseconds."""
    return point.of("cost", point.recipients if dimension.unit == "recipient" else 1)


def _by_first(dimension: Dimension, point: Point, first: Point) -> float:
    return _cost(dimension, point)[0] / _cost(dimension, first)[0]


def _shown(seen: Seen) -> str:
    median, least, most = seen
    places = 0 if median >= 20 else 1
    return f"{median:,.{places}f} ({least:,.{places}f}-{most:,.{places}f})"


def table(dimension: Dimension, points: Sequence[Point]) -> str:
    """For the terminal."""
    lines = [head(dimension), *rows(dimension, points)]
    return "\n".join([dimension.title, *report.aligned(lines, lines), f"  {verdict(dimension, points)}"])


def picture(dimension: Dimension, points: Sequence[Point]) -> str:
    """An SVG document."""
    by_series = {each.name: [point for point in points if point.series == each.name] for each in dimension.series}
    steps = [f"{point.value:,}" for point in next(iter(by_series.values()))]
    rates = Plot(f"{dimension.unit}s a second", _by_name(dimension, by_series, _rate))
    costs = Plot(f"processor time of the service, us a {dimension.unit}", _by_name(dimension, by_series, _cost))
    return curves(dimension.title, dimension.axis, steps, (rates, costs))


def _by_name(
    dimension: Dimension, by_series: dict[str, list[Point]], seen: Callable[[Dimension, Point], Seen]
) -> dict[str, list[Seen]]:
    return {name: [seen(dimension, point) for point in points] for name, points in by_series.items()}


def write(dimension: Dimension, points: Sequence[Point], rounds: int, described: str) -> None:
    """Into the page, and the picture beside it. Raises SystemExit without the marks."""
    report.PICTURES.mkdir(exist_ok=True)
    name = f"cost-{dimension.name}.svg"
    (report.PICTURES / name).write_text(picture(dimension, points), encoding="utf-8")
    said = f"{dimension.why} Medians of {rounds} rounds (least and most in brackets); {verdict(dimension, points)}."
    shown = [*report.markdown(head(dimension), rows(dimension, points)), ""]
    image = f"![{dimension.title}: {dimension.axis}](performance/{name})"
    section = "\n".join(["", f"### {dimension.title}", "", said, "", *shown, image, "", f"{described}.", "", ""])
    report.put(section, marks(dimension))


def marks(dimension: Dimension) -> tuple[str, str]:
    """Between which its part of the page stands."""
    return (
        f"<!-- cost of {dimension.name}: made by `python -m bench.cost --write` -->\n",
        f"<!-- end of {dimension.name} -->",
    )
