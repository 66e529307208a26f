"""Logistic regression under noise: the steps that the asker takes, from noisy sums alone.

Newton's method. For each row the features are scaled to ``z = (1, u_1, ..., u_k) / sqrt(k + 1)`` with every ``u`` in [-1, 1]
by the column's declared bounds, so ``|z| <= 1`` whatever a row holds; with ``p = 1 / (1 + exp(-b z))`` the nodes sum

- the gradient ``(p - y) z``, at most 1 a row in the L2 norm for ``y`` in [0, 1], and
- the curvature ``p (1 - p) z z'``, its upper triangle, at most 1/4 a row,

each under noise of its own (`federation.query.noising`). A step's coefficients ``b`` are in its plan: they follow from earlier
noisy sums, so they say nothing beyond them. From a step follows the estimate ``b - H^-1 g``, whose error is mostly
``H^-1`` times the noise of this ``g``, however ``b`` was found; the answer is the mean of the estimates of the later half of the
steps, and their noise gives its interval. Nothing here is charged: it sees no row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.query.errors import QueryVoidError
from federation.query.figures import Answer, Cell
from federation.query.intervals import WIDE, Interval, Logistic
from federation.query.layout import FitSum, VectorLayout, range_of
from federation.query.noising import FIT_BITS, releases, share_variance, spread_of
from federation.query.ring import from_limbs
from federation.query.schema import LARGEST_NORM
from federation.statements import JobPlan
from federation.statements.query import QueryPlan

SETTLED = 0.01
"""By how much logits may move from the first estimate that counts to the last, where noise does not account for it."""
LONGEST = 10.0
"""Of one step: logits move by no more."""
DIGITS = 6
"""After the point, of the coefficients in a plan."""
USUAL = 9
"""Times `drowned_rows`: what a column takes whose bounds lie three standard deviations from its middle, for its rows bend a sum a
ninth as much as rows at the bounds do."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StepSums:
    """What one step opened.

    Attributes:
        gradient: k + 1 numbers; curvature: (k + 1, k + 1), symmetric.
        variances: of the noise in each element of either.
    """

    at: Floats
    gradient: Floats
    curvature: Floats
    variances: tuple[float, float]
    contributing: int
    nodes: int


def is_fit(plan: QueryPlan) -> bool:
    """Whether a plan is a step of a logistic regression."""
    return any(one.kind == "logistic" for one in plan.measures)


def steps_of(plan: QueryPlan) -> int:
    """How many plans a question takes: the steps of a logistic regression, else 1."""
    fit = plan.measures[0].fit
    return fit.steps if fit is not None else 1


def micro_rho_left(plan: JobPlan) -> int:
    """What a plan costs and, where it asks a step of a logistic regression, the steps after it.

    A node takes the first of them only where its budget has room for all: one that ends half-way has spent and not answered.
    """
    fit = plan.query.measures[0].fit if plan.query is not None else None
    return plan.micro_rho * (fit.steps - fit.step + 1 if fit is not None else 1)


def drowned_rows(plan: QueryPlan, nodes: int, shares: int) -> int:
    """So many rows of all nodes together, or fewer, lie below the noise of a step: there will be no figure. A bound that
    follows from the plan alone; what the columns hold decides how many more it takes (`USUAL`).

    The curvature's eigenvalues add up to a quarter of the rows at most, so the least of k + 1 is no larger than
    ``rows / (4 (k + 1))``; the answer needs it above ``2 sigma sqrt(k + 1)`` in each later step (`_inverse`). At the bound
    itself noise would have to lift all of them at once, which it does in one answer of a thousand.
    """
    terms = VectorLayout.of(plan).terms
    (bend,) = (one for one in releases(plan) if one.of is FitSum.CURVATURE)
    sigma = spread_of(plan, bend, shares, nodes) / (1 << FIT_BITS)
    return math.floor(8 * terms * math.sqrt(terms) * sigma)


def read_step(plan: QueryPlan, vector: Sequence[int], nodes: int, shares: int) -> StepSums:
    """The sums of an opened step.

    Args:
        vector: elements of Z_t.
        nodes: whose vectors were added, as the receipts say.
        shares: of how many shares each node's noise was reckoned.

    Raises:
        QueryVoidError: it is not the sum of so many honest nodes' vectors.
    """
    layout = VectorLayout.of(plan)
    fit = plan.measures[0].fit
    if fit is None or len(vector) < layout.size or vector[0] != nodes or not 0 <= vector[layout.cell(0)] <= nodes:
        raise QueryVoidError("the answer does not open to {count} nodes; it is void", count=nodes)
    contributing = int(vector[layout.cell(0)])
    told: dict[FitSum, Floats] = {}
    for part in FitSum:
        start, stop = layout.fit(part)
        limbs = [[int(one) for one in vector[at : at + plan.limbs]] for at in range(start, stop, plan.limbs)]
        told[part] = np.array([from_limbs(one, nodes) for one in limbs], dtype=np.float64) / (1 << FIT_BITS)
    curvature = np.zeros((layout.terms, layout.terms))
    curvature[np.triu_indices(layout.terms)] = told[FitSum.CURVATURE]
    curvature = np.triu(curvature) + np.triu(curvature, 1).T
    gradient, bend = (
        float(nodes * share_variance(plan, one, shares)) / (1 << FIT_BITS) ** 2
        for one in releases(plan)
        if isinstance(one.of, FitSum)
    )
    at = np.array([float(one) for one in fit.at])
    return StepSums(at, told[FitSum.GRADIENT], curvature, (gradient, bend), contributing, nodes)


