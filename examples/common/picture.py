"""Grouped bars as an SVG, written out: a picture of a dozen figures needs no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#9aa5b1", "#4c78a8", "#f58518", "#54a24b", "#b279a2")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 760, 340, 52, 44, 62


def bars(title: str, unit: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """The SVG of one group of bars a name, one bar a series, with every value above its bar.

    Args:
        title: above the bars.
        unit: of the values.
        groups: names below the bars.
        series: name -> one value a group; at most five.
    """
    height = _HEIGHT - _TOP - _BOTTOM
    top = max(value for values in series.values() for value in values) * 1.12
    each = (_WIDTH - _LEFT - 10) / len(groups)
    wide = each * 0.86 / len(series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
        f'<text x="{_LEFT - 8}" y="{_TOP - 8}" text-anchor="end">{escape(unit)}</text>',
    ]
    step = _step(top)
    for number in range(int(top / step) + 1):
        y = _TOP + height * (1 - number * step / top)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number * step:g}</text>')
    for place, group in enumerate(groups):
        start = _LEFT + place * each + each * 0.07
        middle = start + each * 0.43
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(group)}</text>')
        for number, values in enumerate(series.values()):
            tall = height * values[place] / top
            x, y = start + number * wide, _TOP + height - tall
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide * 0.92:.1f}" height="{tall:.1f}" fill="{COLOURS[number]}"/>'
                f'<text x="{x + wide * 0.46:.1f}" y="{y - 3:.1f}" text-anchor="middle" font-size="9">'
                f"{values[place]:.3g}</text>"
            )
    x = float(_LEFT)
    for number, name in enumerate(series):
        parts.append(f'<rect x="{x:.1f}" y="{_HEIGHT - 28}" width="11" height="11" fill="{COLOURS[number]}"/>')
        parts.append(f'<text x="{x + 16:.1f}" y="{_HEIGHT - 18}">{escape(name)}</text>')
        x += 34 + 6.4 * len(name)
    return "\n".join([*parts, "</svg>", ""])


def _step(top: float) -> float:
    """A round distance between the lines of a scale, so that there are four to eight."""
    power = 1.0
    while top / power > 8:
        power *= 10
    while top / power < 0.8:
        power /= 10
    return next(power * part for part in (1.0, 0.5, 0.25, 0.2, 0.1) if top / (power * part) >= 4)
