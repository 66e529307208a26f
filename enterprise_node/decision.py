"""Stage two of the line: is exactly this permitted, for this purpose, to this party, with this code, now?"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from enterprise_node.admission import AdmittedPlan
from enterprise_node.consent import NOT_ASKED, Consent
from federation.policy import Request, decide, output_kinds, parse_policy, refusal, shown_columns
from federation.policy.values import UNBOUNDED_RHO
from federation.policy.vocabulary import BILATERAL_ACTIONS, EVALUATE, QUERY, TRAIN, includes
from federation.query import micro_rho_left
from federation.secagg import worst_bits
from federation.statements import Agreement, DecisionRecord


def judge(
    admitted: AdmittedPlan,
    facts: Mapping[str, Any],
    *,
    uses_taken: int | None,
    continuing: bool,
    leak_taken: int | None = None,
    rho_taken: int | None = None,
    consent: Consent = NOT_ASKED,
    course: Mapping[str, Any] = MappingProxyType({}),
) -> DecisionRecord:
    """Judge every constraint of the agreement for this action.

    Args:
        facts: what the line found out itself: ``action``, ``now``, ``accepted`` (entities the owner accepted),
            ``columns`` (all columns of the dataset, as the rules leave them), ``rules`` (their digest), ``tier`` and ``group``.
        uses_taken: uses reserved before this plan's; None where that cannot be read, which denies.
        continuing: this plan holds its reserved use already.
        leak_taken: bits that other plans have reserved or carried out under this agreement; None where that is not known.
        rho_taken: micro-rho that other plans have reserved or spent under this agreement; None where that is not known.
        consent: the owner's approval of the plan's code, or why there is none.
        course: what the ledger's database says of the agreement's uses so far: fields of :class:`Request` by name.

    Raises:
        PolicyDeniedError: with the record of every constraint and the value it was judged by.
    """
    plan = admitted.plan
    policy = admitted.policy
    admitted.check_fits()
    request = Request(
        action=facts["action"],
        purpose=plan.purpose,
        requester=plan.requester,
        entity=admitted.requester_entity,
        code=plan.code,
        tier=facts["tier"],
        participants=len(admitted.entities & facts["accepted"]),
        columns=columns_for(admitted, facts["action"], facts["columns"]),
        rules=facts.get("rules") or None,
        group_size=facts.get("group"),
        protection=plan.protection,
        now=facts["now"],
        uses_taken=uses_taken,
        continuing=continuing,
        recipients=(plan.requester,),
        # an answer's figures are metrics
        output_kinds=("fed:Metrics",)
        if facts["action"] in (QUERY, *BILATERAL_ACTIONS)
        else output_kinds(plan.outputs.of("train" if facts["action"] == TRAIN else "evaluate")),
        max_output_bytes=plan.outputs.maximal_bytes,
        consent=consent.text or None,
        consent_missing=consent.missing,
        reviewed=True,  # the line holds each output of an action that is to be reviewed
        leak_bits=None if leak_taken is None else leak_taken + worst_bits(plan),
        slot_seconds=plan.slot_seconds,
        device=plan.runtime,
        version=admitted.mine.data_version,
        rho=_rho(micro_rho_left(plan), rho_taken),
        **course,
    )
    record = decide(admitted.agreement_digest, policy, request)
    if not record.permit:
        raise refusal(record)
    return record


def _rho(stated: int, taken: int | None) -> int | None:
    if not stated:
        return UNBOUNDED_RHO
    return None if taken is None else taken + stated


def columns_for(admitted: AdmittedPlan, action: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns this action may see: those the agreement grants, or all where it names none."""
    return admitted.shown(action, columns)


def granted_by(agreement: Agreement, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that a plan under an agreement may see at most: those that any of its actions shows."""
    policy = parse_policy(agreement.policy)
    shown: set[str] = set()
    for action in (TRAIN, EVALUATE, QUERY, *BILATERAL_ACTIONS):
        if any(includes(permission.action, action) for permission in policy.permission):
            shown.update(shown_columns(policy, action, columns))
    return tuple(name for name in columns if name in shown)
