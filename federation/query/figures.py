"""From the opened sum to the table: what the asker alone computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations_with_replacement

from federation.query.errors import QueryVoidError
from federation.query.intervals import Interval, Logistic, NoisedFigures, Regression
from federation.query.layout import Moment, VectorLayout, moments_of
from federation.query.ring import from_limbs, signed
from federation.query.vector import labels
from federation.statements.query import ORDERED, Measure, QueryPlan

SUPPRESSED = "suppressed"


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Attributes:
        labels: what it is called on each axis.
        contributing: how many nodes are in it; 0 where it is suppressed.
        figures: by name; None where there is no value (an average of no rows, say). Empty where it is suppressed.
        rows: how many rows it rests on, where the plan asks for that; else None.
        errors: standard error of an estimated figure, by name.
    """

    labels: tuple[str, ...]
    contributing: int
    figures: dict[str, int | float | Regression | Logistic | None]
    errors: dict[str, float]
    intervals: dict[str, tuple[Interval, ...]] = field(default_factory=dict)
    """Under noise: within what each figure lies without it, 95 times in 100; one for each number of a regression."""

    @property
    def suppressed(self) -> bool:
        """Whether too few contribute for it to be opened."""
        return not self.contributing


@dataclass(frozen=True)
class Answer:
    """The table.

    Attributes:
        nodes: how many nodes are in the sum.
    """

    cells: tuple[Cell, ...]
    nodes: int


def decode_answer(plan: QueryPlan, vector: Sequence[int], nodes: int, shares: int = 1) -> Answer:
    """The table of an opened sum.

    Args:
        vector: elements of Z_t.
        nodes: whose vectors were added, as the receipts say.
        shares: of how many shares each node's noise was reckoned, where the plan has noise.

    Raises:
        QueryVoidError: it is not the sum of so many honest nodes' vectors.
    """
    layout = VectorLayout.of(plan)
    if len(vector) < layout.size or vector[0] != nodes:
        raise QueryVoidError("the answer does not open to {count} nodes; it is void", count=nodes)
    noised = NoisedFigures(plan, shares, nodes) if plan.noise is not None else None
    cells = (_cell(plan, layout, vector, at, name, nodes, noised) for at, name in enumerate(labels(plan)))
    return Answer(tuple(cells), nodes)


def _cell(
    plan: QueryPlan,
    layout: VectorLayout,
    vector: Sequence[int],
    number: int,
    named: tuple[str, ...],
    nodes: int,
    noised: NoisedFigures | None,
) -> Cell:
    contributing = int(vector[layout.cell(number)])
    if contributing > nodes:
        raise QueryVoidError("a cell has more contributors than there are nodes; the answer is void")
    if not contributing:
        return Cell(named, 0, {}, {})
    sums: dict[Moment, Fraction] = {}
    for moment, start, stop in layout.places(number):
        whole = from_limbs([int(one) for one in vector[start:stop]], contributing)
        sums[moment] = Fraction(whole, 1 << layout.bits(moment))
    figures: dict[str, int | float | Regression | Logistic | None] = {}
    errors: dict[str, float] = {}
    intervals: dict[str, tuple[Interval, ...]] = {}
    for measure in plan.measures:
        if measure.kind in ORDERED and noised is not None:
            start, stop = layout.tree(number, measure.columns[0])
            tree = [signed(int(one)) for one in vector[start:stop]]
            figures[measure.name], intervals[measure.name] = noised.ordered(measure, tree, sums)
            continue
        if measure.kind == "distinct-local":
            figures[measure.name] = signed(int(vector[layout.local(number, measure.name)]))
        elif measure.kind == "distinct":
            start, stop = layout.slots_of(number, measure.name)
            occupied = sum(int(one) != 0 for one in vector[start:stop])
            if measure.values is not None:
                figures[measure.name] = occupied
            else:
                figures[measure.name], errors[measure.name] = counted(occupied, stop - start)
        else:
            figures[measure.name] = _figure(plan, measure, sums)
        if noised is not None:
            intervals[measure.name] = noised.intervals(measure, sums, figures[measure.name])
    return Cell(named, contributing, figures, errors, intervals)


