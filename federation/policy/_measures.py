"""Refusals in words, continued: clauses about time, place, money and what all uses come to together."""

from __future__ import annotations

from federation.policy._denied import PolicyDeniedError
from federation.statements import DecisionRecord, Judged


def unsatisfied_measure(record: DecisionRecord, judged: Judged) -> PolicyDeniedError | None:
    """The refusal for clauses about time and amounts; None where the decision names none of them."""
    left, right, operator = judged.left, judged.right, judged.operator
    match record.rule:
        case "metered-time":
            return PolicyDeniedError(
                "with this step {left} of computing are used or reserved under the agreement, which permits {operator} {right}",
                record=record,
                code="metered-time",
                hint="wait until other jobs have settled what they reserved, or ask the provider for a new agreement",
                left=left,
                operator=operator,
                right=right,
            )
        case "total-output-bytes":
            return PolicyDeniedError(
                "with this step {left} bytes may have left under the agreement, which permits {operator} {right}",
                record=record,
                code="total-output-bytes",
                hint="plan fewer rounds or a smaller model, or ask the provider for a new agreement",
                left=left,
                operator=operator,
                right=right,
            )
        case "pay-amount":
            return PolicyDeniedError(
                "with this step {left} are owed or reserved by the tariff, and the agreement permits {operator} {right}",
                record=record,
                code="pay-amount",
                hint="wait until other jobs have settled what they reserved, or ask the provider for a new agreement",
                left=left,
                operator=operator,
                right=right,
            )
        case "elapsed-time":
            return PolicyDeniedError(
                "the first use of the agreement was {left} ago, and it permits {operator} {right}",
                record=record,
                code="elapsed-time",
                hint="ask the provider for a new agreement (`keyong agreement request`)",
                left=left,
                operator=operator,
                right=right,
            )
        case "time-interval":
            return PolicyDeniedError(
                "the last use of the agreement was {left} ago, and it permits another {operator} {right}",
                record=record,
                code="time-interval",
                hint="run the job again when that time has passed",
                left=left,
                operator=operator,
                right=right,
            )
    return _unsatisfied_circumstance(record, judged)


def _unsatisfied_circumstance(record: DecisionRecord, judged: Judged) -> PolicyDeniedError | None:
    """Clauses about where, on what and under which circumstances, as the owner states them or the node finds them."""
    left, right, operator = judged.left, judged.right, judged.operator
    match record.rule:
        case "spatial":
            return PolicyDeniedError(
                "the node computes in {left}, and the agreement demands {operator} {right}",
                record=record,
                code="spatial",
                hint="the owner states where the node stands (`keyong node attribute set place`)",
                left=left,
                operator=operator,
                right=right,
            )
        case "industry":
            return PolicyDeniedError(
                "your industry is {left} to the owner, and the agreement demands {operator} {right}",
                record=record,
                code="industry",
                hint="the owner states it (`keyong node attribute set industry`)",
                left=left,
                operator=operator,
                right=right,
            )
        case "system-device":
            return PolicyDeniedError(
                "the node runs jobs in the runtime {left}, and the agreement demands {operator} {right}",
                record=record,
                code="system-device",
                hint="the node's owner installs that runtime (`keyong node runtime show`), or both agree anew",
                left=left,
                operator=operator,
                right=right,
            )
        case "version":
            return PolicyDeniedError(
                "the dataset is version {left}, and the agreement demands {operator} {right}",
                record=record,
                code="version",
                hint="ask the provider for an agreement about the version that there is now",
                left=left,
                operator=operator,
                right=right,
            )
        case "event":
            return PolicyDeniedError(
                "what has happened is {left}, and the agreement demands {operator} {right}",
                record=record,
                code="event",
                hint="the owner states what happened (`keyong node attribute set event`)",
                left=left,
                operator=operator,
                right=right,
            )
    return None
