"""Noise of a plan under differential privacy at the level of a node: how much, what it costs, and adding it.

What one node's whole reply can do to the sum is bounded by the clip; discrete Gaussian noise in the integers of the encoding
hides it, and the masked sum carries the noise of all. Two sums are compared: one with this node's difference, one with zeros
in its place (who takes part is no secret, and neither is that every node weighs the same).

Each node adds ``variance / shares``, where ``shares`` is the least number of survivors less those who may collude (arXiv
2102.06387; a colluder knows its own noise, and one that vanishes added none). Where replies are not masked, each node adds all.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from fractions import Fraction
from typing import Final

import numpy as np

from federation.noise import discrete_gaussian
from federation.privacy import exact, share_of_variance, summed_micro_rho
from federation.secagg.bounds import METRIC_UNITS, NOISE_TAIL, Z32_BITS, Z64_FRACTION, log2_ceil, metric_room
from federation.secagg.cohorts import threshold
from federation.secagg.errors import EncodingError
from federation.secagg.layout import FIRST_METRIC, Layout
from federation.secagg.reply import EncodedReply
from federation.secagg.survivors import SurvivorsError
from federation.statements import Encoding, JobPlan

CLIP_UNITS: Final = 2**18
"""The clip in integers of the encoding. Rounding moves a vector of D elements by at most sqrt(D) / 2 units: at 10^8 elements 2 %
of the clip, which the cost counts."""
_ROUNDING: Final = 1 + Fraction(1, 2**20)
"""More than float64 adds to the norm of a clipped vector of 10^9 elements."""
PLANNED: Final = Fraction(104, 100)
"""Room that a plan leaves above its rounds' costs for the rounding of a model whose size it does not know: its square root is
2 % of the clip, what 10^8 elements take."""


def noise_shares(plan: JobPlan) -> int:
    """How many nodes' noise is certain to be in a sum and unknown to whoever sees it: ``t - (2t - n - 1)`` under masks
    (protocol, parties and adversary), a node's own alone without."""
    return shares_of(len(plan.cohort)) if plan.protection == "fed:masked" else 1


def shares_of(n: int) -> int:
    """How many of so many masked nodes' noise is certain to be in a sum and unknown to whoever sees it.

    Counted as if ``2t - n - 1`` colluded: in a cohort of neighbourhoods, whose `colluders` are fewer, more is certain.
    """
    return n - threshold(n) + 1


def least_left(plan: JobPlan) -> int:
    """How many nodes' replies are in any sum that opens under a plan: ``t`` of the plan's whole cohort where it is masked.

    However few the asker states, and however small an attempt's cohort was announced. Who cuts a cohort down to allies and
    one victim would have the victim's reply by subtraction; and noise is shared out over the plan's cohort, so that a sum over
    fewer carries less than the budget is charged for.
    """
    return threshold(len(plan.cohort)) if plan.protection == "fed:masked" else 0


def check_enough_left(plan: JobPlan, nodes: Collection[str]) -> None:
    """Raise SurvivorsError where these nodes are fewer than open a sum under a plan."""
    if len(nodes) < (least := least_left(plan)):
        raise SurvivorsError(
            "{count} of {all} nodes are left; it takes {need} to open the round",
            hint="plan the job anew with those that are there",
            code="too-few-participants",
            count=len(nodes),
            all=len(plan.cohort),
            need=least,
        )


def noised_encoding(n: int, clip: str, multiplier: str, shares: int) -> Encoding:
    """The encoding of a plan whose replies carry noise.

    Every node weighs 1, for a weight would tell its rows. The scale makes the clip :data:`CLIP_UNITS`, so that in Z_2^32 there
    is room for noise of about a hundred times the clip; beyond, Z_2^64 is taken.

    Args:
        n: size of the cohort.
        clip: L2 bound of one node's difference, a decimal string.
        multiplier: standard deviation of the noise that is certain, in clips.
        shares: see `noise_shares`.
    """
    narrow = Z32_BITS - log2_ceil(n)
    for ring, bits in (("z32", narrow), ("z64", Z64_FRACTION)):
        encoding = Encoding.model_validate(
            {
                "ring": ring,
                "fraction_bits": bits,
                "scale": _decimal(exact(clip) * Fraction(2**bits, CLIP_UNITS)),
                "clip": clip,
                "weight_minimum": 1,
                "weight_maximum": 1,
                "noise": {"multiplier": multiplier},
            }
        )
        if _fits(encoding, n, shares):
            return encoding
    raise EncodingError("noise of {multiplier} times the clip does not fit the encoding", multiplier=multiplier)


