"""Two plots side by side as SVG: points at equal steps, each with the range that it was seen in; values begin at zero."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.rivals.picture import WIDTH, document

_HEIGHT, _TOP, _BOTTOM, _LEFT, _GAP = 330, 84, 270, 64, 30
_STYLE = """<style>
.curve { fill: none; stroke-width: 2 } .curve.s0 { stroke: #12775d } .curve.s1 { stroke: #b5651d }
.dot.s0 { fill: #12775d } .dot.s1 { fill: #b5651d } .rule { stroke: #9db5ac; stroke-width: 0.7 } text.small { font-size: 12px }
@media (prefers-color-scheme: dark) { .curve.s0 { stroke: #3fb594 } .dot.s0 { fill: #3fb594 }
.curve.s1 { stroke: #e0a060 } .dot.s1 { fill: #e0a060 } .rule { stroke: #5d766c } }
</style>"""

Seen = tuple[float, float, float]  # median, least, most


@dataclass(frozen=True, slots=True)
class Plot:
    """One of the two. `curves`: by name, a value for each step."""

    title: str
    curves: dict[str, Sequence[Seen]]


def curves(title: str, axis: str, steps: Sequence[str], plots: tuple[Plot, Plot]) -> str:
    """An SVG document."""
    drawn = [_STYLE, *_legend(plots[0])]
    width = WIDTH // 2
    for index, plot in enumerate(plots):
        drawn += _Panel(plot, steps, index * width + _LEFT, (index + 1) * width - _GAP).drawn()
    drawn.append(f'<text class="small" x="{WIDTH // 2}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(axis)}</text>')
    return document(title, _HEIGHT, drawn)


def _legend(plot: Plot) -> Iterator[str]:
    for index, name in enumerate(filter(None, plot.curves)):
        x, y = WIDTH - 190 * (len(plot.curves) - index), 22
        yield f'<circle class="dot s{index}" cx="{x}" cy="{y - 4}" r="4"/>'
        yield f'<text class="small" x="{x + 10}" y="{y}">{escape(name)}</text>'


class _Panel:
    """One plot between two edges."""

    def __init__(self, plot: Plot, steps: Sequence[str], left: int, right: int) -> None:
        self._plot, self._steps, self._left, self._right = plot, steps, left, right
        self._top = _round_up(max((seen[2] for curve in plot.curves.values() for seen in curve), default=1))

    def drawn(self) -> Iterator[str]:
        yield f'<text class="small" x="{self._left}" y="{_TOP - 22}">{escape(self._plot.title)}</text>'
        for part in range(5):
            value = self._top * part / 4
            y = self._y(value)
            yield f'<line class="rule" x1="{self._left}" x2="{self._right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="small" x="{self._left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.4g}</text>'
        for index, step in enumerate(self._steps):
            place = f'x="{self._x(index):.1f}" y="{_BOTTOM + 20}"'
            yield f'<text class="small" {place} text-anchor="middle">{escape(step)}</text>'
        for index, curve in enumerate(self._plot.curves.values()):
            yield from self._curve(f"s{index}", curve)

    def _curve(self, kind: str, curve: Sequence[Seen]) -> Iterator[str]:
        places = [(self._x(index), *map(self._y, seen)) for index, seen in enumerate(curve)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
        yield f'<polyline class="curve {kind}" points="{line}"/>'
        for x, y, least, most in places:
            yield f'<line class="curve {kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{least:.1f}" y2="{most:.1f}"/>'
            yield f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'

    def _x(self, index: int) -> float:
        """Half a step from the edges, so that long labels have room."""
        return self._left + (self._right - self._left) * (index + 0.5) / len(self._steps)

    def _y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / self._top


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8, ... with zeros behind, so that quarters of it are short."""
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    return next((scale * step for step in (1, 2, 4, 6, 8) if scale * step >= value), scale * 10)
