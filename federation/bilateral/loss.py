"""The asker's half of a score: a model's loss as coefficients of second moments, and the figure back from the sum.

Squared error is quadratic in a row as it is. The logistic loss is not; its best quadratic over the margins that the model can
reach stands for it (least squares; the odd part of ``log(1 + exp(-m))`` is ``-m / 2`` exactly), and the largest error of
that is told with the figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from federation.bilateral.errors import BilateralVoidError, WeightsError
from federation.bilateral.moments import GRID, moment_count, places
from federation.privacy import half_width
from federation.statements.bilateral import Range, ScorePlan

MOST_COEFFICIENT: Final = 2.0**10
"""Largest coefficient: above it sums could leave the ciphertext's modulus."""
LEAST_MARGIN: Final = 1.0


@dataclass(frozen=True)
class Loss:
    """A model's loss as the encrypted vector holds it.

    Attributes:
        coefficients: of each moment, in the order of `places`.
        unit: what a loss of 1 in scaled numbers is in the target's own.
        approximation: the largest that the quadratic is off by for one row; 0 where it is exact.
    """

    coefficients: NDArray[np.float64]
    unit: float
    approximation: float


@dataclass(frozen=True)
class Score:
    """What a score says.

    Attributes:
        loss: mean squared error in the target's units squared, or mean logistic loss.
        half_width: the loss lies within so much of the one without noise, with a probability of 0.95.
        rows: how many rows stand behind it, with noise.
        approximation: see `Loss`.
    """

    loss: float
    half_width: float
    rows: float
    approximation: float


def loss_of(plan: ScorePlan, weights: Mapping[str, float], intercept: float) -> Loss:
    """The coefficients of a model's loss.

    Raises:
        WeightsError: a weight is missing, too many, not finite, or beyond what can be scored.
    """
    names = [one.column for one in plan.features]
    if set(weights) != set(names) or not all(math.isfinite(value) for value in [*weights.values(), intercept]):
        raise WeightsError("a model has one finite weight for each of its features, and an intercept")
    centres = [_centre(one) for one in plan.features]
    slopes = [weights[name] * half for name, (_, half) in zip(names, centres, strict=True)]
    constant = intercept + sum(weights[name] * middle for name, (middle, _) in zip(names, centres, strict=True))
    if plan.model == "linear":
        middle, half = _centre(plan.target)
        row = np.array([constant - middle, *slopes, -half]) / half
        matrix, unit, off = np.outer(row, row), half * half, 0.0
    else:
        matrix, off = _logistic(np.array([constant, *slopes]))
        unit = 1.0
    doubled = [(1 if one == two else 2) * matrix[one, two] for one, two in places(plan)]
    coefficients = np.array(doubled, dtype=np.float64)
    if float(np.abs(coefficients).max()) > MOST_COEFFICIENT:
        raise WeightsError(
            "the model's predictions reach too far beyond its target's range",
            hint="look at its weights and the ranges of the columns (`keyong catalog show`)",
        )
    return Loss(coefficients, unit, off)


def _logistic(row: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The quadratic form, over (1, x, y), of the logistic loss of a margin ``y (row . (1, x))`` with y of -1 or 1."""
    farthest = max(LEAST_MARGIN, float(np.abs(row).sum()))
    margins = np.linspace(0.0, farthest, 2001)
    even = np.logaddexp(margins / 2, -margins / 2)
    basis = np.stack([np.ones_like(margins), margins**2], axis=1)
    (base, square), *_ = np.linalg.lstsq(basis, even, rcond=None)
    off = float(np.abs(basis @ np.array([base, square]) - even).max())
    size = len(row) + 1
    matrix = np.zeros((size, size))
    matrix[:-1, :-1] = square * np.outer(row, row)
    matrix[0, 0] += base
    matrix[:-1, -1] -= row / 4
    matrix[-1, :-1] -= row / 4
    return matrix, off


def score_of(plan: ScorePlan, loss: Loss, total: float, count: float) -> Score:
    """The figure from the decrypted sum and the decrypted count, both in scaled moments.

    Raises:
        BilateralVoidError: they are no numbers, or no rows are left under the noise.
    """
    variance = int(plan.variance)
    one = float(GRID * GRID) * 2.0**plan.shift
    if not (math.isfinite(total) and math.isfinite(count)) or count * one < GRID * GRID:
        raise BilateralVoidError("the noise left no rows to divide by; ask with a larger budget")
    mean = total / count
    spread = 0.0
    for at, (row, column) in enumerate(places(plan)):
        weight = float(loss.coefficients[at]) - (mean if at == 0 else 0.0)  # the count is the first of the moments
        spread += weight**2 * variance * (1.0 if row == column else 0.5)
    wide = half_width(int(spread) + 1) / (count * one) if variance else 0.0
    return Score(mean * loss.unit, wide * loss.unit, count * 2.0**plan.shift, loss.approximation)


def shift_for(rows_at_most: int) -> int:
    """The power of two that brings the moments of so many rows to about 1."""
    return max(0, math.ceil(math.log2(max(1, rows_at_most))))


def _centre(one: Range) -> tuple[float, float]:
    low, high = float(one.minimum), float(one.maximum)
    return (low + high) / 2, (high - low) / 2


def padded(plan: ScorePlan, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A vector of moments or coefficients with zeros up to the next power of two."""
    size = 1 << (moment_count(plan) - 1).bit_length()
    return np.concatenate([values, np.zeros(size - len(values))])
