"""The statement that a node makes of a plan for its own engine: nothing of it was written by another.

Names come from the node's own schema and cannot hold a quotation mark; constants are of a checked form, texts have theirs
doubled. One statement gives, for each cell that has rows: the moments, the distinct subjects of each figure, and what the
dominance rules look at. A second gives the distinct values of shared keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations_with_replacement, pairwise

from federation.query.layout import Moment, VectorLayout, beyond, noised_bits, range_of
from federation.query.loading import bounds_of, clamped, clamped_name, coded_axis, name_of, number_of, outside, text_of
from federation.query.noising import FIT_BITS
from federation.query.schema import NUMBERS
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
    fitted: int = 0
    """How many sums of a step of a logistic regression come last."""


def cell_statement(
    plan: QueryPlan, columns: Mapping[str, Column], unit: str = "", *, loaded: bool = False, bounded: bool = False
) -> CellStatement:
    """The statement for the table's cells.

    Args:
        columns: of the dataset, by name.
        unit: column of the privacy unit; empty where each row is a subject.
        loaded: whether the table has `loaded_columns` beside its own.
        bounded: where each row is a subject, give the largest value in the place of the second: no second is larger, and one
            is found in half the time of two. What is safe by it is safe.
    """
    layout = VectorLayout.of(plan)
    if layout.terms:
        return _fit_statement(plan, columns)
    if plan.noise is not None:
        return _noised_statement(plan, columns, layout, loaded=loaded)
    # every figure rests on all rows of the cell, and on those in which its own columns have a value
    overs = tuple(dict.fromkeys([(), *(moment.over for moment in layout.moments)]))
    keys = [tuple(m.columns) for m in plan.measures if m.kind in ("distinct", "distinct-local")]
    overs = tuple(dict.fromkeys([*overs, *keys]))
    measured = tuple(dict.fromkeys(name for moment in layout.moments for name in moment.factors))
    used = tuple(dict.fromkeys(name for over in overs for name in over))
    inner = [f"{cell_expression(plan, columns if loaded else None)} AS cell"]
    inner += [f"{_worked(name, columns, loaded=loaded)} AS {_value(at)}" for at, name in enumerate(used)]
    if unit:
        inner.append(f"{name_of(unit)} AS unit")
    at = {name: _value(place) for place, name in enumerate(used)}
    rows = f"SELECT {', '.join(inner)} FROM {TABLE} WHERE {condition_of(plan.where)}"  # noqa: S608
    picked = ["cell"]
    picked += [_moment(moment, plan, columns, at) for moment in layout.moments]
    local = [one for one in plan.measures if one.kind == "distinct-local"]
    picked += [f"count(DISTINCT {at[one.columns[0]]})" for one in local]
    picked += ["count(DISTINCT unit)" + _filter(over, at) if unit else _count(over, at) for over in overs]
    largest = ""
    if unit and measured:
        # the two largest subjects of a cell, each the sum of its rows
        parts = [f"sum({_magnitude(columns[name], at[name])}) AS s{place}" for place, name in enumerate(measured)]
        tops = [f"sum(s{place}) AS t{place}, max(s{place}, 2) AS m{place}" for place in range(len(measured))]
        largest = (
            f", tops AS (SELECT cell AS c, {', '.join(tops)} FROM "  # noqa: S608
            f"(SELECT cell, unit, {', '.join(parts)} FROM kept GROUP BY cell, unit) GROUP BY cell)"
        )
        for place in range(len(measured)):
            picked += [f"any_value(t{place})", f"any_value(m{place})"]
    else:
        for name in measured:
            value = _magnitude(columns[name], at[name])
            function = "fsum" if columns[name].type == "number" else "sum"  # as its moment has it, where both are one
            picked += [f"{function}({value})", f"max({value})" if bounded else f"max({value}, 2)"]
    source = "kept JOIN tops ON tops.c = kept.cell" if largest else "kept"
    # each aggregate once, a pair of largest values taken apart when there are few rows left
    named = {one: f"g{place}" for place, one in enumerate(dict.fromkeys(picked))}
    told = [part for one in picked for part in _apart(one, named[one])]
    grouped = ", ".join(f"{one} AS {name}" for one, name in named.items())
    sql = (
        f"WITH kept AS (SELECT * FROM ({rows}) WHERE cell IS NOT NULL){largest} "  # noqa: S608
        f"SELECT {', '.join(told)} FROM (SELECT {grouped} FROM {source} GROUP BY cell) ORDER BY {named['cell']}"
    )
    return CellStatement(sql, layout.moments, tuple(one.name for one in local), overs, measured)


def _apart(aggregate: str, name: str) -> list[str]:
    if aggregate.startswith(("max(", "any_value(m")):
        return (
            [f"{name}[1]", f"{name}[2]"] if aggregate.endswith(", 2)") or aggregate.startswith("any") else [name, name]
        )
    return [name]


def released_overs(plan: QueryPlan) -> tuple[tuple[str, ...], ...]:
    """The sets of rows that figures rest on, each as the columns that have a value there."""
    layout = VectorLayout.of(plan)
    keys = [tuple(one.columns) for one in plan.measures if one.kind in ("distinct", "distinct-local")]
    return tuple(dict.fromkeys([*(moment.over for moment in layout.moments), *keys]))


def parts_statement(plan: QueryPlan, columns: Mapping[str, Column], unit: str = "", *, loaded: bool = False) -> str:
    """The statement for the parts into which figures that rest on different rows cut a cell.

    From such figures follow the sums over each part (of rows in which one column has a value and another none, say), so each
    has to hold what a cell has to. Gives cell, part, its subjects, and of each measured column the total, the largest and the
    second of absolute values by subject; NULL where it has no value in the part.
    """
    statement, overs = cell_statement(plan, columns, unit, loaded=loaded), released_overs(plan)
    used = tuple(dict.fromkeys(name for over in [*overs, statement.measured] for name in over))
    at = {name: _value(place) for place, name in enumerate(used)}
    inner = [f"{cell_expression(plan, columns if loaded else None)} AS cell"]
    inner += [f"{_worked(name, columns, loaded=loaded)} AS {at[name]}" for name in used]
    inner += [f"{name_of(unit)} AS unit"] if unit else []
    rows = f"SELECT {', '.join(inner)} FROM {TABLE} WHERE {condition_of(plan.where)}"  # noqa: S608
    bits = [
        f"CASE WHEN {' AND '.join(f'{at[name]} IS NOT NULL' for name in over) or 'true'} THEN {1 << place} ELSE 0 END"
        for place, over in enumerate(overs)
    ]
    cut = f"SELECT *, {' + '.join(bits)} AS part FROM ({rows}) WHERE cell IS NOT NULL"  # noqa: S608
    measured = [_magnitude(columns[name], at[name]) for name in statement.measured]
    if unit:
        sums = [f"sum({value}) AS s{place}" for place, value in enumerate(measured)]
        cut = f"SELECT {', '.join(['cell', 'part', 'unit', *sums])} FROM ({cut}) GROUP BY cell, part, unit"  # noqa: S608
        measured = [f"s{place}" for place in range(len(sums))]
    told = [f"sum({value}), max({value}, 2)[1], max({value}, 2)[2]" for value in measured]
    # a row that names no unit counts for none, as in the cell itself
    subjects = "count(unit)" if unit else "count(*)"
    return (
        f"SELECT {', '.join(['cell', 'part', subjects, *told])} FROM ({cut}) "  # noqa: S608
        "WHERE part > 0 GROUP BY cell, part ORDER BY cell, part"
    )


def _noised_statement(
    plan: QueryPlan, columns: Mapping[str, Column], layout: VectorLayout, *, loaded: bool
) -> CellStatement:
    """Moments as sums of integers, each row clamped and rounded by itself; nothing that disclosure rules would look at."""
    local = [one for one in plan.measures if one.kind == "distinct-local"]
    used = tuple(dict.fromkeys([*(n for m in layout.moments for n in m.over), *(one.columns[0] for one in local)]))
    at = {name: _value(place) for place, name in enumerate(used)}
    measured = {name for moment in layout.moments for name in moment.factors}
    inner = [f"{cell_expression(plan, columns if loaded else None)} AS cell"]
    # within the plan's ranges, which are what noise was reckoned for
    ranged = {name: _ranged(plan, column) for name, column in columns.items() if name in _bounded(plan)}
    inner += [
        f"{clamped(ranged[name]) if name in measured else _worked(name, {**columns, **ranged}, loaded=loaded)} AS {at[name]}"
        for name in used
    ]
    picked = ["cell", *(_noised_moment(moment, plan, columns, at) for moment in layout.moments)]
    picked += [f"count(DISTINCT {at[one.columns[0]]})" for one in local]
    sql = (
        f"SELECT {', '.join(picked)} FROM "  # noqa: S608
        f"(SELECT {', '.join(inner)} FROM {TABLE} WHERE {condition_of(plan.where)}) "
        "WHERE cell IS NOT NULL GROUP BY cell ORDER BY cell"
    )
    return CellStatement(sql, layout.moments, tuple(one.name for one in local), (), ())


def _fit_statement(plan: QueryPlan, columns: Mapping[str, Column]) -> CellStatement:
    """The sums of a step of a logistic regression, each row's part clamped, scaled and rounded by itself.

    `federation.query.fitting` says what they are.
    """
    (measure,) = plan.measures
    assert measure.fit is not None
    target, *features = measure.columns
    terms = len(measure.columns)
    rows = [f"CAST({_target(plan, columns[target])} AS DOUBLE) AS y"]
    for place, name in enumerate(features):
        rows.append(f"CAST({clamped(_ranged(plan, columns[name]))} AS DOUBLE) AS {_value(place)}")
    root = _double(1 / math.sqrt(terms))
    scaled = ["y", f"{root} AS z0"]
    for place, name in enumerate(features):
        low, high = range_of(plan, name)
        middle, half = _double(float((low + high) / 2)), _double(float((high - low) / 2))
        # the division may end a hair beyond 1
        scaled.append(f"{root} * least(greatest(({_value(place)} - {middle}) / {half}, -1), 1) AS z{place + 1}")
    given = " AND ".join(["y IS NOT NULL", *(f"{_value(place)} IS NOT NULL" for place in range(len(features)))])
    logit = " + ".join(f"CAST('{one}' AS DOUBLE) * z{place}" for place, one in enumerate(measure.fit.at))
    sums = [f"(p - y) * z{place}" for place in range(terms)]
    sums += [f"p * (1 - p) * z{one} * z{two}" for one, two in combinations_with_replacement(range(terms), 2)]
    told = ", ".join(f"sum(CAST(round({one} * {1 << FIT_BITS}) AS BIGINT))" for one in sums)
    inner = f"SELECT {', '.join(rows)} FROM {TABLE} WHERE {condition_of(plan.where)}"  # noqa: S608
    inner = f"SELECT {', '.join(scaled)} FROM ({inner}) WHERE {given}"  # noqa: S608
    inner = f"SELECT *, 1 / (1 + exp(-({logit}))) AS p FROM ({inner})"  # noqa: S608
    return CellStatement(f"SELECT 0 AS cell, {told} FROM ({inner}) GROUP BY cell", (), (), (), (), len(sums))  # noqa: S608


def _target(plan: QueryPlan, column: Column) -> str:
    """What a logistic regression explains: false and true, or a number from 0 to 1."""
    if column.type != "boolean":
        return clamped(_ranged(plan, column))
    return f"CASE WHEN {name_of(column.name)} THEN 1 WHEN NOT {name_of(column.name)} THEN 0 END"


def _double(value: float) -> str:
    return f"CAST('{value!r}' AS DOUBLE)"


def tree_statement(plan: QueryPlan, column: Column, loaded: Mapping[str, Column] | None = None) -> str:
    """The statement for the leaves of a column's tree: cell, leaf, rows in it; values beyond the range are in the outer ones."""
    low, high = range_of(plan, column.name)
    leaves = 2 ** VectorLayout.of(plan).levels
    ranged = _ranged(plan, column)
    width = f"(CAST('{decimal_text(high - low)}' AS DOUBLE) / {leaves})"
    place = f"TRY_CAST(floor((v - CAST('{decimal_text(low)}' AS DOUBLE)) / {width}) AS BIGINT)"
    leaf = f"least(greatest(coalesce({place}, 0), 0), {leaves - 1})"
    cell = cell_expression(plan, loaded)
    inner = f"SELECT {cell} AS cell, {clamped(ranged)} AS v FROM {TABLE} WHERE {condition_of(plan.where)}"  # noqa: S608
    return (
        f"SELECT cell, {leaf} AS leaf, count(*) FROM ({inner}) "  # noqa: S608
        "WHERE cell IS NOT NULL AND v IS NOT NULL GROUP BY cell, leaf ORDER BY cell, leaf"
    )


