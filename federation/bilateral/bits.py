"""How many bits a bilateral action carries out of a node."""

from __future__ import annotations

from federation.secagg import OUTCOME_BITS
from federation.secagg.leak import ATTEMPTS
from federation.statements.bilateral import IntersectionPlan, ScorePlan

FIGURE_BITS = 64


def bilateral_stage_bits(stage: str) -> int:
    """Bits of one step's answer: of a score its sum and its count, of an intersection its size; of the blinded keys,
    which look random without the node's secret, how many they are."""
    return (2 if stage == "score" else 1) * FIGURE_BITS + OUTCOME_BITS


def bilateral_bits(plan: ScorePlan | IntersectionPlan) -> int:
    """Bits of a whole plan, every try of its steps counted."""
    stages = ("score",) if isinstance(plan, ScorePlan) else ("blind", "size")
    return sum(bilateral_stage_bits(stage) - OUTCOME_BITS for stage in stages) + len(stages) * ATTEMPTS * OUTCOME_BITS
