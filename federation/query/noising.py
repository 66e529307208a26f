"""Noise of a query under differential privacy: how much each release needs, what it costs, and drawing it.

What is hidden is one *privacy unit* of one node's dataset: at most ``k`` rows, whichever cells they fall into. A *release* is one
moment over all cells, one node's own distinct counts, or one level of a tree over all cells; rows of a unit move each, as a
vector, by at most ``k`` times what one row adds (all in one cell is the worst). Under noise values are clamped to the plan's
ranges and rounded row by row, so a moment is a sum of integers and its sensitivity is exact. No flag, no suppression and no
other answer depends on the rows then.

Each release costs what the plan says (``QueryNoise.micro_rho``), which fixes its variance; each node adds ``variance / shares``
of it (arXiv 2102.06387), where ``shares`` are the nodes whose noise is certain to be in the sum and unknown to whoever sees it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from federation.noise import LARGEST_VARIANCE, discrete_gaussian
from federation.privacy import summed_micro_rho, variance_within
from federation.query.errors import QuerySchemaError
from federation.query.layout import FitSum, Moment, VectorLayout, noised_bits, reach_of
from federation.statements.query import QueryPlan

FIT_BITS = 20
"""Fraction bits of a row's part in the sums of a logistic step."""
ROOM = 14
"""Standard deviations of a sum's noise that the limbs have room for: beyond lies less than 2^-140."""
_ROUNDED = 1 + Fraction(1, 2**40)
"""More than float64 adds to a product of a few clamped values."""
Noise = dict["Release", NDArray[np.int64]]


@dataclass(frozen=True)
class Release:
    """Some elements of the vector that one row moves together.

    Attributes:
        of: a moment, the name of a local distinct count, a column's tree, or a sum of a step of a logistic regression.
        level: of a tree, from 1; else 0.
        size: how many elements, over all cells.
        reach: the most that one row adds, in integers as they are encoded.
    """

    of: Moment | FitSum | str
    level: int
    size: int
    reach: int


def releases(plan: QueryPlan) -> Iterator[Release]:
    """What a plan releases, in the order in which noise is drawn."""
    layout = VectorLayout.of(plan)
    for moment in layout.moments:
        yield Release(moment, 0, plan.cells, reach_units(plan, moment))
    for name in layout.locals:
        yield Release(name, 0, plan.cells, 1)
    for column in layout.trees:
        for level in range(1, layout.levels + 1):
            yield Release(column, level, plan.cells * 2**level, 1)
    if layout.terms:
        for part in FitSum:
            yield Release(part, 0, part.size(layout.terms), fit_reach(part, layout.terms))


def fit_reach(part: FitSum, terms: int) -> int:
    """The most that one row adds to a sum of a logistic step, in the L2 norm of integers: a gradient ``(p - y) z`` is at most
    1, a curvature ``p (1 - p) z z'`` at most 1/4, for ``|z| <= 1``; each element is rounded by itself."""
    whole = 1 << (FIT_BITS if part is FitSum.GRADIENT else FIT_BITS - 2)
    return whole + math.ceil(math.sqrt(part.size(terms)) / 2) + 1


def reach_units(plan: QueryPlan, moment: Moment) -> int:
    """The most that one row adds to a moment's integer."""
    if moment.counts:
        return 1
    return math.ceil(reach_of(plan, moment) * (1 << noised_bits(plan, moment)) * _ROUNDED) + 1


def share_variance(plan: QueryPlan, release: Release, shares: int) -> Fraction:
    """The variance that each node adds to a release, in integers squared.

    Raises:
        QuerySchemaError: it is so small that a sum of nodes' noise would not hide what it should, or too large for 64 bits.
    """
    noise = plan.noise
    assert noise is not None
    variance = variance_within(noise.micro_rho, (noise.unit_rows * release.reach) ** 2) / shares
    if not Fraction(1, 4) <= variance <= LARGEST_VARIANCE:
        raise QuerySchemaError(
            "noise for so large a privacy budget, or so wide a range, cannot be drawn",
            hint="ask for less rho, or have owners declare narrower bounds and fewer rows of a unit",
            code="query-noise",
        )
    return variance


def query_micro_rho(plan: QueryPlan, shares: int) -> int:
    """What a query costs, in micro-rho of each node's dataset; 0 without noise.

    Raises:
        QuerySchemaError: see `share_variance`.
    """
    noise = plan.noise
    if noise is None:
        return 0
    cost = 0
    for one in releases(plan):
        sensitivity = (noise.unit_rows * one.reach) ** 2
        cost += summed_micro_rho(sensitivity, share_variance(plan, one, shares), shares, one.size)
    return cost


def within(plan: QueryPlan, micro_rho: int, shares: int) -> QueryPlan:
    """The plan whose noise costs as much as it can without costing more than this.

    Raises:
        QuerySchemaError: so little does not go round, or see `share_variance`.
    """
    assert plan.noise is not None
    count = sum(1 for _ in releases(plan))
    each = micro_rho // count
    while each >= 1:
        found = plan.model_copy(update={"noise": plan.noise.model_copy(update={"micro_rho": each})})
        cost = query_micro_rho(found, shares)
        if cost <= micro_rho:
            return found
        each -= max(1, -(-(cost - micro_rho) // count))
    raise QuerySchemaError(
        "the privacy budget does not go round: the query has {count} releases, and each costs rho 0.000001 at least",
        hint="ask for fewer figures at once, or for more rho (--rho)",
        code="query-noise",
        count=count,
    )


def draw_noise(plan: QueryPlan, shares: int) -> Noise:
    """One node's noise for each release, fresh from the operating system's randomness; by release, cells one after another."""
    return {one: discrete_gaussian(one.size, share_variance(plan, one, shares)) for one in releases(plan)}


def spread_of(plan: QueryPlan, release: Release, shares: int, nodes: int) -> float:
    """Standard deviation of the noise in an answer to which so many nodes added theirs, in encoded integers."""
    return math.sqrt(nodes * share_variance(plan, release, shares))


def limbs_needed(plan: QueryPlan, rows: int, shares: int, nodes: int, limb_bits: int) -> int:
    """In how many limbs each node's largest sum fits, with its noise."""
    most = 1
    for one in releases(plan):
        if isinstance(one.of, FitSum) or (isinstance(one.of, Moment) and not one.of.counts):
            total = max(rows, 1) * one.reach + math.ceil(ROOM * spread_of(plan, one, shares, nodes))
            most = max(most, -(-(total.bit_length() + 2) // limb_bits))
    return most
