"""How many bits a job may carry out of a node: the bound that owners approve, agreements limit and receipts state.

Training code can hide data in weights with accuracy intact (Song, Ristenpart, Shmatikov 2017, "Machine Learning Models
that Remember Too Much"). With noise at the gate a vector is a Gaussian channel: where it has n elements, clipped to L2 norm C,
under noise of standard deviation sigma that is certain, at most ``(n/2) log2(1 + C^2 / (n sigma^2))`` bits come through
(Shannon 1949, the power spread evenly). Without noise nothing smaller than the encoded output's full size bounds that: every
vector of an encoded reply under ``sum``, every array and metric as it is under ``each``. On top come the outcomes that a
step can end with, :data:`OUTCOME_BITS` for each time it is tried.
"""

from __future__ import annotations

import math

from federation.secagg.layout import Layout
from federation.secagg.reply import reply_parts
from federation.statements import JobPlan, StageOutput
from federation.statements.plan import Stage

OUTCOME_BITS = 3
"""A step ends in one of at most eight ways that another party can tell apart."""
ATTEMPTS = 3
"""How often one step may be tried at a node."""
MOST_BITS = 2**53 - 1
"""What a statement can hold; a bound above it bounds nothing anyway."""
_METRIC_BITS = 64
_ROUNDED = 1.04
"""What rounding can add to the square of the clip, at 10^8 elements."""
_ITEM_BITS = {"bool": 8, "float16": 16, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16}
_ITEM_BITS |= {"float32": 32, "int32": 32, "uint32": 32, "float64": 64, "int64": 64, "uint64": 64}


def reply_bits(plan: JobPlan, layout: Layout) -> int:
    """Bits of one reply of this layout, as the plan has it encoded."""
    if plan.encoding.noise is not None:
        vector = _channel_bits(plan, layout.narrow_size) if layout.narrow_size else 0.0
        return math.ceil(vector + len(layout.metrics) * _channel_bits(plan, 1))
    if plan.aggregation == "sum":
        return sum(8 * dtype.itemsize * size for _, dtype, size in reply_parts(layout, plan.encoding))
    arrays = sum(_ITEM_BITS[segment.dtype] * segment.size for segment in layout.segments)
    return arrays + _METRIC_BITS * len(layout.metrics)


def _channel_bits(plan: JobPlan, elements: float) -> float:
    """Capacity of one noised vector, or of a metric; what rounding adds to the clip is counted at its most."""
    assert plan.encoding.noise is not None
    ratio = _ROUNDED / float(plan.encoding.noise.multiplier) ** 2
    if math.isinf(elements):
        return ratio / (2 * math.log(2))  # the limit, which no length exceeds
    return elements / 2 * math.log1p(ratio / elements) / math.log(2)


def step_bits(plan: JobPlan, layout: Layout) -> int:
    """Bits of one step that gives a reply of this layout."""
    return reply_bits(plan, layout) + OUTCOME_BITS


def job_bits(plan: JobPlan, train: int, evaluate: int) -> int:
    """Bits of a whole job at one node, from those of a reply of each stage: every round, every evaluation, every try.

    A plan holds at most ``rounds`` trainings and ``2 * rounds + 1`` exchanges in all.
    """
    return bits_of_rounds(
        plan.rounds, train, evaluate, trains="fed:train" in plan.actions, evaluates="fed:evaluate" in plan.actions
    )


def bits_of_rounds(rounds: int, train: int, evaluate: int, *, trains: bool = True, evaluates: bool = True) -> int:
    """The same, of so many rounds of which each stage's reply has so many bits."""
    trainings = rounds if trains else 0
    exchanges = 2 * rounds + 1 if evaluates else trainings
    last = evaluate if evaluates else 0
    return trainings * max(train, last) + (exchanges - trainings) * last + exchanges * ATTEMPTS * OUTCOME_BITS


def widest_reply(layout: Layout) -> int:
    """Bits of one reply of this layout in the wider ring, which no cohort exceeds under ``sum``."""
    return 64 * (layout.narrow_size + layout.wide_size + layout.totals_size)


def worst_bits(plan: JobPlan) -> int:
    """Bits of a whole job as far as the plan alone bounds them: what it states, else what its schema admits.

    Where a stage returns what it was sent, the schema does not say how large that is; then the plan's largest reply counts,
    each of its bytes as the widest that an encoding makes of one.
    """
    bits = plan.leak_bits or job_bits(plan, _worst_reply(plan, "train"), _worst_reply(plan, "evaluate"))
    return min(bits, MOST_BITS)


def _worst_reply(plan: JobPlan, stage: Stage) -> int:
    output: StageOutput = plan.outputs.of(stage)
    if plan.encoding.noise is not None:
        return math.ceil(_channel_bits(plan, math.inf) + (len(output.metrics) + 3) * _channel_bits(plan, 1))
    if not output.sent:
        return reply_bits(plan, Layout.derive({}, output))
    return 64 * plan.outputs.maximal_bytes + _METRIC_BITS * (len(output.metrics) + 3)
