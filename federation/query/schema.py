"""What a query may ask of a dataset: its plan against the columns that are published and granted.

The asker looks before it signs, each node before it reads: a node believes no plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from federation.query.errors import QuerySchemaError
from federation.query.layout import VectorLayout, range_of
from federation.statements import Column
from federation.statements.query import (
    ORDERED,
    Among,
    Bins,
    Categories,
    Compare,
    Condition,
    Empty,
    Measure,
    Not,
    QueryPlan,
    Value,
)

NUMBERS = ("integer", "number")
LARGEST = {"integer": 2**48, "number": 10**100}
"""Values count as at most so far from 0, so that no sum can overflow: an engine that fails would tell of the row it failed at."""
LEAST_SUBJECTS = 10
"""Distinct subjects that a node's part of a cell has at least, whatever a plan says."""
MOST_DOMINANCE, LEAST_P_RATIO, MOST_PARAMETERS = Decimal("0.9"), Decimal("0.1"), Decimal("0.33")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?\Z")
LARGEST_NORM = 64
"""Of the coefficients of a logistic regression's step, for scaled values: no logit is further from 0."""
COUNTED = ("count", "distinct", "distinct-local", "clamped")
_COLUMNS = {
    "count": (0, 1),
    "sum": (1, 1),
    "mean": (1, 1),
    "variance": (1, 1),
    "deviation": (1, 1),
    "covariance": (2, 2),
    "correlation": (2, 2),
    "regression": (2, 9),
    "logistic": (2, 9),
    "distinct": (1, 1),
    "distinct-local": (1, 1),
    "clamped": (1, 1),
    "quantile": (1, 1),
    "minimum": (1, 1),
    "maximum": (1, 1),
}


def check_query(plan: QueryPlan, columns: Iterable[Column]) -> None:
    """Raise unless this plan can be asked of a dataset with these columns, which are those that the asker is granted.

    Raises:
        QuerySchemaError: a column is not there or not granted, has another type, or has no declared categories; a rule is
            weaker than the least.
    """
    known = {column.name: column for column in columns}
    VectorLayout.of(plan)
    for axis in plan.axes:
        column = _column(known, axis.column)
        if isinstance(axis, Categories):
            _check_categories(axis, column)
        else:
            _check_edges(axis, column)
    for measure in plan.measures:
        _check_measure(measure, plan, known)
    if plan.noise is not None:
        _check_ranges(plan, known)
    if plan.where is not None:
        _check_condition(plan.where, known)
    rules = plan.rules
    if (
        rules.subjects < LEAST_SUBJECTS
        or not 0 < Decimal(rules.dominance) <= MOST_DOMINANCE
        or Decimal(rules.p_ratio) < LEAST_P_RATIO
        or not 0 < Decimal(rules.parameters) <= MOST_PARAMETERS
    ):
        raise QuerySchemaError("the query's disclosure rules are weaker than this node's", code="disclosure-rules")


def categories_of(column: Column) -> tuple[str, ...]:
    """What a column is grouped by."""
    return ("false", "true") if column.type == "boolean" else tuple(column.categories)


def columns_of(plan: QueryPlan) -> frozenset[str]:
    """All columns that a plan names."""
    named = {axis.column for axis in plan.axes} | {name for measure in plan.measures for name in measure.columns}
    return frozenset(named | set(_named(plan.where)))


def _named(condition: Condition | None) -> Iterator[str]:
    if condition is None:
        return
    if isinstance(condition, Compare | Among | Empty):
        yield condition.column
    elif isinstance(condition, Not):
        yield from _named(condition.term)
    else:
        for term in condition.terms:
            yield from _named(term)


def _column(known: Mapping[str, Column], name: str) -> Column:
    if name not in known:
        raise QuerySchemaError(
            "the column {column} is not there, or is not granted",
            hint="see `keyong catalog show`, and the columns in `keyong agreement show`",
            code="column",
            column=name,
        )
    return known[name]