def _bounded(plan: QueryPlan) -> set[str]:
    return {one.name for one in plan.noise.bounds} if plan.noise is not None else set()


def _ranged(plan: QueryPlan, column: Column) -> Column:
    low, high = range_of(plan, column.name)
    return column.model_copy(update={"minimum": decimal_text(low), "maximum": decimal_text(high)})


def _noised_moment(moment: Moment, plan: QueryPlan, columns: Mapping[str, Column], at: Mapping[str, str]) -> str:
    if moment.counts:
        return _count(moment.over, at)
    product = _product(moment, plan, columns, at)
    bits = noised_bits(plan, moment)
    if bits or not _whole(moment, plan, columns):
        product = f"CAST(round(({product}) * {1 << bits}) AS HUGEINT)"
    return f"sum({product})" + _filter(moment.over, at, moment.factors)


def decimal_text(value: Fraction) -> str:
    """A fraction that was read from a decimal string, as one."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    return f"{Decimal(value.numerator * 10**digits // value.denominator).scaleb(-digits):f}"


def distinct_statement(plan: QueryPlan, key: str, loaded: Mapping[str, Column] | None = None) -> str:
    """The statement for the distinct values of one column in each cell."""
    where = f"({condition_of(plan.where)}) AND {name_of(key)} IS NOT NULL"
    inner = f"SELECT {cell_expression(plan, loaded)} AS cell, CAST({name_of(key)} AS VARCHAR) AS k FROM {TABLE} WHERE {where}"  # noqa: S608
    return f"SELECT DISTINCT cell, k FROM ({inner}) WHERE cell IS NOT NULL ORDER BY cell, k"  # noqa: S608


def cell_expression(plan: QueryPlan, loaded: Mapping[str, Column] | None = None) -> str:
    """The number of the cell that a row falls into; NULL where it falls into none.

    Args:
        loaded: columns whose categories' numbers stand beside them (`federation.query.loading`).
    """
    parts, stride = [], 1
    for axis in reversed(plan.axes):
        place = coded_axis(axis, loaded or {}) or _axis(axis)
        # the number of a cell does not fit where that of a category does
        parts.append(f"{stride} * CAST(({place}) AS INTEGER)" if stride > 1 else f"CAST(({place}) AS INTEGER)")
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


def constant(value: Value) -> str:
    """A constant as SQL."""
    quoted = text_of(value.text)
    if value.type == "number":
        return f"CAST({quoted} AS DECIMAL(38, 10))" if "." not in value.text else f"CAST({quoted} AS DOUBLE)"
    if value.type == "boolean":
        return "true" if value.text == "true" else "false"
    return f"CAST({quoted} AS {'VARCHAR' if value.type == 'text' else value.type.upper()})"


def _axis(axis: Axis) -> str:
    name = name_of(axis.column)
    if isinstance(axis, Categories):
        return number_of(axis.column, axis.values)
    edges = [f"CAST('{edge}' AS DOUBLE)" for edge in axis.edges]
    last = len(edges) - 2
    cases = " ".join(
        f"WHEN {name} >= {low} AND {name} {'<=' if at == last else '<'} {high} THEN {at}"
        for at, (low, high) in enumerate(pairwise(edges))
    )
    return f"CASE {cases} END"


def _value(place: int) -> str:
    return f"v{place}"


def _worked(name: str, columns: Mapping[str, Column], *, loaded: bool) -> str:
    """What figures rest on: a column's clamped value, or whether it was clamped."""
    if name in columns:
        return _measured(columns[name], loaded=loaded)
    return outside(next(column for column in columns.values() if beyond(column.name) == name))


