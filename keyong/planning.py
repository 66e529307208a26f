"""From an app, a purpose and the agreements in force to a plan that can be shown, signed and run."""

from __future__ import annotations

import json
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from federation.errors import DeniedError, UsageError
from federation.holdings import Holding, Holdings
from federation.home import Home, now
from federation.policy import Demands, Request, decide, demanded_tier, demands, parse_policy
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
    Agreement,
    Anchoring,
    DatasetDescription,
    Envelope,
    JobPlan,
    MetricSpec,
    OutputSchema,
    PlannedDataset,
    Roster,
    StageOutput,
    instant_text,
)
from federation.statements.code import CodeBundle
from federation.statements.plan import Action, Aggregation, Protection
from federation.witnessing import eligible
from keyong.client import PublishedDataset

PLAN_VALIDITY = timedelta(days=7)
REVIEW_SECONDS = 86400
"""How long a step waits for owners who look at outputs, unless the requester says otherwise."""
ROUNDS_KEY = "num-server-rounds"


class NoAgreementError(DeniedError):
    """No agreement in force permits this; the plan is not made."""

    code = "agreement"


class OutputsError(UsageError):
    """The declaration of outputs is malformed."""

    code = "outputs"


@dataclass(frozen=True)
class Choice:
    """One dataset of the cohort, with the agreement the plan rests on there."""

    published: PublishedDataset
    holding: Holding
    agreement: Agreement


def choose(
    home: Home,
    holdings: Holdings,
    catalog: Sequence[PublishedDataset],
    *,
    purpose: str,
    actions: Sequence[str],
    code: str,
    datasets: Sequence[str],
) -> list[Choice]:
    """For each wanted dataset (all with an agreement where none is named) the newest agreement that permits the actions.

    Judged here with what the requester can know; the node judges again, with what it knows. Where a dataset has agreements but
    none that fits, the newest one for this purpose is taken all the same (the newest of all where none is for it), so that the
    node's refusal names the clause that matters and is on record. One that has expired is never taken: no plan outlives it, so
    no node could be asked.

    Raises:
        NoAgreementError: a named dataset has no agreement in force, or those for this purpose have all expired; or none has
            any other.
        UsageError: a named dataset is not published.
    """
    me = home.identity.member
    mine = [held for held in holdings.list("in-force") if held.consumer == me]
    wanted = _wanted(catalog, datasets)
    chosen: list[Choice] = []
    fits: list[int] = []
    over: list[Agreement] = []
    for published in wanted if datasets else catalog:
        description = published.description
        candidates = [
            (held, Agreement.read(Envelope.from_bytes(held.envelope)))
            for held in reversed(mine)
            if (held.provider, held.dataset) == (description.provider, description.dataset)
        ]
        if not candidates:
            if datasets:
                raise NoAgreementError(
                    "no agreement with {provider} about {dataset} is in force",
                    hint="ask for one: keyong agreement request, or wait for an offer in `keyong inbox`",
                    provider=description.provider,
                    dataset=description.dataset,
                )
            continue
        current = [pair for pair in candidates if now() < pair[1].expires]
        meant_ever = [pair for pair in candidates if _is_for(pair[1], home, purpose, actions, description)]
        meant = [pair for pair in meant_ever if pair in current]
        if not current or (meant_ever and not meant):
            over.append(max((agreement for _, agreement in meant_ever or candidates), key=lambda one: one.expires))
            if datasets:
                raise _over(over[-1])
            continue
        fitting = [pair for pair in current if _permits(pair[1], home, purpose, actions, code, description)]
        held, agreement = (fitting or meant or current)[0]
        chosen.append(Choice(published, held, agreement))
        fits.append(2 if fitting else 1 if meant else 0)
    if not datasets:
        chosen = _one_each(chosen, fits)
    if not chosen and over:
        raise _over(over[0])
    if not chosen:
        raise NoAgreementError(
            "no agreement is in force under which this job could run",
            hint="see `keyong agreement list`; ask with `keyong agreement request`",
        )
    return chosen


def _one_each(chosen: Sequence[Choice], fits: Sequence[int]) -> list[Choice]:
    """Of each provider the one dataset whose agreement fits best: a node takes part with one.

    Raises:
        UsageError: two fit alike.
    """
    best: dict[str, list[Choice]] = {}
    for provider in dict.fromkeys(one.published.description.provider for one in chosen):
        mine = [
            (one, fit) for one, fit in zip(chosen, fits, strict=True) if one.published.description.provider == provider
        ]
        best[provider] = [one for one, fit in mine if fit == max(fit for _, fit in mine)]
        if len(best[provider]) > 1:
            names = [one.published.description.dataset for one in best[provider]]
            raise UsageError(
                "{provider} has several datasets for this purpose: {names}",
                hint="name one dataset of each company with --dataset MEMBER/DATASET",
                provider=provider,
                names=", ".join(names),
            )
    return [one for ones in best.values() for one in ones]


def _over(agreement: Agreement) -> NoAgreementError:
    return NoAgreementError(
        "the agreement with {provider} about {dataset} expired at {expires}",
        hint="ask for another one: keyong agreement request {provider}/{dataset}, or wait for an offer in `keyong inbox`",
        provider=agreement.provider,
        dataset=agreement.dataset,
        expires=instant_text(agreement.expires),
    )


def _wanted(catalog: Sequence[PublishedDataset], names: Sequence[str]) -> list[PublishedDataset]:
    wanted = []
    for name in names:
        provider, _, dataset = name.rpartition("/")
        hits = [
            entry
            for entry in catalog
            if entry.description.dataset == dataset and (not provider or entry.description.provider == provider)
        ]
        if not hits:
            raise UsageError(
                "no dataset {name} is published",
                hint="see `keyong catalog list`; write MEMBER/DATASET",
                name=name,
                code="no-such-dataset",
            )
        wanted += hits
    return wanted


