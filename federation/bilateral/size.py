"""The size of an intersection: its cost, its noise, and what of it is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from federation.bilateral.errors import BilateralPlanError
from federation.noise import discrete_gaussian
from federation.privacy import gaussian_micro_rho, variance_within
from federation.statements.bilateral import MOST_KEYS, IntersectionPlan

LEAST_KEYS: Final = 10
"""Fewest keys of either side, and of an intersection that is told, whatever a plan says."""
LEAST_STEP: Final = 5
"""A size is told in multiples of five at least."""


@dataclass(frozen=True)
class Told:
    """What leaves of a size.

    Attributes:
        size: a multiple of the plan's step; None where it is below the plan's least.
    """

    size: int | None


def check_intersection(plan: IntersectionPlan) -> None:
    """Raise unless a plan's rules are at least this release's own.

    Raises:
        BilateralPlanError: one is weaker.
    """
    if plan.least < LEAST_KEYS or plan.step < LEAST_STEP:
        raise BilateralPlanError(
            "an intersection takes {least} keys on either side and is told in steps of {step} at least",
            code="disclosure-rules",
            least=LEAST_KEYS,
            step=LEAST_STEP,
        )
    if int(plan.variance) > 2**60:
        raise BilateralPlanError("so little budget would take more noise than numbers can hold", code="noise")


def intersection_micro_rho(plan: IntersectionPlan) -> int:
    """Cost of one size; 0 without noise. One privacy unit changes it by as many keys as it has at most."""
    variance = int(plan.variance)
    return gaussian_micro_rho(plan.unit_keys**2, variance) if variance else 0


def size_variance(unit_keys: int, micro_rho: int) -> str:
    """The least variance whose cost is at most so much, as a plan states it."""
    return str(math.ceil(variance_within(micro_rho, unit_keys**2)))


def check_keys(plan: IntersectionPlan, mine: int, theirs: int) -> None:
    """Raise where either side has too few distinct keys, or more than are compared.

    Raises:
        BilateralPlanError: which side it is, is not said: it would tell the asker how many keys the node has.
    """
    if not plan.least <= min(mine, theirs) <= max(mine, theirs) <= MOST_KEYS:
        raise BilateralPlanError("one side has too few keys, or too many", code="too-few-keys")


def told(plan: IntersectionPlan, size: int, mine: int, theirs: int) -> Told:
    """What of a size leaves: with noise, within what is possible, floored, then rounded."""
    variance = int(plan.variance)
    shown = size + (int(discrete_gaussian(1, variance)[0]) if variance else 0)
    shown = min(max(shown, 0), theirs)
    if shown < plan.least:
        return Told(None)
    return Told((shown + plan.step // 2) // plan.step * plan.step)