class Descent:
    """The steps of one logistic regression, one after another.

    Args:
        first: the plan of the first step.
    """

    def __init__(self, first: QueryPlan) -> None:
        self._first = first
        self._steps = steps_of(first)
        self._taken: list[StepSums] = []
        self._estimates: list[Floats] = []

    def plan(self) -> QueryPlan | None:
        """The next step's plan; None after the last."""
        done = len(self._taken)
        if done == self._steps:
            return None
        (measure,) = self._first.measures
        assert measure.fit is not None
        at = self._next() if done else np.zeros(len(measure.columns))
        told = tuple(f"{one:.{DIGITS}f}" if round(one, DIGITS) else "0" for one in at)
        fit = measure.fit.model_copy(update={"step": done + 1, "at": told})
        return self._first.model_copy(update={"measures": (measure.model_copy(update={"fit": fit}),)})

    def take(self, sums: StepSums) -> None:
        """The sums of the plan that came last."""
        self._taken.append(sums)
        inverse, _ = _inverse(sums)
        self._estimates.append(sums.at - inverse @ sums.gradient)

    def answer(self) -> Answer:
        """The table, after the last step."""
        (measure,) = self._first.measures
        last = self._taken[-1]
        known = all(_inverse(one)[1] for one in self._taken[self._early :]) and self._settled()
        value = self._value() if known else None
        intervals = self._intervals() if known else (None,)
        cell = Cell((), last.contributing, {measure.name: value}, {}, {measure.name: intervals})
        return Answer((cell,), last.nodes)

    @property
    def _early(self) -> int:
        """Steps that only lead to the others."""
        return self._steps // 2

    def _settled(self) -> bool:
        """Whether the estimates that count are of one value, as far as noise and rounding tell."""
        first, last = self._taken[self._early], self._taken[-1]
        moved = self._estimates[-1] - self._estimates[self._early]
        noise = [float(np.linalg.norm(_inverse(one)[0], 2) ** 2) * one.variances[0] for one in (first, last)]
        allowed = max(SETTLED, 5 * float(np.sqrt(len(moved) * sum(noise))))
        return float(np.linalg.norm(moved)) <= allowed

    def _next(self) -> Floats:
        last, early = self._taken[-1], self._early
        found = self._estimates[-1] if len(self._taken) <= early else np.mean(self._estimates[early:], axis=0)
        step = found - last.at
        step *= min(1.0, LONGEST / max(float(np.linalg.norm(step)), 1e-12))
        found = last.at + step
        found *= min(1.0, (LARGEST_NORM - 1) / max(float(np.linalg.norm(found)), 1e-12))
        return np.asarray(found, dtype=np.float64)

    def _mean(self) -> Floats:
        return np.asarray(np.mean(self._estimates[self._early :], axis=0), dtype=np.float64)

    def _value(self) -> Logistic:
        found = self._scale() @ self._mean()
        return Logistic(tuple(float(one) for one in found), round(self._rows()))

    def _rows(self) -> float:
        """Every row adds 1 / (4 (k + 1)) to the curvature of the intercept where all coefficients are 0, as they are first."""
        first = self._taken[0]
        return float(4 * len(first.at) * first.curvature[0, 0])

    def _intervals(self) -> tuple[Interval, ...]:
        """Of each coefficient, then of the rows."""
        mean, late = self._mean(), self._taken[self._early :]
        spread = np.zeros((len(mean), len(mean)))
        for one in late:
            inverse, _ = _inverse(one)
            # the curvature's noise counts as far as the step's coefficients were from the answer
            away = one.variances[1] * float(np.sum((one.at - mean) ** 2))
            spread += inverse @ inverse.T * (one.variances[0] + away) / len(late) ** 2
        scale = self._scale()
        middle = scale @ mean
        half = WIDE * np.sqrt(np.diag(scale @ spread @ scale.T))
        ends: list[Interval] = [(float(m - h), float(m + h)) for m, h in zip(middle, half, strict=True)]
        rows, width = self._rows(), WIDE * 4 * len(mean) * self._taken[0].variances[1] ** 0.5
        return (*ends, (rows - width, rows + width))

    def _scale(self) -> Floats:
        """What leads from coefficients of scaled values to those of the columns' own."""
        (measure,) = self._first.measures
        terms = len(measure.columns)
        found = np.zeros((terms, terms))
        found[0, 0] = 1.0
        for at, name in enumerate(measure.columns[1:], 1):
            low, high = (float(edge) for edge in range_of(self._first, name))
            found[at, at] = 2 / (high - low)
            found[0, at] = -(low + high) / (high - low)
        return np.asarray(found / np.sqrt(terms), dtype=np.float64)


def _inverse(sums: StepSums) -> tuple[Floats, bool]:
    """The curvature's inverse, and whether it is above its own noise in every direction.

    Where it is not, it counts as large as that noise (``2 sigma sqrt(k + 1)``, the largest eigenvalue of noise alone).
    """
    values, vectors = np.linalg.eigh(sums.curvature)
    least = 2 * float(np.sqrt(sums.variances[1] * len(values)))
    inverse = (vectors / np.maximum(values, least)) @ vectors.T
    return np.asarray(inverse, dtype=np.float64), bool(values[0] > least)
