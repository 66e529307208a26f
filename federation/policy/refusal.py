"""Refusals in words, for those who may know the clause: the parties to the agreement (invariant 7)."""

from __future__ import annotations

from federation.policy._denied import PolicyDeniedError
from federation.policy._measures import unsatisfied_measure
from federation.policy.vocabulary import CONSENT, OPERANDS
from federation.statements import DecisionRecord, Judged


def refusal(record: DecisionRecord) -> PolicyDeniedError:
    """The error that explains a denied decision: which clause, judged by which value, and what to do.

    Raises:
        ValueError: the record is a permit; there is nothing to refuse.
    """
    if record.permit:
        raise ValueError("the decision is a permit")
    if record.rule.startswith("prohibition/"):
        return PolicyDeniedError(
            "the agreement prohibits this ({rule})",
            record=record,
            code="prohibition",
            hint="read the clause with `keyong agreement show`",
            rule=record.rule,
        )
    judged = _decisive(record)
    if judged is not None and record.rule in _CODES:
        return _unknown(record, judged) if not judged.left else _unsatisfied(record, judged)
    return _structural(record, judged)


_CODES = frozenset(operand.code for operand in OPERANDS.values())


def _decisive(record: DecisionRecord) -> Judged | None:
    """The first entry that failed under the code that the decision names; the closest permission's come first."""
    failed = [judged for judged in record.constraints if not judged.satisfied]
    if record.rule == "approval":
        return next((one for one in failed if one.operand == "duty" and one.right == CONSENT), None)
    if record.rule in ("compensate", "delete", "attribute"):
        duty = f"odrl:{record.rule}"
        return next((one for one in failed if one.operand == "duty" and one.right.startswith(duty)), None)
    for judged in failed:
        operand = OPERANDS.get(judged.operand)
        if operand is not None and operand.code == record.rule:
            return judged
    return failed[-1] if failed else None


def _unknown(record: DecisionRecord, judged: Judged) -> PolicyDeniedError:
    return PolicyDeniedError(
        "the agreement demands {operand} {operator} {right}, and the node could not establish it for this request",
        record=record,
        code=record.rule,
        hint="what cannot be established is denied; see the node's log, or state what is missing in the job plan",
        operand=judged.operand,
        operator=judged.operator,
        right=judged.right,
    )


def _structural(record: DecisionRecord, judged: Judged | None) -> PolicyDeniedError:
    """Refusals that no single value decides."""
    match record.rule:
        case "action":
            return PolicyDeniedError(
                "the agreement does not permit this action",
                record=record,
                code="action",
                hint="ask the provider for an agreement that permits it (`keyong agreement request`)",
            )
        case "assignee":
            return PolicyDeniedError(
                "the agreement is not with you",
                record=record,
                code="assignee",
                hint="name an agreement in which you are the consumer (`keyong agreement list`)",
            )
        case "offer":
            return PolicyDeniedError(
                "this is an offer, not an agreement",
                record=record,
                code="offer",
                hint="both parties have to sign it first (`keyong agreement sign`)",
            )
        case "approval":
            return PolicyDeniedError(
                "the owner has to approve this code before it runs here ({state})",
                record=record,
                code="approval",
                hint="the code waits there for the owner (`keyong node approvals list`); run the job again once it is granted",
                state=judged.note.rpartition("; ")[2] if judged is not None else "",
            )
        case "compensate" | "delete" | "attribute":
            return PolicyDeniedError(
                "a duty of the agreement is overdue ({clause}: {state})",
                record=record,
                code=record.rule,
                hint="fulfil it, say so, and have the owner confirm a payment (`keyong agreement duties`)",
                clause=judged.right if judged is not None else record.rule,
                state=judged.left if judged is not None else "",
            )
        case "anonymize":
            return PolicyDeniedError(
                "the agreement demands desensitised data, and the dataset is under no rules",
                record=record,
                code="anonymize",
                hint="its owner sets them: `keyong node dataset rules set`",
            )
        case "unsupported" | "duty" | "review" | "profile" | "too-many-constraints":
            return PolicyDeniedError(
                "the agreement says something that this release cannot judge ({clause}), so it denies",
                record=record,
                code=record.rule,
                hint="upgrade the node, or make an agreement without that clause",
                clause=judged.operand if judged is not None else record.rule,
            )
    return PolicyDeniedError(
        "the agreement's conditions do not hold for this request",
        record=record,
        code="constraint",
        hint="compare the clauses (`keyong agreement show`) with the decision in the receipt",
    )


