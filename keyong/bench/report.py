"""Printing figures; a target that does not hold makes the command fail."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from keyong.bench.figure import Figure
from keyong.cli._output import as_json, emit_line, line, table
from keyong.text import translate

MISSED = 1
_SIGNS = {"at most": "<=", "at least": ">="}


def show(figures: Sequence[Figure]) -> None:
    """Print figures: one JSON object a line, or a table with what they are compared with below it."""
    if as_json():
        for figure in figures:
            emit_line(figure.document())
        return
    table(("figure", "value", "unit", "target", "holds", "spread"), [_row(figure) for figure in figures])
    for figure in figures:
        if figure.compared_with and figure.ratio is not None:
            line(
                translate(
                    "{figure}: {ratio} times {compared}",
                    figure=figure.figure,
                    ratio=number(figure.ratio),
                    compared=figure.compared_with,
                )
            )
        if figure.note:
            line(f"{figure.figure}: {figure.note}")


def demand(figures: Sequence[Figure]) -> None:
    """Exit with 1 where a target does not hold."""
    if any(figure.holds is False for figure in figures):
        raise typer.Exit(MISSED)


def report(figures: Sequence[Figure]) -> None:
    """Print figures, then fail where a target does not hold."""
    show(figures)
    demand(figures)


def number(value: float) -> str:
    """A figure with three or four digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _row(figure: Figure) -> tuple[str, ...]:
    holds = {True: translate("yes"), False: translate("NO"), None: "-"}[figure.holds]
    spread = f"{number(figure.spread[0])} - {number(figure.spread[1])}" if figure.spread else "-"
    target = "-" if figure.target is None else f"{_SIGNS[figure.bound]} {figure.target:g}"
    return (figure.figure, number(figure.value), figure.unit, target, holds, spread)
