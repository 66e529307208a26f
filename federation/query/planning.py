"""From a question to a plan: how values are encoded, and in how many limbs their sums fit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from federation.query.ring import LIMB_BITS
from federation.statements import Column
from federation.statements.query import Measure, QueryPlan, Rules, UsedColumn

if TYPE_CHECKING:
    from federation.query.front import Question

NUMBER_BITS = 30
"""Fraction bits of columns that are not whole numbers."""
MOST_LIMBS = 3
SLOTS = 16384
"""To count distinct shared keys in: 60,000 of them are told to about one in a hundred."""
_COUNTED = ("count", "distinct", "distinct-local")
_SQUARED = ("variance", "deviation", "covariance", "correlation", "regression")


def plan_of(question: Question, columns: Mapping[str, Column], rows: int, context: str) -> QueryPlan:
    """The structured plan of a question.

    Args:
        columns: what the datasets have in common.
        rows: most rows of any one of them.
        context: digest of the public encryption context.
    """
    used: dict[str, UsedColumn] = {}
    squared = {name for one in question.measures if one.kind in _SQUARED for name in one.columns}
    for measure in question.measures:
        if measure.kind in _COUNTED:
            continue
        for name in measure.columns:
            used[name] = _used(columns[name], centred=name in squared)
    shared = any(one.kind == "distinct" for one in question.measures)
    return QueryPlan(
        axes=question.axes,
        measures=question.measures,
        where=question.where,
        columns=tuple(used[name] for name in sorted(used)),
        limbs=_limbs(question.measures, columns, used, rows),
        slots=SLOTS if shared else 0,
        rules=Rules(),
        context=context,
    )


def _used(column: Column, *, centred: bool) -> UsedColumn:
    bits = 0 if column.type == "integer" else NUMBER_BITS
    shift = "0"
    if centred and column.minimum is not None and column.maximum is not None:
        shift = str(int((Decimal(column.minimum) + Decimal(column.maximum)) / 2))
    return UsedColumn(name=column.name, fraction_bits=bits, shift=shift)


def _limbs(
    measures: tuple[Measure, ...], columns: Mapping[str, Column], used: Mapping[str, UsedColumn], rows: int
) -> int:
    most = 1
    for measure in measures:
        if measure.kind in _COUNTED:
            continue
        reach = Decimal(1)
        bits = max(used[name].fraction_bits for name in measure.columns)
        for name in measure.columns:
            column, shift = columns[name], Decimal(used[name].shift)
            if column.minimum is None or column.maximum is None:
                return MOST_LIMBS
            reach = max(reach, abs(Decimal(column.minimum) - shift), abs(Decimal(column.maximum) - shift))
        power = 2 if measure.kind in _SQUARED else 1
        total = int(max(rows, 1) * reach**power) + 1
        most = max(most, -(-(total.bit_length() + bits + 1) // LIMB_BITS))
    return min(most, MOST_LIMBS)
