"""What is done to a gated reply before it leaves: clip, encode; later noise and masks."""

from __future__ import annotations

from enterprise_node.output_gate import GatedReply
from federation.errors import DeniedError
from federation.jobs import Content
from federation.secagg import EncodedReply, Layout, clip_difference, encode
from federation.statements import JobPlan
from federation.statements.plan import Stage


def check_available(plan: JobPlan) -> None:
    """Raise unless this node can give the protection that the plan names (invariant 8)."""
    if plan.protection != "fed:none":
        raise DeniedError(
            "the plan asks for {protection}; this node cannot mask updates yet, and nothing stands in for masks",
            hint="agreements that say fed:protection fed:none permit unprotected updates; without one, wait for masks",
            code="protection-unavailable",
            protection=plan.protection,
        )


def protect(
    gated: GatedReply, sent: Content, plan: JobPlan, stage: Stage, weight: int, layout: Layout
) -> EncodedReply | Content:
    """Turn what passed the gate into what leaves, as the plan says.

    Args:
        gated: the reply.
        sent: the broadcast content it answers.
        plan: names aggregation, encoding and protection.
        stage: the step it belongs to; ``layout`` must be that stage's.
        weight: rows of the snapshot.
        layout: where each value goes.

    Returns:
        The encoded reply under ``sum``; the reply itself, its difference clipped, under ``each``.

    Raises:
        DeniedError: the plan asks for masks, which this version cannot make (``protection-unavailable``), or the layout
            is not that of this stage.
        EncodingError: the reply does not fit the plan's encoding.
    """
    check_available(plan)
    if layout != Layout.derive(sent.arrays, plan.outputs.of(stage)):
        raise DeniedError("the layout is not that of this stage", code="protection-layout")
    if plan.aggregation == "sum":
        return encode(gated.content, sent.arrays, layout, plan.encoding, weight, len(plan.cohort))
    if plan.encoding.clip is None:
        return gated.content
    return Content(
        arrays=clip_difference(gated.content.arrays, sent.arrays, layout, plan.encoding.clip),
        metrics=gated.content.metrics,
    )
