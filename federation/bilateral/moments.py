"""Second moments of a node's rows under noise: all that a score is made of, and all that it can ever learn.

A row is ``z = (1, x, y)``: its features and its target, clamped to the plan's ranges, scaled to -1 to 1, shrunk to the plan's L2
bound and rounded to whole numbers of 1/:data:`GRID`. The node adds up ``z z^T`` over its rows and adds discrete Gaussian noise to
every entry, in the clear, before any weight meets it. A loss that is quadratic in a row is then one linear function of these
moments, whose coefficients come encrypted.

So a node need not know the weights to bound what they learn: whatever they are, and however large, the answer is computed
from moments that are zCDP already (the functional mechanism of Zhang et al. 2012, arXiv 1208.0219, and Dwork et al. 2014,
"Analyze Gauss"). Its noise grows with the weights by itself. With ``B`` the square of the L2 bound, in whole numbers, and ``m``
rows of a privacy unit, two neighbouring tables differ by at most ``m B`` in the Frobenius norm; squared moments carry variance
``v``, products of two columns, which stand twice in the matrix, ``v / 2``: the cost is ``(m B)^2 / (2 v)`` exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.bilateral.errors import BilateralFailedError, BilateralPlanError
from federation.noise import discrete_gaussian
from federation.privacy import exact, gaussian_micro_rho, variance_within
from federation.query import name_of
from federation.statements.bilateral import Range, ScorePlan

GRID: Final = 1024
"""Whole numbers to 1: a row is rounded by 1/2048 at most."""
_SLACK: Final = 1 + Fraction(1, 2**20)
"""More than float64 adds to the norm of a row of 26 numbers."""
MOST_VARIANCE: Final = 2**88
LEAST_SUBJECTS: Final = 10
MOST_PARAMETERS: Final = Fraction(33, 100)
"""Coefficients of the model to rows, as for a regression."""


@dataclass(frozen=True)
class Moments:
    """What the engine found: the entries of the matrix, upper triangle, row by row.

    Attributes:
        rows: in which every column has a value.
        subjects: distinct privacy units among them.
    """

    rows: int
    subjects: int
    sums: tuple[int, ...]


def places(plan: ScorePlan) -> Iterator[tuple[int, int]]:
    """The entries of the moments in their order: 0 is the constant, then the features, then the target."""
    size = len(plan.columns) + 1
    return ((row, column) for row in range(size) for column in range(row, size))


def moment_count(plan: ScorePlan) -> int:
    """How many entries there are."""
    size = len(plan.columns) + 1
    return size * (size + 1) // 2


def reach(plan: ScorePlan) -> Fraction:
    """The most that one privacy unit changes the moments by: Frobenius norm, in squared whole numbers."""
    rounding = Fraction(math.isqrt(len(plan.columns) + 1) + 1, 2)
    return plan.unit_rows * (exact(plan.clip) * GRID * _SLACK + rounding) ** 2


def score_micro_rho(plan: ScorePlan) -> int:
    """Cost of one score; 0 without noise."""
    variance = int(plan.variance)
    return gaussian_micro_rho(reach(plan) ** 2, variance) if variance else 0


def variance_for(plan: ScorePlan, micro_rho: int) -> str:
    """The least variance whose cost is at most so much, as a plan states it."""
    return str(math.ceil(variance_within(micro_rho, reach(plan) ** 2)))


def check_score(plan: ScorePlan) -> None:
    """Raise unless the numbers of a plan are ones that a node can compute with.

    Raises:
        BilateralPlanError: no L2 bound to speak of, or noise beyond 64 bits.
    """
    if not 1 <= exact(plan.clip) <= 6:
        raise BilateralPlanError("the L2 bound of a row lies between 1 and 6")
    if int(plan.variance) > MOST_VARIANCE:
        raise BilateralPlanError("so little budget would take more noise than numbers can hold", code="noise")


def moment_statement(plan: ScorePlan, unit: str) -> str:
    """The one statement that the engine is asked.

    Args:
        unit: column of the privacy unit; empty where each row is one.
    """
    names = [name_of(one.column) for one in plan.columns]
    held = " AND ".join(f"{name} IS NOT NULL AND isfinite(CAST({name} AS DOUBLE))" for name in names)
    scaled = [f"{_scaled(one)} AS x{at}" for at, one in enumerate(plan.columns, start=1)]
    subject = f"{name_of(unit)} AS unit" if unit else "NULL AS unit"
    squares = " + ".join(["1.0", *(f"x{at} * x{at}" for at in range(1, len(names) + 1))])
    shrunk = f"least(CAST(1.0 AS DOUBLE), CAST('{plan.clip}' AS DOUBLE) / sqrt({squares})) AS f"
    whole = [f"CAST(round(f * {GRID}) AS BIGINT) AS z0"]
    whole += [f"CAST(round(f * x{at} * {GRID}) AS BIGINT) AS z{at}" for at in range(1, len(names) + 1)]
    sums = [f"coalesce(sum(CAST(z{one} AS HUGEINT) * z{two}), 0)" for one, two in places(plan)]
    subjects = "count(DISTINCT unit)" if unit else "count(*)"
    return (
        f"WITH held AS (SELECT {', '.join([*scaled, subject])} FROM data WHERE {held}), "  # noqa: S608
        f"bounded AS (SELECT *, {shrunk} FROM held), whole AS (SELECT unit, {', '.join(whole)} FROM bounded) "
        f"SELECT count(*), {subjects}, {', '.join(sums)} FROM whole"
    )


def _scaled(one: Range) -> str:
    low, high = Decimal(one.minimum), Decimal(one.maximum)
    middle, half = (low + high) / 2, (high - low) / 2
    value = f"CAST({name_of(one.column)} AS DOUBLE)"
    clamped = f"least(greatest({value}, CAST('{low}' AS DOUBLE)), CAST('{high}' AS DOUBLE))"
    # a float of the middle may let a value lie beyond 1 by its last bit
    inner = f"({clamped} - CAST('{middle}' AS DOUBLE)) / CAST('{half}' AS DOUBLE)"
    return f"least(greatest({inner}, CAST(-1.0 AS DOUBLE)), CAST(1.0 AS DOUBLE))"


def read_moments(plan: ScorePlan, rows: Sequence[Sequence[Any]]) -> Moments:
    """The engine's one row.

    Raises:
        BilateralFailedError: it is not of the statement.
    """
    count = moment_count(plan)
    if len(rows) != 1 or len(rows[0]) != 2 + count:
        raise BilateralFailedError("the engine's answer is not of its statement", code="query-engine")
    try:
        found = [int(value) for value in rows[0]]
    except (TypeError, ValueError):
        raise BilateralFailedError("the engine's answer is not of its statement", code="query-engine") from None
    return Moments(found[0], found[1], tuple(found[2:]))


def check_subjects(plan: ScorePlan, found: Moments) -> None:
    """Raise where too few stand behind a score.

    Raises:
        BilateralPlanError: fewer distinct subjects, or rows for each coefficient, than any aggregate takes.
    """
    parameters = len(plan.features) + 1
    if found.subjects < LEAST_SUBJECTS or parameters > MOST_PARAMETERS * found.rows:
        raise BilateralPlanError("too few rows or subjects stand behind this score", code="too-few-subjects")


def noised(plan: ScorePlan, found: Moments) -> list[int]:
    """The moments with their noise, in whole numbers; nothing else of a table goes on from here."""
    variance = int(plan.variance)
    if not variance:
        return list(found.sums)
    squared = [one == two for one, two in places(plan)]
    own = iter(discrete_gaussian(sum(squared), variance).tolist())
    mixed = iter(discrete_gaussian(len(squared) - sum(squared), Fraction(variance, 2)).tolist())
    return [value + next(own if square else mixed) for value, square in zip(found.sums, squared, strict=True)]


def scaled(plan: ScorePlan, values: Sequence[int]) -> NDArray[np.float64]:
    """Moments as the encrypted coefficients meet them: about 1."""
    return np.array([Fraction(value, GRID * GRID << plan.shift) for value in values], dtype=np.float64)
