"""Horizontal bars as SVG, and the frame of any picture, readable on white and on dark, without a library."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, _LABELS, _NUMBERS, _ROW, _TOP = 860, 230, 90, 34, 48
_STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2a26 } .title { font-weight: 600 } .bar { fill: #9db5ac } .ours { fill: #12775d }
.range { stroke: #1f2a26; stroke-width: 1.5 } .ground { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e3efe9 } .bar { fill: #5d766c } .ours { fill: #3fb594 }
.range { stroke: #e3efe9 } .ground { fill: #121a17 } }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with the range that it was seen in."""

    label: str
    value: float
    least: float
    most: float
    ours: bool = False


def bars(title: str, shown: Sequence[Bar]) -> str:
    """An SVG document; a bar begins at zero."""
    height = _TOP + _ROW * len(shown) + 12
    longest = max((bar.most for bar in shown), default=1) or 1
    scale = (WIDTH - _LABELS - _NUMBERS) / longest
    return document(title, height, (_drawn(bar, _TOP + _ROW * index, scale) for index, bar in enumerate(shown)))


def document(title: str, height: int, drawn: Iterable[str]) -> str:
    """An SVG document with its title, in the width of all."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>\n'
        f'<text class="title" x="12" y="26">{escape(title)}</text>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _drawn(bar: Bar, top: int, scale: float) -> str:
    middle = top + _ROW // 2
    least, most, end = (_LABELS + value * scale for value in (bar.least, bar.most, bar.value))
    return (
        f'<text x="{_LABELS - 10}" y="{middle + 5}" text-anchor="end">{escape(bar.label)}</text>'
        f'<rect class="{"ours" if bar.ours else "bar"}" x="{_LABELS}" y="{top + 5}" width="{end - _LABELS:.1f}" height="{_ROW - 10}"/>'
        f'<line class="range" x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{most + 8:.1f}" y="{middle + 5}">{bar.value:,.0f}</text>'
    )
