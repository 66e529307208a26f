"""A query's answer as a table: columns in the order of the question, in text, JSON, CSV, Parquet or as a frame."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.errors import UsageError
from federation.privacy import STANDARD, epsilon, rho_text
from federation.query import Cell, Logistic, Regression

if TYPE_CHECKING:
    from keyong.asking import Answered, Prepared

CONTRIBUTING, OF, SUPPRESSED = "contributing", "of", "suppressed"
LOW, HIGH = ".low", ".high"
"""Under noise: ends of what a figure lies within, 95 times in 100."""
FORMATS = ("text", "json", "csv", "parquet")


def columns(answered: Answered) -> list[str]:
    """The table's columns: axes and figures as the question has them, then how many companies each cell rests on."""
    names: list[str] = []
    for kind, name in answered.prepared.question.shown:
        names += [name] if kind == "axis" else _figure_columns(answered, name)
    return [*names, CONTRIBUTING, OF]


def rows(answered: Answered) -> Iterator[dict[str, Any]]:
    """The table's rows; figures of a suppressed cell are None."""
    axes = [axis.column for axis in answered.prepared.query.axes]
    for cell in answered.answer.cells:
        row: dict[str, Any] = {}
        for kind, name in answered.prepared.question.shown:
            if kind == "axis":
                row[name] = cell.labels[axes.index(name)]
            else:
                row |= _figure(answered, cell, name)
        yield {**row, CONTRIBUTING: cell.contributing, OF: answered.answer.nodes}


def document(answered: Answered) -> dict[str, Any]:
    """The answer as JSON."""
    plan = answered.prepared.query
    return {
        "job": answered.job,
        "repeated": answered.repeated,
        "nodes": answered.answer.nodes,
        "columns": columns(answered),
        "rows": [
            {name: _plain(value) for name, value in row.items()} | {SUPPRESSED: not row[CONTRIBUTING]}
            for row in rows(answered)
        ],
        "rules": plan.rules.model_dump(mode="json"),
        "noise": noise_of(answered.prepared),
    }


def noise_of(prepared: Prepared) -> dict[str, Any] | None:
    """What noise a query carries, as JSON; None for none."""
    noise = prepared.query.noise
    if noise is None:
        return None
    return {
        "rho": rho_text(prepared.micro_rho),
        "epsilon": round(epsilon(prepared.micro_rho, STANDARD.delta), 4),
        "delta": STANDARD.delta,
        "unit_rows": noise.unit_rows,
        "confidence": 0.95,
    }


def as_csv(answered: Answered) -> str:
    """The table as CSV; figures of a suppressed cell read ``suppressed``."""
    out = io.StringIO()
    names = columns(answered)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows(answered):
        hidden = not row[CONTRIBUTING]
        writer.writerow([SUPPRESSED if hidden and row[name] is None else _plain(row[name]) for name in names])
    return out.getvalue()


def as_arrow(answered: Answered) -> Any:
    """The table as a pyarrow table."""
    import pyarrow

    names = columns(answered)
    table = list(rows(answered))
    return pyarrow.table({name: [_plain(row[name]) for row in table] for name in names})


def write_parquet(answered: Answered, path: Path) -> None:
    """Write the table to a Parquet file."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(as_arrow(answered), path)


def frame(answered: Answered, kind: str = "pandas") -> Any:
    """The table as a ``pandas`` or ``polars`` frame."""
    table = as_arrow(answered)
    if kind == "pandas":
        return table.to_pandas()
    if kind == "polars":
        import polars

        return polars.from_arrow(table)
    raise UsageError("a frame is of pandas or of polars, not of {kind}", kind=kind)


def text_rows(answered: Answered) -> tuple[list[str], list[list[str]]]:
    """Headings and cells as a person reads them."""
    names = [name for name in columns(answered)[:-2] if not name.endswith((LOW, HIGH))]
    told = []
    for row in rows(answered):
        hidden = not row[CONTRIBUTING]
        axes = {axis.column for axis in answered.prepared.query.axes}
        cells = [SUPPRESSED if hidden and name not in axes else _with_interval(row, name) for name in names]
        told.append([*cells, f"{row[CONTRIBUTING]}/{row[OF]}" if not hidden else "-"])
    return [*names, CONTRIBUTING], told


def _with_interval(row: dict[str, Any], name: str) -> str:
    low, high = row.get(name + LOW), row.get(name + HIGH)
    return shown(row[name]) if low is None or high is None else f"{shown(row[name])} [{low:.5g}, {high:.5g}]"


def shown(value: Any) -> str:
    """One figure as text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.8g}"
    return str(value)


def _figure_columns(answered: Answered, name: str) -> list[str]:
    numbers = _numbers(answered, name)
    if answered.prepared.query.noise is not None:
        return [part for number in numbers for part in (number, number + LOW, number + HIGH)]
    measure = next(one for one in answered.prepared.query.measures if one.name == name)
    return [name, f"{name}.error"] if measure.kind == "distinct" and measure.values is None else numbers


def _numbers(answered: Answered, name: str) -> list[str]:
    """What a figure's numbers are called: one, or several of a regression."""
    measure = next(one for one in answered.prepared.query.measures if one.name == name)
    if measure.kind not in ("regression", "logistic"):
        return [name]
    by = [f"{name}.{column}" for column in measure.columns[1:]]
    share = [f"{name}.r_squared"] if measure.kind == "regression" else []
    return [f"{name}.intercept", *by, *share, f"{name}.rows"]


def _figure(answered: Answered, cell: Cell, name: str) -> dict[str, Any]:
    numbers, value = _numbers(answered, name), cell.figures.get(name)
    found: dict[str, Any] = dict.fromkeys(_figure_columns(answered, name))
    if isinstance(value, Regression):
        found |= dict(zip(numbers, [*value.coefficients, value.r_squared, value.rows], strict=True))
    elif isinstance(value, Logistic):
        found |= dict(zip(numbers, [*value.coefficients, value.rows], strict=True))
    elif len(numbers) == 1:
        found[name] = value
    if f"{name}.error" in found:
        found[f"{name}.error"] = cell.errors.get(name)
    for number, interval in zip(numbers, cell.intervals.get(name, ()), strict=False):
        if interval is not None:
            found[number + LOW], found[number + HIGH] = interval
    return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