def _permits(
    agreement: Agreement, home: Home, purpose: str, actions: Sequence[str], code: str, description: DatasetDescription
) -> bool:
    """Whether what the requester can judge of the clauses holds: uses and participants are the node's to count."""
    failing = _failing(agreement, home, purpose, actions, code, description, now())
    return not failing & {"purpose", "code-digest", "date-time", "protection", "action"}


def _is_for(
    agreement: Agreement, home: Home, purpose: str, actions: Sequence[str], description: DatasetDescription
) -> bool:
    """Whether the agreement was made for this purpose and these actions, whatever else of it does not hold."""
    failing = _failing(agreement, home, purpose, actions, "sha256:" + "0" * 64, description, agreement.issued)
    return not failing & {"purpose", "action"}


def failing_clauses(choice: Choice, home: Home, purpose: str, actions: Sequence[str]) -> set[str]:
    """Clauses of a chosen agreement that would refuse these actions now, as far as the requester can judge: uses and
    participants are the node's to count, and the code is not known yet."""
    described = choice.published.description
    found = _failing(choice.agreement, home, purpose, actions, "sha256:" + "0" * 64, described, now())
    return found - {"count", "min-participants", "leak-budget"}


def _failing(
    agreement: Agreement,
    home: Home,
    purpose: str,
    actions: Sequence[str],
    code: str,
    description: DatasetDescription,
    at: datetime,
) -> set[str]:
    """The clauses that would deny, one for each action, judged with the best that the node could find."""
    policy = parse_policy(agreement.policy)
    failing = set()
    for action in actions:
        request = Request(
            action=action,
            purpose=purpose,
            requester=home.identity.member,
            code=code,
            tier="T2",
            participants=1000,
            columns=tuple(column.name for column in description.columns),
            rules=description.rules or None,
            protection=protection_of([agreement]),
            now=at,
            uses_taken=0,
            recipients=(home.identity.member,),
            output_kinds=("fed:ModelUpdate", "fed:Metrics"),
            max_output_bytes=1,
            entity=home.identity.entity,
            consent="the node's to say",
            reviewed=True,
            leak_bits=0,
            slot_seconds=86400,
            rho=0,
        )
        record = decide("", policy, request)
        if not record.permit:
            failing.add(record.rule)
    return failing


def protection_of(agreements: Sequence[Agreement]) -> Protection:
    """``fed:none`` where every agreement permits it in words; ``fed:masked`` otherwise."""
    for agreement in agreements:
        if "fed:none" not in json.dumps(agreement.policy):
            return "fed:masked"
    return "fed:none"


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
            minimal_participants=minimal_participants or _least(protection, len(chosen)),
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


def _least(protection: Protection, nodes: int) -> int:
    """How many must take part where nobody says: under masks as many as it takes to open a round, else all."""
    return max(MINIMUM_ENTITIES, threshold(nodes)) if protection == "fed:masked" else nodes


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


def declared_outputs(document: Mapping[str, Any]) -> OutputSchema | None:
    """The output schema an app declares in ``[tool.keyong.outputs]`` (or a file of the same form); None without one.

    Form: a table a stage with ``arrays`` ("sent", or a list of {record, name, dtype, shape}) and ``metrics`` (names, or
    {name, minimum, maximum} with the bounds as strings).
    """
    tool = document.get("tool", {})
    table = tool.get("keyong", {}).get("outputs") if isinstance(tool, dict) else None
    if table is None:
        return None
    return outputs_from(table)


def outputs_from(table: Any) -> OutputSchema:
    """Read an outputs table; raises :class:`OutputsError` naming what is wrong."""
    try:
        stages = {}
        for stage in ("train", "evaluate"):
            part = dict(table.get(stage, {}))
            arrays = part.pop("arrays", "sent" if stage == "train" else [])
            metrics = part.pop("metrics", [])
            if part:
                raise OutputsError(
                    "unknown keys in the outputs of {stage}: {keys}", stage=stage, keys=", ".join(sorted(part))
                )
            stages[stage] = StageOutput(
                sent=arrays == "sent" or "sent" in arrays,
                arrays=() if arrays == "sent" else tuple(item for item in arrays if item != "sent"),
                metrics=tuple(
                    MetricSpec(name=item) if isinstance(item, str) else MetricSpec(**item) for item in metrics
                ),
            )
        extra = set(table) - {"train", "evaluate", "maximal-bytes"}
        if extra:
            raise OutputsError("unknown keys in the outputs: {keys}", keys=", ".join(sorted(extra)))
        schema = OutputSchema(train=stages["train"], evaluate=stages["evaluate"])
        if "maximal-bytes" in table:
            schema = OutputSchema(**{**dict(schema), "maximal_bytes": table["maximal-bytes"]})
        return schema
    except (ValidationError, TypeError, AttributeError, ValueError) as error:
        what = (
            error.errors(include_url=False, include_input=False)[0]["msg"]
            if isinstance(error, ValidationError)
            else "not of the form"
        )
        raise OutputsError(
            "the declared outputs cannot be read: {what}",
            hint='for example: [tool.keyong.outputs.train] arrays = "sent", metrics = ["train_loss"]',
            what=what,
        ) from None


def load_pyproject(bundle: CodeBundle) -> dict[str, Any]:
    """The app's pyproject, parsed."""
    try:
        return tomllib.loads(bundle.files["pyproject.toml"].decode("utf-8"))
    except (KeyError, ValueError, RecursionError) as error:
        raise UsageError("the app's pyproject.toml cannot be read: {why}", why=str(error)[:200]) from None