def _check_categories(axis: Categories, column: Column) -> None:
    declared = categories_of(column)
    if not declared or not set(axis.values) & set(declared):
        raise QuerySchemaError(
            "the column {column} has no declared categories to group by",
            hint="its owner declares them when it registers the data; numbers are grouped with HISTOGRAM(column, edge, ...)",
            code="query-categories",
            column=column.name,
        )


def _check_edges(axis: Bins, column: Column) -> None:
    edges = [Decimal(edge) for edge in axis.edges]
    if column.type not in NUMBERS or edges != sorted(edges):
        raise QuerySchemaError(
            "a histogram takes a column of numbers and edges that rise; {column} is {type}",
            code="query-edges",
            column=column.name,
            type=column.type,
        )


def _check_measure(measure: Measure, plan: QueryPlan, known: Mapping[str, Column]) -> None:
    least, most = _COLUMNS[measure.kind]
    if not least <= len(measure.columns) <= most or len(set(measure.columns)) != len(measure.columns):
        raise QuerySchemaError("{figure} is asked of the wrong columns", code="query-figure", figure=measure.name)
    if measure.kind == "logistic" or measure.fit is not None:
        _check_fit(measure, plan, known)
    for name in measure.columns:
        column = _column(known, name)
        if measure.kind == "logistic" and column.type == "boolean" and name == measure.columns[0]:
            continue
        if measure.kind == "clamped" and (
            column.type not in NUMBERS or column.minimum is None or column.maximum is None
        ):
            raise QuerySchemaError(
                "{figure} takes a column of numbers with declared bounds, which {column} is not",
                code="query-bounds",
                figure=measure.name,
                column=name,
            )
        if measure.kind in COUNTED:
            continue
        if column.type not in NUMBERS:
            raise QuerySchemaError(
                "{figure} takes numbers, and the column {column} is {type}",
                code="query-figure",
                figure=measure.name,
                column=name,
                type=column.type,
            )
        if measure.kind not in (*ORDERED, "logistic"):
            _check_encoding(plan, column)
    if measure.kind in ORDERED and (plan.noise is None or not plan.noise.levels):
        raise QuerySchemaError(
            "{figure} shows single rows where no noise is added", code="query-needs-noise", figure=measure.name
        )
    if measure.kind == "quantile" and not (measure.at and 0 < Decimal(measure.at) < 1):
        raise QuerySchemaError("{figure} is asked of the wrong columns", code="query-figure", figure=measure.name)
    if measure.kind == "distinct" and plan.noise is not None:
        raise QuerySchemaError(
            "{figure}: distinct values that companies share are not counted under noise",
            hint="LOCAL_DISTINCT counts each company's own; GROUP BY counts the rows of each declared value",
            code="query-figure",
            figure=measure.name,
        )
    if measure.values is not None:
        _check_values(measure, known)
    elif measure.kind == "distinct" and not plan.slots:
        raise QuerySchemaError("the plan has no slots to count distinct values in", code="query-figure")


def _check_fit(measure: Measure, plan: QueryPlan, known: Mapping[str, Column]) -> None:
    """Raise unless the step can be asked: noise, one fit and no cells, coefficients within the bound.

    What rows say is not looked at here: a refusal by them would tell what no noise hides. A plan without noise is not asked at
    all, and with it coefficients that single a row out show no more of it than any others would.
    """
    if plan.noise is None:
        raise QuerySchemaError(
            "{figure} shows single rows where no noise is added", code="query-needs-noise", figure=measure.name
        )
    fit = measure.fit
    if (
        fit is None
        or measure.kind != "logistic"
        or plan.axes
        or len(plan.measures) != 1
        or len(fit.at) != len(measure.columns)
    ):
        raise QuerySchemaError("{figure} is asked of the wrong columns", code="query-figure", figure=measure.name)
    if sum(Fraction(one) ** 2 for one in fit.at) > LARGEST_NORM**2:
        raise QuerySchemaError(
            "{figure}: the coefficients of a step are larger than {most} together",
            code="query-figure",
            figure=measure.name,
            most=LARGEST_NORM,
        )
    target = _column(known, measure.columns[0])
    if target.type != "boolean" and (
        target.type not in NUMBERS or range_of(plan, target.name) != (Fraction(0), Fraction(1))
    ):
        raise QuerySchemaError(
            "{figure} explains false and true, or a number from 0 to 1, which {column} is not",
            hint="its owner declares it when it registers the data (--column name:number=0..1)",
            code="query-figure",
            figure=measure.name,
            column=target.name,
        )


