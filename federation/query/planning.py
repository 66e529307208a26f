"""From a question to a plan: how values are encoded, and in how many limbs their sums fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from federation.query.errors import QuerySchemaError
from federation.query.fitting import steps_of
from federation.query.noising import limbs_needed, within
from federation.query.ring import LIMB_BITS
from federation.query.schema import categories_of
from federation.statements import Column
from federation.statements.query import MOST_CELLS, ORDERED, Bounded, Measure, QueryNoise, QueryPlan, Rules, UsedColumn

if TYPE_CHECKING:
    from federation.query.front import Question

NUMBER_BITS = 30
"""Fraction bits of columns that are not whole numbers."""
MOST_LIMBS = 3
SLOTS = 16384
"""To count distinct shared keys in: 60,000 of them are told to about one in a hundred."""
MOST_DEPTH, LEAST_DEPTH = 10, 4
"""Of the trees that quantiles are read off: a range in 1,024 parts, or in 16 where there are many cells."""
TREE_ELEMENTS = 2**15
"""Of all trees together, from which on they are made less deep: four ciphertexts."""
_COUNTED = ("count", "distinct", "distinct-local", "clamped")
_UNCODED = (*_COUNTED, *ORDERED, "logistic")
"""Figures whose columns are not summed as they are."""
_SQUARED = ("variance", "deviation", "covariance", "correlation", "regression")


@dataclass(frozen=True)
class Private:
    """What noise a query is to carry.

    Attributes:
        micro_rho: what it may cost of each dataset's budget.
        unit_rows: most rows of one privacy unit at any of the nodes.
        nodes: how many are asked.
        shares: how many nodes' noise is certain (`federation.secagg.noise_shares`).
    """

    micro_rho: int
    unit_rows: int
    nodes: int
    shares: int


def plan_of(
    question: Question, columns: Mapping[str, Column], rows: int, context: str, private: Private | None = None
) -> QueryPlan:
    """The structured plan of a question.

    Args:
        columns: what the datasets have in common.
        rows: most rows of any one of them.
        context: digest of the public encryption context.
        private: what noise it carries; None for none.

    Raises:
        QuerySchemaError: there is no noise for it.
    """
    used: dict[str, UsedColumn] = {}
    squared = {name for one in question.measures if one.kind in _SQUARED for name in one.columns}
    added = {name for one in question.measures if one.kind == "sum" for name in one.columns}
    for measure in question.measures:
        if measure.kind in _UNCODED:
            continue
        for name in measure.columns:
            centred = name in squared or (private is not None and measure.kind == "mean" and name not in added)
            used[name] = _used(columns[name], centred=centred, private=private is not None)
    measures = tuple(_enumerated(one, columns) if one.kind == "distinct" else one for one in question.measures)
    hashed = any(one.kind == "distinct" and one.values is None for one in measures)
    exact = QueryPlan(
        axes=question.axes,
        measures=measures,
        where=question.where,
        columns=tuple(used[name] for name in sorted(used)),
        limbs=_limbs(question.measures, columns, used, rows),
        slots=SLOTS if hashed else 0,
        rules=Rules(),
        context=context,
    )
    return exact if private is None else _noised(exact, columns, rows, private)


def _enumerated(measure: Measure, columns: Mapping[str, Column]) -> Measure:
    """A distinct count with the values that there are, where all of them are declared."""
    values = categories_of(columns[measure.columns[0]])
    return measure.model_copy(update={"values": values}) if 0 < len(values) <= MOST_CELLS else measure


def _noised(exact: QueryPlan, columns: Mapping[str, Column], rows: int, private: Private) -> QueryPlan:
    """The plan with noise that costs what it may, and limbs that both fit in."""
    shared = next((one for one in exact.measures if one.kind == "distinct"), None)
    if shared is not None:
        raise QuerySchemaError(
            "{figure}: distinct values that companies share are not counted under noise",
            hint="LOCAL_DISTINCT counts each company's own; GROUP BY counts the rows of each declared value",
            code="query-figure",
            figure=shared.name,
        )
    ranged = [one for one in exact.measures if one.kind not in _COUNTED or one.kind == "clamped"]
    summed = sorted({name for one in ranged for name in one.columns if columns[name].type != "boolean"})
    bounds = tuple(_bounded(columns[name]) for name in summed)
    trees = len({one.columns for one in exact.measures if one.kind in ORDERED})
    noise = QueryNoise(unit_rows=private.unit_rows, micro_rho=1, bounds=bounds, levels=MOST_DEPTH if trees else 0)
    plan = exact.model_copy(update={"noise": noise, "limbs": MOST_LIMBS})
    while trees and noise.levels > LEAST_DEPTH and plan.cells * trees * 2 ** (noise.levels + 1) > TREE_ELEMENTS:
        noise = noise.model_copy(update={"levels": noise.levels - 1})
        plan = plan.model_copy(update={"noise": noise})
    plan = within(plan, private.micro_rho // steps_of(exact), private.shares)
    limbs = limbs_needed(plan, rows, private.shares, private.nodes, LIMB_BITS)
    if limbs > MOST_LIMBS:
        raise QuerySchemaError(
            "a sum and its noise are larger than an answer can carry",
            hint="have owners declare narrower bounds",
            code="query-noise",
        )
    return plan.model_copy(update={"limbs": limbs})


def _bounded(column: Column) -> Bounded:
    if column.minimum is None or column.maximum is None or Decimal(column.minimum) >= Decimal(column.maximum):
        raise QuerySchemaError(
            "noise needs the range of {column}, and none is declared",
            hint="its owner declares bounds when it registers the data (--column name:number=0..60)",
            code="query-bounds",
            column=column.name,
        )
    low, high = Decimal(column.minimum), Decimal(column.maximum)
    if column.type == "integer":
        low, high = Decimal(math.floor(low)), Decimal(math.ceil(high))
    return Bounded(name=column.name, minimum=f"{low:f}", maximum=f"{high:f}")


def _used(column: Column, *, centred: bool, private: bool) -> UsedColumn:
    bits = 0 if column.type == "integer" else NUMBER_BITS
    shift = "0"
    if centred and column.minimum is not None and column.maximum is not None:
        middle = (Decimal(column.minimum) + Decimal(column.maximum)) / 2
        shift = f"{middle.normalize():f}" if private and bits else str(int(middle))
    return UsedColumn(name=column.name, fraction_bits=bits, shift=shift)


def _limbs(
    measures: tuple[Measure, ...], columns: Mapping[str, Column], used: Mapping[str, UsedColumn], rows: int
) -> int:
    most = 1
    for measure in measures:
        if measure.kind in _UNCODED:
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
