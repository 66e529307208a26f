"""The arithmetic of cohorts: how many shares open a round, and so how many nodes may vanish."""

from __future__ import annotations

from typing import Final

from federation.errors import DeniedError
from federation.statements.masking import MASKED_COHORT

MINIMUM_ENTITIES: Final = 3
"""Distinct accepted legal entities whose replies are in any sum, without the requester's and the coordinator's own."""


class CohortError(DeniedError):
    """A cohort is not one whose replies may be masked together."""

    code = "masked-cohort"


def threshold(n: int) -> int:
    """How many of ``n`` nodes it takes to open a round: floor(2n/3) + 1.

    Above half, so that no two sets of nodes can open two sums of one round; and so far above that a coordinator with
    ``2 * threshold - n - 1`` nodes on its side cannot either.
    """
    return 2 * n // 3 + 1


def dropouts(n: int) -> int:
    """How many of ``n`` nodes may vanish in a round that completes all the same."""
    return n - threshold(n)


def check_size(n: int) -> None:
    """Raise unless so many nodes can be masked together.

    Raises:
        CohortError: too few to hide anybody, or more than one graph of masks holds.
    """
    if n < MINIMUM_ENTITIES:
        raise CohortError(
            "{count} nodes are too few for a masked round: it takes {least}",
            hint="plan with more companies' datasets",
            code="min-participants",
            count=n,
            least=MINIMUM_ENTITIES,
        )
    if n > MASKED_COHORT:
        raise CohortError(
            "{count} nodes are more than the {most} whose replies can be masked together",
            hint="plan the job with at most {most} datasets",
            count=n,
            most=MASKED_COHORT,
        )