def check_noise(plan: JobPlan) -> None:
    """Raise unless a plan's noise is what its statements say it is; asked by every node, which trusts no requester's arithmetic.

    Raises:
        EncodingError: noise without a clip, weights that tell rows, an encoding too coarse for the clip or too narrow for the
            noise, or single replies.
    """
    encoding = plan.encoding
    if plan.query is not None and encoding.noise is not None:
        raise EncodingError("a query's noise stands in the query, not in its encoding")
    if encoding.noise is None:
        return
    if plan.aggregation != "sum":
        raise EncodingError("noise is added to sums; plan the job with aggregation sum")
    if encoding.clip is None or exact(encoding.clip) <= 0 or exact(encoding.noise.multiplier) <= 0:
        raise EncodingError("noise needs an L2 bound on what it is to hide, and a multiplier above 0")
    if (encoding.weight_minimum, encoding.weight_maximum) != (1, 1):
        raise EncodingError("under noise every node weighs the same: a weight would tell its rows")
    if not plan.micro_rho:
        raise EncodingError("the plan has noise and states no privacy budget")
    if _clip_units(encoding) < CLIP_UNITS or not _fits(encoding, len(plan.cohort), noise_shares(plan)):
        raise EncodingError("the noise does not fit the plan's encoding")


def step_micro_rho(plan: JobPlan, layout: Layout) -> int:
    """Cost of one reply of this layout under the plan's noise; of each value exactly what its noise hides.

    Raises:
        EncodingError: the layout holds integer arrays, to which no noise is added.
    """
    encoding = plan.encoding
    if encoding.noise is None:
        return 0
    if layout.wide_size:
        raise EncodingError(
            "integer arrays cannot leave under noise",
            hint="leave out layers that count, such as BatchNorm; GroupNorm or LayerNorm do without",
        )
    shares = noise_shares(plan)
    cost = 0
    if layout.narrow_size:
        rounding = Fraction(math.isqrt(layout.narrow_size) + 1, 2)
        reach = _clip_units(encoding) * _ROUNDING + rounding
        cost += summed_micro_rho(reach**2, _share(encoding, _clip_units(encoding), shares), shares, layout.narrow_size)
    for metric in layout.metrics:
        if Fraction(metric.minimum) != 0 or Fraction(metric.maximum) != 0:
            share = _share(encoding, Fraction(METRIC_UNITS), shares)
            cost += summed_micro_rho(Fraction(METRIC_UNITS + 1) ** 2, share, shares, 1)
    return cost


def add_noise(reply: EncodedReply, encoding: Encoding, layout: Layout, shares: int) -> None:
    """Add this node's share of the noise to every value of an encoded reply, in place, before it is masked."""
    if encoding.noise is None:
        return
    noise = discrete_gaussian(layout.narrow_size, _share(encoding, _clip_units(encoding), shares))
    np.add(reply.narrow, noise.astype(np.int64).view(np.uint64).astype(reply.narrow.dtype), out=reply.narrow)
    own = discrete_gaussian(len(layout.metrics), _share(encoding, Fraction(METRIC_UNITS), shares))
    np.add(reply.totals[FIRST_METRIC:], own.view(np.uint64), out=reply.totals[FIRST_METRIC:])


def multiplier_for(micro_rho: int, releases: int) -> str:
    """The noise multiplier for which so many releases of one vector or metric each cost at most this together."""
    if micro_rho < 1 or releases < 1:
        raise EncodingError("the plan has noise and states no privacy budget")
    # cost = releases * PLANNED / (2 z^2) plus one for each rounding up
    left = max(Fraction(1, 2), Fraction(micro_rho - 2 * releases))
    wanted = releases * PLANNED * 1_000_000 / (2 * left)
    return _decimal(Fraction(math.isqrt(math.ceil(wanted * 10**8)) + 1, 10**4))


def _share(encoding: Encoding, reach: Fraction, shares: int) -> Fraction:
    assert encoding.noise is not None
    return share_of_variance((exact(encoding.noise.multiplier) * reach) ** 2, shares, 0)


def _clip_units(encoding: Encoding) -> Fraction:
    return exact(encoding.clip or "0") * Fraction(2**encoding.fraction_bits) / exact(encoding.scale)


def _fits(encoding: Encoding, n: int, shares: int) -> bool:
    """Whether a sum of clipped replies and their noise stays within what a decoder takes, and a metric's within 64 bits."""
    spread = math.isqrt(math.ceil(n * _share(encoding, _clip_units(encoding), shares))) + 1
    room = 2**encoding.fraction_bits * (threshold(n) if shares > 1 or n < 2 else 1)
    return n * _clip_units(encoding) + NOISE_TAIL * spread <= room and metric_room(encoding, n) < 2**61


def _decimal(value: Fraction) -> str:
    """A fraction whose denominator divides a power of ten, or is rounded up to 18 places, as a decimal string."""
    scaled = math.ceil(value * 10**18)
    whole, rest = divmod(scaled, 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".") if rest else str(whole)
