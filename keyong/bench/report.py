"""Printing figures; a target that does not hold makes the command fail."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from keyong.bench.figure import Figure
from keyong.cli._output import as_json, emit_line, table
from keyong.text import translate

MISSED = 1


def report(figures: Sequence[Figure]) -> None:
    """Print figures, one JSON object a line or a table; exit with 1 where a target does not hold."""
    if as_json():
        for figure in figures:
            emit_line(figure.document())
    else:
        table(("figure", "value", "unit", "target", "holds", "spread"), [_row(figure) for figure in figures])
    if any(figure.holds is False for figure in figures):
        raise typer.Exit(MISSED)


def _row(figure: Figure) -> tuple[str, ...]:
    holds = {True: translate("yes"), False: translate("NO"), None: "-"}[figure.holds]
    spread = f"{figure.spread[0]:.3f} - {figure.spread[1]:.3f}" if figure.spread else "-"
    target = "-" if figure.target is None else f"<= {figure.target:g}"
    return (figure.figure, f"{figure.value:.4f}", figure.unit, target, holds, spread)