def counted(occupied: int, slots: int) -> tuple[int, float]:
    """How many distinct values there are, by linear counting, and the estimate's standard error.

    After Whang, Vander-Zanden and Taylor 1990: ``-m ln(1 - o/m)``, with the error ``sqrt(m (e^t - t - 1))`` for a load ``t``.

    Raises:
        QueryVoidError: all slots are occupied.
    """
    if occupied >= slots:
        raise QueryVoidError(
            "there are more distinct values than the plan's {slots} slots can tell apart",
            hint="narrow the question with WHERE",
            code="query-slots",
            slots=slots,
        )
    load = -math.log1p(-occupied / slots)
    return round(slots * load), math.sqrt(max(slots * (math.expm1(load) - load), 0.0))


def _figure(plan: QueryPlan, measure: Measure, sums: dict[Moment, Fraction]) -> int | float | Regression | None:
    if measure.kind == "clamped":
        return int(sums[moments_of(measure)[0]])
    over = tuple(sorted(set(measure.columns)))
    count = sums[Moment(over)]
    rows = int(count)
    if measure.kind == "count":
        return rows
    names = measure.columns
    shift = {name: Fraction(plan.used(name).shift) for name in names}
    first = {name: sums[Moment(over, (name,))] for name in names}
    if measure.kind in ("sum", "mean"):
        total = first[names[0]] + count * shift[names[0]]
        whole = plan.used(names[0]).fraction_bits == 0
        if measure.kind == "sum":
            return int(total) if whole and total.denominator == 1 else float(total)
        return float(total / count) if rows > 0 else None
    if rows <= 0:  # below nothing by noise
        return None
    # centred: what was taken off each value falls out
    cross = {
        pair: sums[Moment(over, pair)] - first[pair[0]] * first[pair[1]] / count
        for pair in (tuple(sorted(one)) for one in combinations_with_replacement(names, 2))
    }
    if measure.kind == "regression":
        return _regression(names, cross, first, shift, rows)
    divisor = rows if measure.population else rows - 1
    if measure.kind == "correlation":
        return _correlation(names, cross)
    if divisor < 1:
        return None
    spread = cross[tuple(sorted((names[0], names[-1])))] / divisor
    if measure.kind == "covariance":
        return float(spread)
    # rounding of sums may leave a spread of nothing a hair below it
    value = max(float(spread), 0.0)
    return math.sqrt(value) if measure.kind == "deviation" else value


def _correlation(names: Sequence[str], cross: dict[tuple[str, ...], Fraction]) -> float | None:
    product = cross[names[0], names[0]] * cross[names[1], names[1]]
    if product <= 0:
        return None
    value = float(cross[tuple(sorted(names))]) / math.sqrt(product)
    return min(max(value, -1.0), 1.0)


def _regression(
    names: Sequence[str],
    cross: dict[tuple[str, ...], Fraction],
    first: dict[str, Fraction],
    shift: dict[str, Fraction],
    rows: int,
) -> Regression | None:
    explained, by = names[0], list(names[1:])
    matrix = [[cross[tuple(sorted((a, b)))] for b in by] + [cross[tuple(sorted((a, explained)))]] for a in by]
    slopes = _solve(matrix)
    total = cross[explained, explained]
    if slopes is None:
        return None
    mean = {name: first[name] / rows + shift[name] for name in names}
    intercept = mean[explained] - sum((b * mean[name] for b, name in zip(slopes, by, strict=True)), Fraction(0))
    fitted = sum((b * cross[tuple(sorted((name, explained)))] for b, name in zip(slopes, by, strict=True)), Fraction(0))
    share = float(fitted / total) if total > 0 else math.nan
    return Regression((float(intercept), *(float(one) for one in slopes)), share, rows)


def _solve(matrix: list[list[Fraction]]) -> list[Fraction] | None:
    """Gauss-Jordan in exact fractions: what comes out is as good as the sums that went in. None where there is no one
    solution."""
    size = len(matrix)
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(matrix[row][at]))
        if matrix[pivot][at] == 0:
            return None
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        lead = matrix[at][at]
        matrix[at] = [value / lead for value in matrix[at]]
        for row in range(size):
            if row != at and matrix[row][at]:
                factor = matrix[row][at]
                matrix[row] = [value - factor * base for value, base in zip(matrix[row], matrix[at], strict=True)]
    return [row[size] for row in matrix]
