"""A query's table as an SVG: one panel a figure, a bar a cell, intervals as whiskers, suppressed cells shown as such.

SVG is text, so it takes no library, and is drawn with the reader's own fonts, Chinese ones included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from rich.cells import cell_len

from federation.errors import UsageError
from federation.statements.query import Bins
from keyong.tabulating import shown
from keyong.text import translate

if TYPE_CHECKING:
    from federation.query import Cell
    from federation.statements.query import Measure
    from keyong.asking import Answered, Prepared

FONTS = "system-ui, 'Noto Sans', 'Noto Sans CJK SC', 'Microsoft YaHei', 'PingFang SC', sans-serif"
_WIDTH, _ROW, _TOP, _BOTTOM, _RIGHT, _TALL = 760.0, 22.0, 42.0, 34.0, 120.0, 240.0
_CHARACTER = 6.6
_FILL, _LINE = "#4c78a8", "#1f2d3d"


@dataclass(frozen=True)
class _Scale:
    """Where a value lies between two ends of a picture."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (self.stop - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Four to ten round values."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step = next(power * part for part in (5, 2, 1) if (self.high - self.low) / (power * part) >= 4)
        return [at * step for at in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def check_drawn(prepared: Prepared) -> None:
    """Raise UsageError where none of a query's figures is one number a cell."""
    if not _drawn(prepared):
        raise UsageError("a regression is not drawn", hint="ask for a figure of each cell beside it, such as COUNT(*)")


def _drawn(prepared: Prepared) -> list[Measure]:
    return [one for one in prepared.query.measures if one.kind not in ("regression", "logistic")]


def picture(answered: Answered) -> str:
    """The SVG of an answer, whose regressions are left out."""
    parts: list[str] = []
    top = 0.0
    for measure in _drawn(answered.prepared):
        tall, drawn = _panel(answered, measure, top)
        parts += drawn
        top += tall
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {top:.0f}" width="{_WIDTH:.0f}" '
        f'height="{top:.0f}" font-family="{escape(FONTS)}" font-size="12" fill="{_LINE}">'
    )
    pattern = (
        '<defs><pattern id="kept" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="#f3f4f6"/><line x1="0" y1="0" x2="0" y2="6" stroke="#9aa5b1" stroke-width="2"/>'
        "</pattern></defs>"
    )
    return "\n".join(
        [head, pattern, f'<rect width="{_WIDTH:.0f}" height="{top:.0f}" fill="white"/>', *parts, "</svg>", ""]
    )


def _panel(answered: Answered, measure: Measure, top: float) -> tuple[float, list[str]]:
    axes = answered.prepared.query.axes
    title = _text(12, top + 22, measure.name, size=15)
    if len(axes) == 1 and isinstance(axes[0], Bins):
        return _histogram(answered, measure, top, [title])
    return _bars(answered, measure, top, [title])


def _bars(answered: Answered, measure: Measure, top: float, parts: list[str]) -> tuple[float, list[str]]:
    """One bar below another, named at its left."""
    cells = answered.answer.cells
    names = [" · ".join(cell.labels) or measure.name for cell in cells]
    left = min(24 + _CHARACTER * max(map(cell_len, names)), _WIDTH / 2)
    across = _scale(cells, measure, left, _WIDTH - _RIGHT)
    bottom = top + _TOP + _ROW * len(cells)
    for tick in across.ticks():
        x = across(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + _TOP - 4:.1f}" y2="{bottom:.1f}" stroke="#e2e6ea"/>')
        parts.append(_text(x, bottom + 15, f"{tick:g}", anchor="middle", size=10))
    zero = across(min(max(0.0, across.low), across.high))
    for at, (cell, name) in enumerate(zip(cells, names, strict=True)):
        y = top + _TOP + _ROW * at
        parts.append(_text(left - 8, y + 15, name, anchor="end"))
        if cell.suppressed:
            parts.append(_kept_back(left, y + 3, _WIDTH - _RIGHT - left, _ROW - 6))
            parts.append(_text(_WIDTH - _RIGHT + 6, y + 15, translate("suppressed")))
            continue
        value, interval = _value(cell, measure), _interval(cell, measure)
        if value is not None:
            x = across(value)
            parts.append(_rect(min(zero, x), y + 3, abs(x - zero), _ROW - 6))
        if interval is not None:
            low, high, middle = across(interval[0]), across(interval[1]), y + _ROW / 2
            parts += [
                _stroke(low, middle, high, middle),
                _stroke(low, middle - 4, low, middle + 4),
                _stroke(high, middle - 4, high, middle + 4),
            ]
        parts.append(_text(_WIDTH - _RIGHT + 6, y + 15, _told(cell, measure)))
    parts.append(_stroke(zero, top + _TOP - 4, zero, bottom))
    return bottom + _BOTTOM - top, parts


