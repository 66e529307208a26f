"""What noise leaves uncertain: quantiles read off a noisy tree, and an interval beside each figure.

All of it is worked out by the asker from the noisy answer and the plan, and costs nothing. Counts and sums have the normal
interval of their noise. Other figures are functions of several noisy sums: the noise is drawn again some hundred times around
the answer, and the middle 95 % of what the figure then comes to is its interval (a parametric bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.privacy import half_width
from federation.query.layout import Moment, VectorLayout, moments_of, range_of
from federation.query.noising import releases, share_variance
from federation.statements.query import Measure, QueryPlan

DRAWS = 1000
WIDE = 1.959964
"""Standard deviations of the normal distribution within which 95 % lie."""
Interval = tuple[float, float] | None
Floats = NDArray[np.float64]
Sums = dict[Moment, Fraction]


@dataclass(frozen=True)
class Regression:
    """Coefficients of a linear regression, the intercept first."""

    coefficients: tuple[float, ...]
    r_squared: float
    rows: int


@dataclass(frozen=True)
class Logistic:
    """Coefficients of a logistic regression, the intercept first, in the columns' own units.

    Attributes:
        rows: how many it rests on, by the noisy sums.
    """

    coefficients: tuple[float, ...]
    rows: int


class NoisedFigures:
    """Intervals of one plan's figures.

    Args:
        nodes: whose noise is in the answer.
    """

    def __init__(self, plan: QueryPlan, shares: int, nodes: int) -> None:
        self._plan = plan
        self._layout = VectorLayout.of(plan)
        self._variance: dict[Any, float] = {}
        """Of each release in encoded integers squared, by moment, name or tree's column."""
        for one in releases(plan):
            self._variance[one.of] = float(nodes * share_variance(plan, one, shares))

    # -- sums ---------------------------------------------------------------------------------------------------------

    def intervals(self, measure: Measure, sums: Sums, value: object) -> tuple[Interval, ...]:
        """Of one figure; of a regression one for each coefficient, then R squared and the rows."""
        over = tuple(sorted(set(measure.columns)))
        if measure.kind == "distinct-local":
            return (_around(value, _half(self._variance[measure.name])),)
        if measure.kind in ("count", "clamped"):
            return (_around(value, _half(self._variance[moments_of(measure)[0]])),)
        if measure.kind == "sum":
            name = measure.columns[0]
            shift = float(Fraction(self._plan.used(name).shift))
            spread = self._spread(Moment(over, (name,))) ** 2 + (shift * self._spread(Moment(over))) ** 2
            return (_around(value, _half(spread)),)
        if value is None:
            return (None,)
        found = self._drawn(measure, over, sums)
        return tuple(_middle(one) for one in found)

    def _spread(self, moment: Moment) -> float:
        return float(np.sqrt(self._variance[moment])) / (1 << self._layout.bits(moment))

    def _drawn(self, measure: Measure, over: tuple[str, ...], sums: Sums) -> list[Floats]:
        """A figure's values where the noise is drawn anew around the answer."""
        random = np.random.default_rng(1)  # an interval of one answer is the same whoever works it out

        def of(moment: Moment) -> Floats:
            found: Floats = float(sums[moment]) + self._spread(moment) * random.standard_normal(DRAWS)
            return found

        names = measure.columns
        count = np.maximum(of(Moment(over)), 1.0)
        first = {name: of(Moment(over, (name,))) for name in names}
        shift = {name: float(Fraction(self._plan.used(name).shift)) for name in names}
        if measure.kind == "mean":
            return [first[names[0]] / count + shift[names[0]]]
        pairs = [tuple(sorted(one)) for one in combinations_with_replacement(names, 2)]
        cross = {pair: of(Moment(over, pair)) - first[pair[0]] * first[pair[1]] / count for pair in pairs}
        if measure.kind == "regression":
            means = {name: first[name] / count + shift[name] for name in names}
            return _fitted(names, cross, means, count)
        if measure.kind == "correlation":
            product = np.maximum(cross[names[0], names[0]] * cross[names[1], names[1]], 1e-300)
            return [np.clip(cross[tuple(sorted(names))] / np.sqrt(product), -1.0, 1.0)]
        divisor = np.maximum(count if measure.population else count - 1, 1.0)
        spread = cross[tuple(sorted((names[0], names[-1])))] / divisor
        if measure.kind == "covariance":
            return [spread]
        spread = np.maximum(spread, 0.0)
        return [np.sqrt(spread) if measure.kind == "deviation" else spread]

    # -- trees --------------------------------------------------------------------------------------------------------

    def ordered(self, measure: Measure, tree: Sequence[int], sums: Sums) -> tuple[float | None, tuple[Interval, ...]]:
        """A quantile, the least or the largest value, off a noisy tree, with its interval.

        The least value is where more rows lie below than noise alone would show (two standard errors): it lies between the
        declared minimum and there, and likewise the largest.
        """
        column = measure.columns[0]
        low, high = (float(edge) for edge in range_of(self._plan, column))
        levels = self._layout.levels
        below = _below(tree, levels)
        error = float(np.sqrt(self._variance[column] * levels))
        rows = float(sums[Moment((column,))])
        if rows < 2 * error:
            return None, (None,)
        width = (high - low) / len(below)

        def edge(wanted: float) -> float:
            """The upper edge of the first leaf up to which so many rows lie."""
            leaf = min(int(np.searchsorted(below, wanted)), len(below) - 1)
            return low + width * (leaf + 1)

        if measure.kind == "minimum":
            found = edge(2 * error)
            return found - width / 2, ((low, found),)
        if measure.kind == "maximum":
            found = edge(rows - 2 * error) - width
            return found + width / 2, ((found, high),)
        wanted = float(Fraction(measure.at or "0.5")) * rows
        found = edge(wanted)
        return found - width / 2, ((max(edge(wanted - WIDE * error) - width, low), edge(wanted + WIDE * error)),)


def _below(tree: Sequence[int], levels: int) -> Floats:
    """Rows up to the end of each leaf: sums of the fewest nodes of the tree, made to rise."""
    leaves = 2**levels
    found = np.zeros(leaves)
    for end in range(1, leaves + 1):
        total, at = 0.0, 0
        for level in range(1, levels + 1):
            width = leaves >> level
            if at + width <= end:
                total += tree[2**level - 2 + at // width]
                at += width
                # both halves of the range: the level below would be the root, which is not there
                if level == 1 and at + width <= end:
                    total += tree[2**level - 2 + at // width]
                    at += width
            if at == end:
                break
        found[end - 1] = total
    rising: Floats = np.maximum.accumulate(found)
    return rising


def _fitted(
    names: Sequence[str], cross: dict[tuple[str, ...], Floats], means: dict[str, Floats], count: Floats
) -> list[Floats]:
    by, explained = names[1:], names[0]
    matrix = np.stack([np.stack([cross[tuple(sorted((a, b)))] for b in by], -1) for a in by], -2)
    right = np.stack([cross[tuple(sorted((a, explained)))] for a in by], -1)
    slopes = (np.linalg.pinv(matrix) @ right[..., None])[..., 0]
    intercept = means[explained] - sum(slopes[:, at] * means[name] for at, name in enumerate(by))
    fitted = (slopes * right).sum(-1)
    share = fitted / np.where(cross[explained, explained] > 0, cross[explained, explained], np.nan)
    return [intercept, *slopes.T, share, count]


def _half(variance: float) -> float:
    return half_width(Fraction(variance))


def _around(value: object, half: float) -> Interval:
    return (float(value) - half, float(value) + half) if isinstance(value, int | float) else None


def _middle(values: Floats) -> Interval:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)
