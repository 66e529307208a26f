"""What Gaussian noise costs in zCDP, and what a cost means as (epsilon, delta).

A cost is an integer number of *micro-rho*, millionths of rho, rounded up; costs of several releases about the same rows add.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from statistics import NormalDist
from typing import Final

from federation.errors import UsageError

MICRO: Final = 1_000_000
"""Micro-rho in one rho."""
TRUNCATION_RESERVE: Final = 2.0**-40
"""Taken off every delta for what drawing noise from tables leaves out (:data:`federation.noise.TABLE_DISTANCE`): enough for
2^52 values at an epsilon of 12."""
Number = Fraction | int
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def exact(text: str | Number) -> Fraction:
    """A decimal string or an exact number as a fraction; floating point is not taken.

    Raises:
        UsageError: it is none, or not finite.
    """
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError("{text} is not a number", text=str(text)[:40]) from None


def gaussian_micro_rho(sensitivity_squared: Number, variance: Number) -> int:
    """Cost of one answer with discrete Gaussian noise: ``sensitivity^2 / (2 variance)``, rounded up.

    Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), theorem 4: the discrete Gaussian costs what the continuous one does.

    Args:
        sensitivity_squared: the square of how far one privacy unit can move the integer answer, in the L2 norm.
        variance: parameter of the noise added to each coordinate, in the same integer units squared.

    Raises:
        UsageError: no noise, or a negative sensitivity.
    """
    if variance <= 0 or sensitivity_squared < 0:
        raise UsageError("a cost needs noise of positive variance and a sensitivity that is not negative")
    return math.ceil(Fraction(sensitivity_squared) * MICRO / (2 * Fraction(variance)))


def summed_micro_rho(sensitivity_squared: Number, share_variance: Number, shares: int, dimension: int) -> int:
    """Cost of a sum to which several parties each added discrete Gaussian noise of their own.

    A sum of discrete Gaussians is not quite one. Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), proposition 14: with
    ``tau = 10 * sum_(k=1)^(n-1) exp(-2 pi^2 s^2 k / (k + 1))`` it is ``eps^2/2``-zCDP for
    ``eps^2 = sensitivity^2 / (n s^2) + tau d / 2``.

    Args:
        share_variance: ``s^2``, of each party's noise; at least 1/4, as the proposition asks.
        shares: ``n``, how many parties' noise is certain to be in the sum and unknown to whoever sees it.
        dimension: ``d``, how many coordinates.
    """
    if shares < 1 or dimension < 1 or share_variance < Fraction(1, 4):
        raise UsageError("a sum needs at least one share of noise, each of variance 1/4 or more")
    ideal = gaussian_micro_rho(sensitivity_squared, shares * Fraction(share_variance))
    spread = 2 * math.pi**2 * float(share_variance)
    tau = 10 * math.fsum(math.exp(-spread * k / (k + 1)) for k in range(1, shares))
    # eps^2 / 2 of the second term; scaled up by more than float64 can have rounded off
    extra = tau * dimension / 4 * MICRO * (1 + 1e-9)
    return ideal + (math.ceil(extra) if extra > 1e-6 else 0)


def variance_within(micro_rho: int, sensitivity_squared: Number) -> Fraction:
    """The least variance whose cost is at most so much.

    Raises:
        UsageError: no budget to spend.
    """
    if micro_rho < 1:
        raise UsageError("noise for a cost of nothing would have to be infinite")
    return Fraction(sensitivity_squared) * MICRO / (2 * micro_rho)


def share_of_variance(variance: Number, survivors: int, colluders: int) -> Fraction:
    """What each party adds so that ``variance`` is there whoever vanishes and whoever colludes.

    Args:
        survivors: the least number of parties whose sum is ever opened.
        colluders: how many of them may tell their noise to whoever sees the sum.
    """
    if survivors <= colluders or colluders < 0:
        raise UsageError("of {survivors} parties {colluders} may collude: no noise is certain", survivors=survivors,
                         colluders=colluders)  # fmt: skip
    return Fraction(variance) / (survivors - colluders)


def epsilon(micro_rho: int, at_delta: str) -> float:
    """The least epsilon for which a cost is (epsilon, delta)-DP.

    Canonne, Kamath, Steinke 2020, proposition 12, minimised over its order alpha; every alpha gives a valid bound, so that
    the search need not be perfect.

    Args:
        at_delta: decimal string; the probability that the bound does not hold, :data:`TRUNCATION_RESERVE` included.
    """
    left = float(exact(at_delta)) - TRUNCATION_RESERVE
    if not 0 < left < 1 - TRUNCATION_RESERVE:
        raise UsageError("delta lies between {least} and 1", least=f"{TRUNCATION_RESERVE:.0e}")
    if micro_rho == 0:
        return 0.0
    rho, log_delta = micro_rho / MICRO, math.log(left)

    def bound(above: float) -> float:
        alpha = 1 + above
        return rho * alpha + math.log1p(-1 / alpha) - (log_delta + math.log(alpha)) / above

    return max(0.0, _least(bound))


def delta(micro_rho: int, at_epsilon: float) -> float:
    """The least delta for which a cost is (epsilon, delta)-DP; the same proposition the other way round."""
    rho = micro_rho / MICRO

    def bound(above: float) -> float:
        alpha = 1 + above
        return above * (alpha * rho - at_epsilon) + alpha * math.log1p(-1 / alpha) - math.log(above)

    return min(1.0, math.exp(min(0.0, _least(bound))) + TRUNCATION_RESERVE) if micro_rho else 0.0


def half_width(variance: Number, confidence: float = 0.95) -> float:
    """How far an answer lies from the truth with this probability at most, in the units of the noise.

    By the normal approximation and half a unit for whole numbers, which from a variance of 1 on is no narrower than the
    discrete Gaussian's own interval.
    """
    return NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance) + 0.5


def rho_text(micro_rho: int) -> str:
    """Micro-rho as a decimal of rho, without trailing zeros: ``0.005``."""
    whole, rest = divmod(micro_rho, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".") if rest else str(whole)


def _least(bound: Callable[[float], float]) -> float:
    """The least value of a function of ``alpha - 1`` over 1e-6 to 1e9, which falls and then rises."""
    low, high = math.log(1e-6), math.log(1e9)
    for _ in range(200):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if bound(math.exp(left)) < bound(math.exp(right)):
            high = right
        else:
            low = left
    return bound(math.exp((low + high) / 2))
