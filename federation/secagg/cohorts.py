"""The arithmetic of cohorts: how many nodes and shares open a round, how many may vanish, how many may collude."""

from __future__ import annotations

from typing import Final

from federation.errors import DeniedError
from federation.statements.masking import MASKED_COHORT

MINIMUM_ENTITIES: Final = 3
"""Distinct accepted legal entities whose replies are in any sum, without the requester's and the coordinator's own."""


NEIGHBOURS: Final = 64
"""How many others a node has masks in common with and gives shares to, in cohorts of more than one above that: half of them on
either side of it on a circle. With as many, no larger cohort survives fewer dropouts or colluders than one of 64."""


class CohortError(DeniedError):
    """A cohort is not one whose replies may be masked together."""

    code = "masked-cohort"


def threshold(n: int) -> int:
    """How many of ``n`` nodes it takes to open a round: floor(2n/3) + 1.

    Above half, so that no two sets of nodes can open two sums of one round; and so far above that a coordinator with
    ``2 * threshold - n - 1`` nodes on its side cannot either. A node's shares go to its `neighbourhood`, whose size counts there.
    """
    return 2 * n // 3 + 1


def neighbourhood(n: int) -> int:
    """How many of ``n`` nodes hold the shares of one of them, itself among them: all, or those around it."""
    return min(n, NEIGHBOURS + 1)


def dropouts(n: int) -> int:
    """How many of ``n`` nodes may vanish, whichever they are, in a round that completes all the same.

    In a cohort that is larger than a neighbourhood more may, if they sit apart: see `dropouts_apart`.
    """
    around = neighbourhood(n)
    return min(n - threshold(n), around - threshold(around))


def dropouts_apart(n: int) -> int:
    """How many of ``n`` nodes may vanish at most, evenly spread over the circle.

    Each is in as many neighbourhoods as one has nodes, and none of the ``n`` neighbourhoods may lose more than `dropouts`.
    """
    around = neighbourhood(n)
    return min(n - threshold(n), (around - threshold(around)) * n // around)


def colluders(n: int) -> int:
    """How many of ``n`` nodes, whichever they are, may side with the coordinator without opening anything but the one sum.

    One less where neighbourhoods overlap: so many and those that vanished never cut the survivors' masks in two.
    """
    around = neighbourhood(n)
    return 2 * threshold(around) - around - (1 if around == n else 2)


def check_size(n: int) -> None:
    """Raise unless so many nodes can be masked together.

    Raises:
        CohortError: too few to hide anybody, or more than messages hold.
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
