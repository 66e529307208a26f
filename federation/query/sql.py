"""The statement that a node makes of a plan for its own engine: nothing of it was written by another.

Names come from the node's own schema and cannot hold a quotation mark; constants are of a checked form, texts have theirs
doubled. One statement gives, for each cell that has rows: the moments, the distinct subjects of each figure, and what the
dominance rules look at. A second gives the distinct values of shared keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from federation.query.layout import Moment, VectorLayout
from federation.query.schema import LARGEST, NUMBERS
from federation.statements import Column
from federation.statements.query import (
    Among,
    Axis,
    Categories,
    Compare,
    Condition,
    Empty,
    Not,
    QueryPlan,
    Value,
)

TABLE = "data"


@dataclass(frozen=True)
class CellStatement:
    """One SELECT and what its columns are, in order: ``cell``, then these."""

    sql: str
    moments: tuple[Moment, ...]
    locals: tuple[str, ...]
    """Names of the figures that count the node's own distinct keys."""
    overs: tuple[tuple[str, ...], ...]
    """Rows in which all of these have a value: how many subjects they have."""
    measured: tuple[str, ...]
    """Columns whose largest subjects are looked at: of each the total, the largest and the second of absolute values."""


def cell_statement(plan: QueryPlan, columns: Mapping[str, Column], unit: str = "") -> CellStatement:
    """The statement for the table's cells.

    Args:
        columns: of the dataset, by name.
        unit: column of the privacy unit; empty where each row is a subject.
    """
    layout = VectorLayout.of(plan)
    # every figure rests on all rows of the cell, and on those in which its own columns have a value
    overs = tuple(dict.fromkeys([(), *(moment.over for moment in layout.moments)]))
    keys = [tuple(m.columns) for m in plan.measures if m.kind in ("distinct", "distinct-local")]
    overs = tuple(dict.fromkeys([*overs, *keys]))
    measured = tuple(dict.fromkeys(name for moment in layout.moments for name in moment.factors))
    used = tuple(dict.fromkeys(name for over in overs for name in over))
    inner = [f"{cell_expression(plan)} AS cell"]
    inner += [f"{_clamped(columns[name])} AS {_value(at)}" for at, name in enumerate(used)]
    if unit:
        inner.append(f"{name_of(unit)} AS unit")
    at = {name: _value(place) for place, name in enumerate(used)}
    rows = f"SELECT {', '.join(inner)} FROM {TABLE} WHERE {condition_of(plan.where)}"  # noqa: S608
    picked = ["cell"]
    picked += [_moment(moment, plan, columns, at) for moment in layout.moments]
    local = [one for one in plan.measures if one.kind == "distinct-local"]
    picked += [f"count(DISTINCT {at[one.columns[0]]})" for one in local]
    subject = "count(DISTINCT unit)" if unit else "count(*)"
    picked += [subject + _filter(over, at) for over in overs]
    largest = ""
    if unit and measured:
        # the two largest subjects of a cell, each the sum of its rows
        parts = [f"sum(abs({at[name]})) AS s{place}" for place, name in enumerate(measured)]
        tops = [f"sum(s{place}) AS t{place}, max(s{place}, 2) AS m{place}" for place in range(len(measured))]
        largest = (
            f", tops AS (SELECT cell AS c, {', '.join(tops)} FROM "  # noqa: S608
            f"(SELECT cell, unit, {', '.join(parts)} FROM kept GROUP BY cell, unit) GROUP BY cell)"
        )
        for place in range(len(measured)):
            picked += [f"any_value(t{place})", f"any_value(m{place})[1]", f"any_value(m{place})[2]"]
    else:
        for name in measured:
            picked += [f"sum(abs({at[name]}))", f"max(abs({at[name]}), 2)[1]", f"max(abs({at[name]}), 2)[2]"]
    source = "kept JOIN tops ON tops.c = kept.cell" if largest else "kept"
    sql = (
        f"WITH kept AS (SELECT * FROM ({rows}) WHERE cell IS NOT NULL){largest} "  # noqa: S608
        f"SELECT {', '.join(picked)} FROM {source} GROUP BY cell ORDER BY cell"
    )
    return CellStatement(sql, layout.moments, tuple(one.name for one in local), overs, measured)


def distinct_statement(plan: QueryPlan, key: str) -> str:
    """The statement for the distinct values of one column in each cell."""
    where = f"({condition_of(plan.where)}) AND {name_of(key)} IS NOT NULL"
    inner = f"SELECT {cell_expression(plan)} AS cell, CAST({name_of(key)} AS VARCHAR) AS k FROM {TABLE} WHERE {where}"  # noqa: S608
    return f"SELECT DISTINCT cell, k FROM ({inner}) WHERE cell IS NOT NULL ORDER BY cell, k"  # noqa: S608


