"""Discrete Gaussian noise of any length, by the sampler that suits it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import UsageError
from federation.noise.table import Keystream, table_gaussian

TABLE_FROM: Final = 100_000
"""Values from which on tables are used: below, OpenDP's exact sampler takes about a second at most."""
LARGEST_VARIANCE: Final = 2**90
"""Beyond it noise would not fit 64 bits with certainty."""


def discrete_gaussian(size: int, variance: Fraction | int) -> NDArray[np.int64]:
    """That many independent values of the discrete Gaussian ``N_Z(0, variance)``, from the operating system's randomness.

    The probability of ``k`` is proportional to ``exp(-k^2 / (2 variance))``. Never from a seed that somebody else could know
    or use twice: noise that can be told is none.

    Raises:
        UsageError: the variance is not positive, or larger than 64 bits hold.
    """
    if not 0 < variance <= LARGEST_VARIANCE:
        raise UsageError("the variance of noise lies above 0 and up to 2^90")
    if size >= TABLE_FROM:
        return table_gaussian(size, Fraction(variance), Keystream.fresh())
    if size == 0:
        return np.empty(0, dtype=np.int64)
    return np.asarray(_measurement(_scale(variance))([0] * size), dtype=np.int64)


def _scale(variance: Fraction | int) -> float:
    """The least float64 whose square is no less than the variance: rounding never takes noise away."""
    scale = math.sqrt(variance)
    while Fraction(scale) ** 2 < variance:
        scale = math.nextafter(scale, math.inf)
    return scale


@functools.lru_cache(maxsize=64)
def _measurement(scale: float) -> Callable[[list[int]], list[int]]:
    import opendp.prelude as dp  # half a second; only who draws noise pays it

    dp.enable_features("contrib")
    # a vector, not a scalar: one call costs as much as ten values. i64, because T=int is i32 and saturates
    space: Any = dp.vector_domain(dp.atom_domain(T="i64"))
    measurement: Callable[[list[int]], list[int]] = dp.m.make_gaussian(space, dp.l2_distance(T=float), scale=scale)
    return measurement
