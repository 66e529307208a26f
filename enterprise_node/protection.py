"""What is done to a gated reply before it leaves: clip, encode, noise, mask."""

from __future__ import annotations

from collections.abc import Sequence

from enterprise_node.output_gate import GatedReply
from federation.errors import DeniedError
from federation.jobs import Content
from federation.secagg import (
    MINIMUM_ENTITIES,
    EncodedReply,
    Layout,
    MaskKey,
    add_noise,
    check_noise,
    check_size,
    clip_difference,
    encode,
    noise_shares,
    step_micro_rho,
)
from federation.statements import JobPlan
from federation.statements.plan import Stage


def check_available(plan: JobPlan) -> None:
    """Raise unless this node can give the protection that the plan names (invariant 8)."""
    if plan.protection == "fed:masked":
        check_size(len(plan.cohort))
    check_noise(plan)


def protect(
    gated: GatedReply,
    sent: Content,
    plan: JobPlan,
    stage: Stage,
    weight: int,
    layout: Layout,
    masks: Sequence[MaskKey] = (),
) -> EncodedReply | Content:
    """Turn what passed the gate into what leaves, as the plan says.

    Args:
        gated: the reply.
        sent: the broadcast content it answers.
        plan: names aggregation, encoding and protection.
        stage: the step it belongs to; ``layout`` must be that stage's.
        weight: rows of the snapshot.
        layout: where each value goes.
        masks: of this node's vector in this round, under ``fed:masked``.

    Returns:
        The encoded, and masked, reply under ``sum``; the reply itself, its difference clipped, under ``each``.

    Raises:
        DeniedError: the plan asks for masks and there are none (``protection-unavailable``), or the layout is not that of
            this stage.
        EncodingError: the reply does not fit the plan's encoding.
    """
    masked = plan.protection != "fed:none"
    # of two nodes in common and its own: one of them alone hides nothing
    if masked and (plan.aggregation != "sum" or len(masks) < MINIMUM_ENTITIES):
        raise DeniedError(
            "the plan asks for {protection}, and there are no masks for this reply; nothing stands in for them",
            code="protection-unavailable",
            protection=plan.protection,
        )
    if layout != Layout.derive(sent.arrays, plan.outputs.of(stage)):
        raise DeniedError("the layout is not that of this stage", code="protection-layout")
    if plan.aggregation == "sum":
        counted = weight if plan.encoding.noise is None else 1
        encoded = encode(gated.content, sent.arrays, layout, plan.encoding, counted, len(plan.cohort))
        if plan.encoding.noise is not None:
            step_micro_rho(plan, layout)  # raises where the layout has a value to which no noise is added
            add_noise(encoded, plan.encoding, layout, noise_shares(plan))
        if masked:
            encoded.mask(masks)
        return encoded
    if plan.encoding.clip is None:
        return gated.content
    return Content(
        arrays=clip_difference(gated.content.arrays, sent.arrays, layout, plan.encoding.clip),
        metrics=gated.content.metrics,
    )
