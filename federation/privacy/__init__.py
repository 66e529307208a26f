"""Differential privacy as arithmetic: what noise costs, how costs add up, what they mean as (epsilon, delta).

Zero-concentrated differential privacy (zCDP, Bun and Steinke 2016, arXiv 1605.02065) throughout: costs simply add. They are
counted in whole millionths of rho and always rounded up, because budgets of floating point numbers misfire (OpenDP issues
2131 and 2789). Pure, and the standard library alone; noise itself is drawn in :mod:`federation.noise`.

>>> variance = variance_within(5_000, sensitivity_squared=1)
>>> variance, gaussian_micro_rho(1, variance)
(Fraction(100, 1), 5000)
>>> round(epsilon(500_000, "0.000001"), 2)
5.22
"""

from federation.privacy.accounting import (
    MICRO,
    TRUNCATION_RESERVE,
    delta,
    epsilon,
    exact,
    gaussian_micro_rho,
    half_width,
    rho_text,
    share_of_variance,
    summed_micro_rho,
    variance_within,
)
from federation.privacy.profiles import PROFILES, STANDARD, STRICT, TEST_ONLY, Profile

__all__ = [
    "MICRO",
    "PROFILES",
    "STANDARD",
    "STRICT",
    "TEST_ONLY",
    "TRUNCATION_RESERVE",
    "Profile",
    "delta",
    "epsilon",
    "exact",
    "gaussian_micro_rho",
    "half_width",
    "rho_text",
    "share_of_variance",
    "summed_micro_rho",
    "variance_within",
]
