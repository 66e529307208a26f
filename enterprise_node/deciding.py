"""The decision on one step, with the state that its agreement keeps: read, judged and reserved in the ledger's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from enterprise_node import attributes, budgets, leaks, metering
from enterprise_node.admission import AdmittedPlan
from enterprise_node.consent import NOT_ASKED, Consent, consent_within
from enterprise_node.decision import judge
from federation import obligations
from federation.crypto import canonical_json
from federation.errors import DeniedError, KeyongError
from federation.policy import PolicyDeniedError
from federation.policy.duties import tracked
from federation.statements import DecisionRecord, Metered

DECISION_BYTES: Final = 128 * 1024
"""Largest decision that a receipt and an entry take beside everything else they hold."""


def decide_within(
    connection: sqlite3.Connection, admitted: AdmittedPlan, request: Mapping[str, Any]
) -> tuple[DecisionRecord, Metered | None]:
    """Judge with the uses as this transaction sees them; the decision, and what the step is to reserve.

    Args:
        request: what the line found out (:func:`enterprise_node.decision.judge`), with the most ``seconds`` that the
            step may take and ``bytes`` that its reply may have where one is known; without, nothing of either.
    """
    key = (admitted.agreement_digest, admitted.digest)
    taken, continuing = connection.execute(
        "SELECT count(*), coalesce(max(plan = ?2), 0) FROM plan_use WHERE agreement = ?1", key
    ).fetchone()
    demands = admitted.demands(str(request["action"]))
    course, reserved = _course(connection, admitted, request, bool(continuing))
    consent = consent_within(connection, admitted) if demands.approval else NOT_ASKED
    decision = judge(
        admitted,
        request,
        uses_taken=int(taken),
        continuing=bool(continuing),
        leak_taken=leaks.taken(connection, *key) if demands.leak_bounded else None,
        rho_taken=budgets.taken_under(connection, *key) if demands.rho_bounded else None,
        consent=consent,
        course=course,
    )
    if request.get("private") and not admitted.plan.micro_rho and not demands.unbounded:
        raise DeniedError(
            "the dataset has a privacy unit, so its answers carry noise, and the plan adds none",
            hint="plan the job with --rho, or agree on --rho unbounded in words",
            code="noise",
        )
    _check_private_code(admitted, consent)
    if _size(decision) > DECISION_BYTES:
        raise DeniedError(
            "the agreement's clauses are too long to be put on record with every step",
            hint="agree on shorter clauses",
            code="decision-size",
        )
    return decision, reserved


def _course(
    connection: sqlite3.Connection, admitted: AdmittedPlan, request: Mapping[str, Any], continuing: bool
) -> tuple[dict[str, Any], Metered | None]:
    """What this transaction knows of the agreement's uses and circumstances, and what the step would reserve."""
    agreement, now = admitted.agreement_digest, moment_of(request)
    said = attributes.circumstances(connection, admitted.plan.requester)
    times = metering.course(connection, agreement, admitted.digest, now)
    found: dict[str, Any] = {
        "elapsed": times.elapsed,
        "interval": times.interval,
        "place": said.place,
        "industry": said.industry,
        "events": said.events,
        "duties": obligations.tallies(connection, agreement, admitted.policy, now),
    }
    wanted = admitted.measures(str(request["action"]))
    if not wanted.metered:
        return found, None
    used = times.used if continuing else replace(times.used, uses=times.used.uses + 1)
    size = int(request.get("bytes", 0))
    step = Metered(seconds=wanted.seconds_for(used, int(request.get("seconds", 1)), size), bytes=size)
    seconds, total = used.seconds + step.seconds, used.bytes + size
    found["metered"] = timedelta(seconds=seconds)
    found["total_bytes"] = total
    found["paid"] = wanted.tariff.amount(used.uses, seconds, total)
    return found, step


def moment_of(request: Mapping[str, Any]) -> datetime:
    now: datetime = request["now"]
    return now


def owed(
    connection: sqlite3.Connection, admitted: AdmittedPlan, decision: DecisionRecord, now: datetime
) -> list[dict[str, str]]:
    """What the permission that decided makes the consumer owe, put down with this job's first step."""
    permission = admitted.policy.permission[int(decision.rule.removeprefix("permission/"))]
    return obligations.arise(connection, admitted.agreement_digest, admitted.digest, tracked(permission.duty), now)


def _check_private_code(admitted: AdmittedPlan, consent: Consent) -> None:
    """Raise where a plan counts on noise that its code adds, without the owner's word on exactly that code and config."""
    plan = admitted.plan
    if plan.gate_noise or not plan.micro_rho:
        return
    if not 0 < consent.micro_rho <= plan.micro_rho:
        raise DeniedError(
            "the plan counts on noise that its code adds, and the owner has not approved code and config for so little",
            hint="ask the owner (`keyong node approvals grant --dp`), or let nodes add it: `keyong job run --rho --clip`",
            code="noise",
        )


def use_of(admitted: AdmittedPlan) -> budgets.Use:
    """Whom a plan's privacy budget is charged to: the legal entity that asks, whichever of its members signed."""
    return budgets.Use(admitted.digest, admitted.mine.dataset, admitted.requester_entity, admitted.agreement_digest)


def denied_record(error: KeyongError, agreement: str) -> DecisionRecord:
    """The decision that a refusal stands for: the policy's, or one that names the check that failed."""
    if isinstance(error, PolicyDeniedError):
        record = error.record
        return record if _size(record) <= DECISION_BYTES else record.model_copy(update={"constraints": ()})
    return DecisionRecord(permit=False, agreement=agreement, rule=error.code)


def _size(decision: DecisionRecord) -> int:
    """Bytes of a decision on record; where it is far below what is asked about, a bound on them that costs less."""
    texts = 0
    for one in decision.constraints:
        texts += len(one.operand) + len(one.operator) + len(one.right) + len(one.left) + len(one.note)
    if (most := 12 * texts + 200 * len(decision.constraints) + 4000) < DECISION_BYTES:
        return most  # no character takes more than twelve bytes as JSON
    return len(canonical_json(decision.model_dump(mode="json")))
