"""Which datasets a plan rests on, and under which agreements: judged with what the requester can know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from federation.errors import DeniedError, UsageError
from federation.holdings import Holding, Holdings
from federation.home import Home, now
from federation.policy import Request, decide, parse_policy
from federation.policy.vocabulary import BILATERAL_ACTIONS
from federation.statements import Agreement, DatasetDescription, Envelope, instant_text
from federation.statements.plan import Protection
from keyong.client import PublishedDataset


class NoAgreementError(DeniedError):
    """No agreement in force permits this; the plan is not made."""

    code = "agreement"


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
            group_size=2**40,
            columns=tuple(column.name for column in description.columns),
            rules=description.rules or None,
            protection="fed:bilateral" if action in BILATERAL_ACTIONS else protection_of([agreement]),
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
