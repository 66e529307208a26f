"""Actions between two companies: a model's score on the other's rows, the size of a set intersection.

    weights -> coefficients, encrypted -> [node: rows -> moments + noise -> sum, encrypted] -> loss
    keys, blinded by the node -> blinded by the asker, too -> [node: size + noise -> floor, step] -> size, sealed

What comes back says something of one company by its nature. So an agreement names the action and counts its uses, noise is
charged to the same privacy budget as queries and training, and only an aggregate is ever shown. Pure: no data base, no
network, no homomorphic encryption here.

>>> told(IntersectionPlan(column="supplier", least=10, step=5, variance="0", box=Box.fresh().public), 23, 40, 50).size
25
"""

from federation.bilateral.bits import bilateral_bits, bilateral_stage_bits
from federation.bilateral.box import Box, seal
from federation.bilateral.errors import (
    BilateralFailedError,
    BilateralPlanError,
    BilateralVoidError,
    WeightsError,
)
from federation.bilateral.loss import Loss, Score, loss_of, padded, score_of, shift_for
from federation.bilateral.moments import (
    Moments,
    check_score,
    check_subjects,
    moment_count,
    moment_statement,
    noised,
    read_moments,
    scaled,
    score_micro_rho,
    variance_for,
)
from federation.bilateral.size import (
    LEAST_KEYS,
    LEAST_STEP,
    Told,
    check_intersection,
    check_keys,
    intersection_micro_rho,
    size_variance,
    told,
)
from federation.statements.bilateral import IntersectionPlan, ScorePlan

__all__ = [
    "LEAST_KEYS",
    "LEAST_STEP",
    "BilateralFailedError",
    "BilateralPlanError",
    "BilateralVoidError",
    "Box",
    "IntersectionPlan",
    "Loss",
    "Moments",
    "Score",
    "ScorePlan",
    "Told",
    "WeightsError",
    "bilateral_bits",
    "bilateral_stage_bits",
    "check_intersection",
    "check_keys",
    "check_score",
    "check_subjects",
    "intersection_micro_rho",
    "loss_of",
    "moment_count",
    "moment_statement",
    "noised",
    "padded",
    "read_moments",
    "scaled",
    "score_micro_rho",
    "score_of",
    "seal",
    "shift_for",
    "size_variance",
    "told",
    "variance_for",
]
