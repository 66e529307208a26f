"""A plan as a person reads it before signing, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keyong.cli._output import narrate
from keyong.cli._words import ANCHORINGS, word
from keyong.text import joined, translate

if TYPE_CHECKING:
    from federation.statements import JobPlan, OutputSchema, StageOutput
    from keyong.choosing import Choice


def narrate_agreements(chosen: Sequence[Choice]) -> None:
    """Name the agreements that the plan rests on."""
    from keyong.cli._agreements import short

    narrate("under these agreements:")
    for choice in chosen:
        one = choice.published.description
        narrate(
            "  {id}  {dataset}, {low} to {high} rows"
            if choice.published.online
            else "  {id}  {dataset}, {low} to {high} rows, NOT CONNECTED",
            id=short(choice.holding),
            dataset=f"{one.provider}/{one.dataset}",
            low=one.rows_at_least,
            high=one.rows_at_most,
        )


def narrate_plan(plan: JobPlan) -> None:
    """Say what the plan fixes."""
    from federation.statements import instant_text

    narrate("the plan:")
    narrate("  purpose       {purpose}", purpose=plan.purpose)
    narrate("  actions       {actions}", actions=", ".join(plan.actions))
    narrate("  rounds        {rounds}", rounds=plan.rounds)
    narrate("  code          {code}", code=plan.code)
    narrate("  runtime       {runtime}", runtime=plan.runtime)
    narrate("  participants  {count}, at least {least}", count=len(plan.cohort), least=plan.minimal_participants)
    narrate("  aggregation   {aggregation}", aggregation=plan.aggregation)
    if plan.run_config:
        narrate(
            "  config        {config}",
            config=", ".join(f"{key}={value}" for key, value in sorted(plan.run_config.items())),
        )
    for stage in ("train", "evaluate"):
        if f"fed:{stage}" in plan.actions:
            narrate("  {stage} may return {what}", stage=stage, what=describe_stage(plan.outputs.of(stage)))
    if plan.leak_bits:
        narrate("  leak budget   {bits} bits at most from each node", bits=plan.leak_bits)
    if plan.micro_rho and plan.encoding.noise:
        from federation.privacy import STANDARD, epsilon, rho_text

        narrate(
            "  noise         {times} times the clip of {clip}: rho {rho} of each dataset's privacy budget "
            "(epsilon {epsilon} at delta {delta})",
            rho=rho_text(plan.micro_rho),
            epsilon=f"{epsilon(plan.micro_rho, STANDARD.delta):.2f}",
            delta=STANDARD.delta,
            clip=plan.encoding.clip,
            times=plan.encoding.noise.multiplier,
        )
    elif plan.micro_rho:
        from federation.privacy import rho_text

        narrate("  noise         by the code, as owners approved it: rho {rho}", rho=rho_text(plan.micro_rho))
    else:
        narrate("  noise         none: rho unbounded")
    if plan.slot_seconds:
        narrate("  answers       at the ends of slots of {seconds} s", seconds=plan.slot_seconds)
    if plan.review_seconds:
        narrate("  reviews       each step waits up to {seconds} s for the owners", seconds=plan.review_seconds)
    if plan.anchoring == "committed":
        narrate("  result        used as the nodes record it: no other company vouches for it first")
    else:
        narrate("  result        used once its receipts are {anchoring}", anchoring=word(ANCHORINGS, plan.anchoring))
    narrate("  valid until   {expires}", expires=instant_text(plan.expires))
    if plan.protection == "fed:masked":
        tell_dropouts(len(plan.cohort), plan.minimal_participants)
    warn_unprotected(plan.protection)
    warn_development(plan.tier == "T0")


def tell_dropouts(count: int, minimal: int = 0) -> None:
    """Say beforehand how many of a cohort's nodes may vanish from a masked round.

    Args:
        count: how many there are.
        minimal: how many the plan wants in any case.
    """
    from federation.secagg import dropouts, dropouts_apart, threshold

    least = max(threshold(count), minimal)
    gone, most = min(dropouts(count), count - least), min(dropouts_apart(count), count - least)
    if most > gone:
        narrate(
            "  masked        nobody sees a single reply; of {count} nodes any {gone} may vanish, and up to {most} where no "
            "more than {gone} of them are neighbours; {least} open a round",
            count=count,
            gone=gone,
            most=most,
            least=least,
        )
    elif gone:
        narrate(
            "  masked        nobody sees a single reply; of {count} nodes {gone} may vanish, {least} open a round",
            count=count,
            gone=gone,
            least=least,
        )
    else:
        narrate(
            "  masked        nobody sees a single reply; all {count} nodes must stay: a round survives no dropout",
            count=count,
        )


def warn_unprotected(protection: str) -> None:
    """Say aloud where a result rests on an exception."""
    if protection == "fed:none":
        narrate(
            "  UNPROTECTED: the coordinator and the requester could see single companies' updates; "
            "their agreements permit it in words (fed:none)"
        )


def warn_development(development: object) -> None:
    """Say aloud that a job may run without isolation, and so on made-up data alone."""
    if development:
        narrate(
            "  DEVELOPMENT: nodes may run this job without isolation (T0), on made-up data alone; "
            "its agreements permit it in words"
        )


def describe_stage(stage: StageOutput) -> str:
    """What a reply of one stage may hold, in words."""
    parts = []
    if stage.sent:
        parts.append(translate("the arrays it was sent, as differences"))
    parts += [f"{array.record}/{array.name} {array.dtype}{list(array.shape)}" for array in stage.arrays]
    if stage.metrics:
        parts.append(translate("the metrics {names}", names=", ".join(metric.name for metric in stage.metrics)))
    return joined(parts) or translate("nothing")


def outputs_document(outputs: OutputSchema) -> dict[str, Any]:
    """The schema in the form that ``[tool.keyong.outputs]`` and ``--outputs`` take."""
    document: dict[str, Any] = {}
    for stage in ("train", "evaluate"):
        one = outputs.of(stage)
        arrays: list[Any] = (["sent"] if one.sent else []) + [array.model_dump(mode="json") for array in one.arrays]
        document[stage] = {
            "arrays": "sent" if arrays == ["sent"] else arrays,
            "metrics": [metric.model_dump(mode="json") for metric in one.metrics],
        }
    document["maximal-bytes"] = outputs.maximal_bytes
    return document
