"""From chosen datasets, an app and a purpose to a plan that can be shown, signed and run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from federation.errors import DeniedError, UsageError
from federation.home import Home, now
from federation.policy import Demands, demanded_tier, demands, parse_policy
from federation.privacy import MICRO, exact
from federation.secagg import (
    MINIMUM_ENTITIES,
    Arrays,
    Layout,
    check_noise,
    check_size,
    choose_encoding,
    job_bits,
    multiplier_for,
    noise_shares,
    noised_encoding,
    reply_bits,
    threshold,
)
from federation.statements import (
    Anchoring,
    JobPlan,
    OutputSchema,
    PlannedDataset,
    Roster,
)
from federation.statements.code import CodeBundle
from federation.statements.plan import Action, Aggregation, Protection
from federation.witnessing import eligible
from keyong.choosing import Choice, protection_of

PLAN_VALIDITY = timedelta(days=7)
REVIEW_SECONDS = 86400
"""How long a step waits for owners who look at outputs, unless the requester says otherwise."""
ROUNDS_KEY = "num-server-rounds"


def attainable(roster: Roster, nodes: Sequence[str]) -> Anchoring:
    """``witnessed``; where the roster names no other company that could vouch for one of these nodes, ``committed``."""
    return "witnessed" if all(eligible(roster, node) for node in nodes) else "committed"


def make_plan(
    home: Home,
    chosen: Sequence[Choice],
    *,
    bundle: CodeBundle,
    runtime: str,
    purpose: str,
    actions: Sequence[Action],
    run_config: Mapping[str, Any],
    rounds: int,
    outputs: OutputSchema,
    aggregation: Aggregation = "sum",
    scale: str = "8",
    clip: str | None = None,
    minimal_participants: int | None = None,
    round_seconds: int = 3600,
    memory_bytes: int = 4 * 2**30,
    sent: Mapping[str, Arrays] | None = None,
    review_seconds: int | None = None,
    anchoring: Anchoring | None = None,
    rho: str | None = None,
    code_rho: str | None = None,
) -> JobPlan:
    """The plan, unsigned: everything fixed, nothing hidden.

    Args:
        sent: the arrays that a trial sent, by stage: with them the plan states how many bits leave each node.
        rho: privacy budget that the whole job takes of each dataset, a decimal of rho; each reply then carries noise, and
            ``clip`` bounds what it hides. None: no noise.
        code_rho: what owners approved the code for, which adds noise by itself.
        review_seconds: how long a step may wait for a review; by default a day where an agreement has outputs reviewed.
        anchoring: who has to vouch for the receipts before the result is used; by default as :func:`attainable`.

    Raises:
        DeniedError: single replies are asked for (``each``), and an agreement does not permit unprotected updates.
    """
    at = now()
    protection = protection_of([choice.agreement for choice in chosen])
    if aggregation == "each" and protection != "fed:none":
        raise DeniedError(
            "single replies may be seen only where every agreement permits fed:protection fed:none in words",
            hint="leave --aggregation at sum, or ask for agreements that permit it",
            code="each-unprotected",
        )
    if protection == "fed:masked":
        check_size(len(chosen))
    buckets = [(c.published.description.rows_at_least, c.published.description.rows_at_most) for c in chosen]
    expires = min([at + PLAN_VALIDITY, *(choice.agreement.expires for choice in chosen)])
    micro_rho = _micro_rho(rho, clip)
    if rho is not None and code_rho is not None:
        raise UsageError("either the nodes add noise (--rho) or the code does (--code-rho), not both")
    wanted = demanded(chosen, actions)
    development = all(demanded_tier(parse_policy(choice.agreement.policy)) == "T0" for choice in chosen)
    if review_seconds is None:
        review_seconds = REVIEW_SECONDS if wanted.review else 0
    try:
        plan = JobPlan(
            issued=at,
            expires=max(expires, at + timedelta(seconds=1)),
            id=f"urn:uuid:{uuid.uuid4()}",
            requester=home.identity.member,
            coordinator=home.roster.coordinator.id,
            roster=home.history.digest,
            actions=tuple(actions),
            purpose=purpose,
            code=bundle.digest,
            runtime=runtime,
            cohort=tuple(
                PlannedDataset(
                    node=choice.published.description.provider,
                    dataset=choice.published.description.dataset,
                    data_version=choice.published.description.data_version,
                    agreement=choice.holding.digest,
                )
                for choice in chosen
            ),
            rounds=rounds,
            run_config={key: json.dumps(value, ensure_ascii=False) for key, value in run_config.items()},
            aggregation=aggregation,
            outputs=outputs,
            encoding=choose_encoding(buckets, scale=scale, clip=clip),
            protection=protection,
            minimal_participants=_least(protection, len(chosen), minimal_participants),
            round_seconds=round_seconds,
            memory_bytes=memory_bytes,
            tier="T0" if development else "",
            slot_seconds=wanted.slot_seconds,
            review_seconds=review_seconds,
            anchoring=anchoring
            or attainable(home.roster, [choice.published.description.provider for choice in chosen]),
        )
        if rho is not None and clip is not None:
            releases = _releases(plan)
            noised = noised_encoding(len(chosen), clip, multiplier_for(micro_rho, releases), noise_shares(plan))
            plan = plan.model_copy(update={"encoding": noised, "micro_rho": micro_rho})
            check_noise(plan)
        if code_rho is not None:
            plan = plan.model_copy(update={"micro_rho": _whole(code_rho)})
        return plan if sent is None else plan.model_copy(update={"leak_bits": leak_of(plan, sent)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(
            "the plan is not valid at {where}: {what}",
            where=".".join(str(part) for part in first["loc"]) or "its top",
            what=first["msg"],
        ) from None


def _micro_rho(rho: str | None, clip: str | None) -> int:
    """The budget of a plan in micro-rho, rounded down.

    Raises:
        UsageError: it is no budget, or it comes without a bound on what the noise is to hide.
    """
    if rho is None:
        return 0
    found = _whole(rho)
    if clip is None or exact(clip) <= 0:
        raise UsageError(
            "noise needs a bound on what it is to hide",
            hint="give --clip: the largest L2 norm that one node's change of the model may have, such as --clip 1",
        )
    return found


def _whole(rho: str) -> int:
    found = int(exact(rho) * MICRO)
    if not 1 <= found < 2**52:
        raise UsageError("a privacy budget is at least rho 0.000001", hint="write it as a decimal, such as --rho 0.05")
    return found


def _releases(plan: JobPlan) -> int:
    """How many vectors and metrics leave a node in a whole job, each of which costs the same."""
    stages = (plan.outputs.train, plan.outputs.evaluate)
    trained, evaluated = (int(one.sent or bool(one.arrays)) + len(one.metrics) for one in stages)
    train = plan.rounds * trained if "fed:train" in plan.actions else 0
    return max(1, train + ((plan.rounds + 1) * evaluated if "fed:evaluate" in plan.actions else 0))


def _least(protection: Protection, nodes: int, wanted: int | None) -> int:
    """How many must take part: what is asked for, or all; under masks what is asked for, and no fewer than open a round."""
    if protection != "fed:masked":
        return wanted or nodes
    return max(wanted or 0, MINIMUM_ENTITIES, threshold(nodes))


def demanded(chosen: Sequence[Choice], actions: Sequence[str]) -> Demands:
    """What the agreements of a plan demand around its actions: the strictest of each."""
    found = [demands(parse_policy(choice.agreement.policy), action) for choice in chosen for action in actions]
    return Demands(
        approval=any(one.approval for one in found),
        review=any(one.review for one in found),
        slot_seconds=max((one.slot_seconds for one in found), default=0),
        leak_bounded=any(one.leak_bounded for one in found),
    )


def leak_of(plan: JobPlan, sent: Mapping[str, Arrays]) -> int:
    """Bits that leave each node at most in the whole job, where what is sent is as large as in a trial."""
    train = reply_bits(plan, Layout.derive(sent.get("train", {}), plan.outputs.train))
    evaluate = reply_bits(plan, Layout.derive(sent.get("evaluate", {}), plan.outputs.evaluate))
    return job_bits(plan, train, evaluate)


def rounds_of(config: Mapping[str, Any], given: int | None) -> int:
    """The number of rounds: as given, else the app's ``num-server-rounds``."""
    value = given if given is not None else config.get(ROUNDS_KEY)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(
            "how many rounds the job takes is not known",
            hint="give --rounds, or set num-server-rounds in [tool.flwr.app.config]",
        )
    return value