def _unsatisfied(record: DecisionRecord, judged: Judged) -> PolicyDeniedError:
    """A clause that was judged by a known value and does not hold."""
    left, right, operator = judged.left, judged.right, judged.operator
    match record.rule:
        case "purpose":
            return PolicyDeniedError(
                "the agreement does not permit the purpose {left}, only {right}",
                record=record,
                code="purpose",
                hint="if it is what you do, say so with --purpose; otherwise ask for another agreement",
                left=left,
                right=right,
            )
        case "count" if operator == "lteq":
            return PolicyDeniedError(
                "this would be use {left} of the agreement, which permits at most {right}",
                record=record,
                code="count",
                hint="ask the provider for a new agreement (`keyong agreement request`)",
                left=left,
                right=right,
            )
        case "count":
            return PolicyDeniedError(
                "this would be use {left} of the agreement, which permits {operator} {right}",
                record=record,
                code="count",
                hint="ask the provider for a new agreement (`keyong agreement request`)",
                left=left,
                operator=operator,
                right=right,
            )
        case "date-time" if operator == "lt":
            return PolicyDeniedError(
                "it is {left}, and the agreement permits use before {right} only",
                record=record,
                code="date-time",
                hint="ask the provider for a new agreement, or compare the clocks of both machines",
                left=left,
                right=right,
            )
        case "date-time":
            return PolicyDeniedError(
                "it is {left}, and the agreement permits use at times {operator} {right}",
                record=record,
                code="date-time",
                hint="ask the provider for a new agreement, or compare the clocks of both machines",
                left=left,
                operator=operator,
                right=right,
            )
        case "code-digest":
            return PolicyDeniedError(
                "the job's code is {left}, and the agreement permits {right} alone",
                record=record,
                code="code-digest",
                hint="run exactly the code that was agreed on, or ask the provider to agree to the new code",
                left=left,
                right=right,
            )
        case "min-tier":
            return PolicyDeniedError(
                "the node can isolate the job at tier {left}, and the agreement demands {right}",
                record=record,
                code="min-tier",
                hint="the node's owner can raise the tier (`keyong doctor` says what is missing)",
                left=left,
                right=right,
            )
        case "min-participants":
            return PolicyDeniedError(
                "{left} companies besides you take part, and the agreement demands {right}",
                record=record,
                code="min-participants",
                hint="add datasets of companies that this node's owner accepted (`keyong peers accept`)",
                left=left,
                right=right,
            )
        case "min-group-size":
            return PolicyDeniedError(
                "a figure may rest on as few as {left} subjects, and the agreement demands {right}",
                record=record,
                code="min-group-size",
                hint="a query with noise (--rho) shows cells of any size; a dataset as small as that cannot be used under it",
                left=left,
                right=right,
            )
        case "protection":
            return PolicyDeniedError(
                "the plan's protection is {left}, and the agreement permits {right}",
                record=record,
                code="protection",
                hint="plan the job with that protection, or ask for an agreement that names {left}",
                left=left,
                right=right,
            )
    return _unsatisfied_output(record, judged)


def _unsatisfied_output(record: DecisionRecord, judged: Judged) -> PolicyDeniedError:
    """Clauses about what is shown to the job and what leaves it."""
    left, right = judged.left, judged.right
    match record.rule:
        case "column":
            return PolicyDeniedError(
                "the job asks for columns {left}, and the agreement shows {right}",
                record=record,
                code="column",
                hint="ask for fewer columns, or for an agreement that shows more",
                left=left,
                right=right,
            )
        case "rules":
            return PolicyDeniedError(
                "the data is desensitised by the rules {left}, and the agreement names {right}",
                record=record,
                code="rules",
                hint="the owner sets those rules again (`keyong node dataset rules set`), or both agree anew",
                left=left,
                right=right,
            )
        case "recipient":
            return PolicyDeniedError(
                "the result would go to {left}, and the agreement permits {right}",
                record=record,
                code="recipient",
                hint="name only recipients that the agreement permits",
                left=left,
                right=right,
            )
        case "output-kind":
            return PolicyDeniedError(
                "the job's output is {left}, and the agreement permits {right}",
                record=record,
                code="output-kind",
                hint="leave the rest out of the plan's output schema",
                left=left,
                right=right,
            )
        case "leak-budget":
            return PolicyDeniedError(
                "with this plan {left} bits may have left under the agreement, which permits {right} in all",
                record=record,
                code="leak-budget",
                hint="plan fewer rounds, a smaller model or fewer metrics, or ask the provider for a new agreement",
                left=left,
                right=right,
            )
        case "release-slot":
            return PolicyDeniedError(
                "the plan's answers leave at time slots of {left} seconds, and the agreement demands {right} or more",
                record=record,
                code="release-slot",
                hint="plan the job with slots that wide (`keyong job run` takes them from the agreements)",
                left=left,
                right=right,
            )
        case "rho":
            return PolicyDeniedError(
                "with this plan rho {left} is spent under the agreement, which permits {right} in all",
                record=record,
                code="rho",
                hint="plan the job with less (`keyong job run --rho`), or ask the provider for a new agreement",
                left=left,
                right=right,
            )
        case "max-output-bytes":
            return PolicyDeniedError(
                "the job's output may reach {left} bytes, and the agreement permits {right}",
                record=record,
                code="max-output-bytes",
                hint="lower the plan's largest output, or use a smaller model",
                left=left,
                right=right,
            )
    return unsatisfied_measure(record, judged) or _structural(record, judged)
