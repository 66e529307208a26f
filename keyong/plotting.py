"""Bars for a terminal: one a cell, of the table's first figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.cells import cell_len

from keyong.tabulating import SUPPRESSED, shown

if TYPE_CHECKING:
    from keyong.asking import Answered

WIDTH = 50
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bars(answered: Answered) -> Iterator[str]:
    """One line for each cell: what it is called, a bar as long as its figure, the figure."""
    measure = next(
        (one for one in answered.prepared.query.measures if one.kind not in ("regression", "logistic")), None
    )
    if measure is None:
        return
    cells = answered.answer.cells
    names = [" ".join(cell.labels) or measure.name for cell in cells]
    values = [cell.figures.get(measure.name) for cell in cells]
    numbers = [float(value) if isinstance(value, int | float) else 0.0 for value in values]
    most = max((abs(number) for number in numbers), default=0.0) or 1.0
    wide = max(map(cell_len, names), default=0)
    for name, cell, value, number in zip(names, cells, values, numbers, strict=True):
        told = SUPPRESSED if cell.suppressed else shown(value)
        yield f"{name}{' ' * (wide - cell_len(name))}  {bar(abs(number) / most)} {told}"


def bar(share: float) -> str:
    """A bar of a share of the whole width."""
    eighths = round(share * WIDTH * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