def cell_expression(plan: QueryPlan) -> str:
    """The number of the cell that a row falls into; NULL where it falls into none."""
    parts, stride = [], 1
    for axis in reversed(plan.axes):
        parts.append(f"{stride} * ({_axis(axis)})")
        stride *= axis.size
    return " + ".join(parts) or "0"


def condition_of(condition: Condition | None) -> str:
    """A condition as SQL."""
    if condition is None:
        return "true"
    if isinstance(condition, Compare):
        return f"({name_of(condition.column)} {condition.op} {constant(condition.value)})"
    if isinstance(condition, Among):
        values = ", ".join(constant(value) for value in condition.values)
        return f"({name_of(condition.column)} IN ({values}))"
    if isinstance(condition, Empty):
        return f"({name_of(condition.column)} IS NULL)"
    if isinstance(condition, Not):
        return f"(NOT {condition_of(condition.term)})"
    word = " AND " if condition.kind == "all" else " OR "
    return "(" + word.join(condition_of(term) for term in condition.terms) + ")"


def name_of(column: str) -> str:
    """A column's name, quoted; raises ValueError where it could end its quotation."""
    if '"' in column or "\x00" in column:
        raise ValueError("a column's name holds a quotation mark")
    return f'"{column}"'


def constant(value: Value) -> str:
    """A constant as SQL."""
    quoted = "'" + value.text.replace("'", "''") + "'"
    if value.type == "number":
        return f"CAST({quoted} AS DECIMAL(38, 10))" if "." not in value.text else f"CAST({quoted} AS DOUBLE)"
    if value.type == "boolean":
        return "true" if value.text == "true" else "false"
    return f"CAST({quoted} AS {'VARCHAR' if value.type == 'text' else value.type.upper()})"


def _axis(axis: Axis) -> str:
    name = name_of(axis.column)
    if isinstance(axis, Categories):
        cases = " ".join(
            f"WHEN {constant(Value(type='text', text=value))} THEN {at}" for at, value in enumerate(axis.values)
        )
        return f"CASE CAST({name} AS VARCHAR) {cases} END"
    edges = [f"CAST('{edge}' AS DOUBLE)" for edge in axis.edges]
    last = len(edges) - 2
    cases = " ".join(
        f"WHEN {name} >= {low} AND {name} {'<=' if at == last else '<'} {high} THEN {at}"
        for at, (low, high) in enumerate(pairwise(edges))
    )
    return f"CASE {cases} END"


def _value(place: int) -> str:
    return f"v{place}"


def _bounds(column: Column) -> tuple[Decimal, Decimal]:
    """The least and the largest that a value of a column of numbers counts as."""
    largest = Decimal(LARGEST[column.type])
    least, most = (
        fallback if bound is None else min(max(Decimal(bound), -largest), largest)
        for bound, fallback in ((column.minimum, -largest), (column.maximum, largest))
    )
    return least, most


def _clamped(column: Column) -> str:
    """A measured value: within the declared bounds and `LARGEST`, never infinite or not a number."""
    name = name_of(column.name)
    if column.type not in NUMBERS:
        return name
    kind = "BIGINT" if column.type == "integer" else "DOUBLE"
    cases = [f"WHEN {name} IS NULL THEN NULL"]
    if column.type == "number":
        cases.append(f"WHEN NOT isfinite({name}) THEN NULL")
    for bound, sign in zip(_bounds(column), "<>", strict=True):
        edge = f"CAST('{bound}' AS DOUBLE)"
        cases.append(f"WHEN {name} {sign} {edge} THEN CAST({edge} AS {kind})")
    return f"CASE {' '.join(cases)} ELSE CAST({name} AS {kind}) END"


def _moment(moment: Moment, plan: QueryPlan, columns: Mapping[str, Column], at: Mapping[str, str]) -> str:
    if moment.counts:
        return "count(*)" + _filter(moment.over, at)
    whole = all(columns[name].type == "integer" and "." not in plan.used(name).shift for name in moment.factors)
    kind = "HUGEINT" if whole else "DOUBLE"
    factors = [f"({at[name]} - CAST('{plan.used(name).shift}' AS {kind}))" for name in moment.factors]
    # Kahan's sum: a float64 total of a million rows is then right to its last bits, whatever the order
    return f"{'sum' if whole else 'fsum'}({' * '.join(factors)})" + _filter(moment.over, at)


def _filter(over: tuple[str, ...], at: Mapping[str, str]) -> str:
    return f" FILTER (WHERE {' AND '.join(f'{at[name]} IS NOT NULL' for name in over)})" if over else ""