def _measured(column: Column, *, loaded: bool) -> str:
    """A column's clamped value: as it was loaded, or worked out here."""
    return clamped_name(column.name) if loaded and column.type in NUMBERS else clamped(column)


def _magnitude(column: Column, value: str) -> str:
    """The absolute value of a clamped one."""
    return value if bounds_of(column)[0] >= 0 else f"abs({value})"


def _moment(moment: Moment, plan: QueryPlan, columns: Mapping[str, Column], at: Mapping[str, str]) -> str:
    if moment.counts:
        return _count(moment.over, at)
    # Kahan's sum: a float64 total of a million rows is then right to its last bits, whatever the order
    function = "sum" if _whole(moment, plan, columns) else "fsum"
    return f"{function}({_product(moment, plan, columns, at)})" + _filter(moment.over, at, moment.factors)


def _whole(moment: Moment, plan: QueryPlan, columns: Mapping[str, Column]) -> bool:
    return all(columns[name].type == "integer" and "." not in plan.used(name).shift for name in moment.factors)


def _product(moment: Moment, plan: QueryPlan, columns: Mapping[str, Column], at: Mapping[str, str]) -> str:
    whole = _whole(moment, plan, columns)
    if len(moment.factors) == 1:
        name = moment.factors[0]
        return _shifted(at[name], plan.used(name).shift, "BIGINT" if whole else "DOUBLE")
    # a product of two whole numbers may take more than 64 bits
    kind = "HUGEINT" if whole else "DOUBLE"
    return " * ".join(_shifted(f"CAST({at[name]} AS {kind})", plan.used(name).shift, kind) for name in moment.factors)


def _shifted(value: str, shift: str, kind: str) -> str:
    return value if Decimal(shift) == 0 else f"({value} - CAST('{shift}' AS {kind}))"


def _count(over: tuple[str, ...], at: Mapping[str, str]) -> str:
    """Rows in which all of these have a value."""
    return f"count({at[over[0]]})" if len(over) == 1 else "count(*)" + _filter(over, at)


def _filter(over: tuple[str, ...], at: Mapping[str, str], given: tuple[str, ...] = ()) -> str:
    """Leave out rows in which one of these has no value; ``given`` are those whose rows fall out by themselves."""
    asked = [name for name in over if name not in given]
    return f" FILTER (WHERE {' AND '.join(f'{at[name]} IS NOT NULL' for name in asked)})" if asked else ""