def _check_values(measure: Measure, known: Mapping[str, Column]) -> None:
    """All that this dataset declares are counted, and no others: a list that its asker chose would tell who has one of them."""
    declared = categories_of(known[measure.columns[0]]) if measure.kind == "distinct" else ()
    values = measure.values or ()
    if not declared or len(set(values)) != len(values) or not set(declared) <= set(values):
        raise QuerySchemaError(
            "{figure} does not count all values that are declared", code="query-figure", figure=measure.name
        )


def _check_encoding(plan: QueryPlan, column: Column) -> None:
    """A shift is no larger than values can be: with one far away the engine would fail at rows that the asker picks."""
    try:
        shift = Decimal(plan.used(column.name).shift)
    except KeyError:
        raise QuerySchemaError(
            "the plan does not say how {column} is encoded", code="query-figure", column=column.name
        ) from None
    if abs(shift) > LARGEST[column.type]:
        raise QuerySchemaError(
            "the plan encodes {column} by a shift that no value can have", code="query-figure", column=column.name
        )


def _check_ranges(plan: QueryPlan, known: Mapping[str, Column]) -> None:
    """Raise unless every summed column has a range, one of whole numbers where the column is."""
    ranged = [one for one in plan.measures if one.kind not in COUNTED or one.kind == "clamped"]
    for name in {name for one in ranged for name in one.columns}:
        if known[name].type == "boolean":  # what a logistic regression explains
            continue
        if known[name].type == "integer" and any(edge.denominator != 1 for edge in range_of(plan, name)):
            raise QuerySchemaError("the range of {column} is not of whole numbers", code="query-bounds", column=name)
        range_of(plan, name)


def _check_condition(condition: Condition, known: Mapping[str, Column]) -> None:
    if isinstance(condition, Compare):
        _check_value(_column(known, condition.column), condition.value, ordered=condition.op not in ("=", "<>"))
    elif isinstance(condition, Among):
        for value in condition.values:
            _check_value(_column(known, condition.column), value, ordered=False)
    elif isinstance(condition, Empty):
        _column(known, condition.column)
    elif isinstance(condition, Not):
        _check_condition(condition.term, known)
    else:
        for term in condition.terms:
            _check_condition(term, known)


def _check_value(column: Column, value: Value, *, ordered: bool) -> None:
    wanted = "number" if column.type in NUMBERS else column.type
    good = value.type == wanted and well_formed(value)
    if not good or (ordered and wanted in ("text", "boolean")):
        raise QuerySchemaError(
            "the column {column} is {type} and cannot be compared so",
            code="query-comparison",
            column=column.name,
            type=column.type,
        )


def well_formed(value: Value) -> bool:
    """Whether a constant's text is one of its type."""
    try:
        if value.type == "number":
            return _NUMBER.match(value.text) is not None
        if value.type == "boolean":
            return value.text in ("true", "false")
        if value.type == "date":
            return datetime.strptime(value.text, "%Y-%m-%d").strftime("%Y-%m-%d") == value.text
        if value.type == "timestamp":
            return datetime.strptime(value.text, "%Y-%m-%d %H:%M:%S").strftime("%Y-%m-%d %H:%M:%S") == value.text
    except ValueError:
        return False
    return True