def _histogram(answered: Answered, measure: Measure, top: float, parts: list[str]) -> tuple[float, list[str]]:
    """Columns between their edges, which lie where they are on the axis below."""
    (axis,) = answered.prepared.query.axes
    assert isinstance(axis, Bins)
    cells, edges = answered.answer.cells, [float(edge) for edge in axis.edges]
    upper, lower = top + _TOP, top + _TOP + _TALL
    up = _scale(cells, measure, lower, upper)
    left = 30 + _CHARACTER * max(len(f"{tick:g}") for tick in up.ticks())
    across = _Scale(edges[0], edges[-1], left, _WIDTH - 24)
    for tick in up.ticks():
        y = up(tick)
        parts.append(f'<line x1="{left:.1f}" x2="{_WIDTH - 24:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e6ea"/>')
        parts.append(_text(left - 8, y + 4, f"{tick:g}", anchor="end", size=10))
    zero = up(min(max(0.0, up.low), up.high))
    for cell, low, high in zip(cells, edges, edges[1:], strict=False):
        x, wide = across(low), across(high) - across(low)
        gap = min(1.0, wide / 4)
        if cell.suppressed:
            parts.append(_kept_back(x, upper, wide - gap, lower - upper))
            continue
        value, interval = _value(cell, measure), _interval(cell, measure)
        if value is not None:
            y = up(value)
            parts.append(_rect(x, min(zero, y), wide - gap, abs(y - zero)))
        if interval is not None:
            parts.append(_stroke(x + wide / 2, up(interval[0]), x + wide / 2, up(interval[1])))
    parts.append(_stroke(left, zero, _WIDTH - 24, zero))
    last = -math.inf
    for text, edge in zip(axis.edges, edges, strict=True):
        x, half = across(edge), _CHARACTER * len(text) / 2
        if x - half > last + 6:  # where edges are close together, as many as can be read
            parts.append(_text(x, lower + 15, text, anchor="middle", size=10))
            last = x + half
    parts.append(_text((left + _WIDTH - 24) / 2, lower + 32, axis.column, anchor="middle"))
    hidden = sum(cell.suppressed for cell in cells)
    if hidden:
        parts.append(_kept_back(_WIDTH - 150, top + 12, 16, 12))
        parts.append(_text(_WIDTH - 128, top + 22, translate("suppressed")))
    return _TOP + _TALL + _BOTTOM + 12, parts


def _scale(cells: Sequence[Cell], measure: Measure, start: float, stop: float) -> _Scale:
    """From zero, or the least value, to the largest, intervals included."""
    ends = [0.0, *_ends(cells, measure)]
    low, high = min(ends), max(ends)
    if low == high:
        high = low + 1.0
    return _Scale(low, high, start, stop)


def _ends(cells: Sequence[Cell], measure: Measure) -> Iterator[float]:
    for cell in cells:
        value, interval = _value(cell, measure), _interval(cell, measure)
        yield from () if value is None else (value,)
        yield from interval or ()


def _value(cell: Cell, measure: Measure) -> float | None:
    value = cell.figures.get(measure.name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _interval(cell: Cell, measure: Measure) -> tuple[float, float] | None:
    """What the figure lies within 95 times in 100; of an estimate, two standard errors either side."""
    found = next(iter(cell.intervals.get(measure.name, ())), None)
    if found is not None:
        return found
    value, error = _value(cell, measure), cell.errors.get(measure.name)
    return None if value is None or not error else (value - 1.96 * error, value + 1.96 * error)


def _told(cell: Cell, measure: Measure) -> str:
    value = cell.figures.get(measure.name)
    return f"{value:.5g}" if isinstance(value, float) else shown(value)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _rect(x: float, y: float, wide: float, tall: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(wide, 0):.1f}" height="{max(tall, 0):.1f}" fill="{_FILL}"/>'


def _kept_back(x: float, y: float, wide: float, tall: float) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(wide, 0):.1f}" height="{max(tall, 0):.1f}" fill="url(#kept)" '
        f'stroke="#9aa5b1" class="suppressed"/>'
    )


def _stroke(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{_LINE}" stroke-width="1.4"/>'
