"""Deciding again from the record alone: the same policy, the same request, and whether the verdict is the same.

A decision record holds both sides of every comparison, so that nobody needs the node to judge it again. What other
entries of the ledger say about the request (purpose, code, uses so far) goes before what the record says: a record
that was made to fit its verdict then differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from federation.policy.decision import decide
from federation.policy.model import Policy
from federation.policy.request import FIELDS, Request
from federation.policy.values import (
    MEMBER_PREFIX,
    NO_EVENT,
    SETS,
    UnreadableValueError,
    parse_rho,
    recorded_duration,
)
from federation.policy.vocabulary import ANONYMIZE, CONSENT, OPERANDS, PERMITTED_ACTIONS, REVIEW
from federation.statements import DecisionRecord, Judged

COMPUTED = tuple(action for action in PERMITTED_ACTIONS if action.startswith("fed:"))
"""What an invocation can ask for; the rest are terms that agreements permit it by."""


@dataclass(frozen=True)
class Difference:
    """One thing that comes out otherwise when it is decided again.

    Attributes:
        what: ``permit``, ``rule``, or the operand of a constraint.
        recorded: as the ledger has it.
        again: as it comes out now.
    """

    what: str
    recorded: str
    again: str


def decide_again(policy: Policy, record: DecisionRecord, known: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Judge a recorded request by its policy once more; what comes out otherwise, nothing where all is the same.

    Words of explanation (notes) are not compared: a later release may say them better.

    Args:
        policy: of the agreement that the record names.
        record: the decision as it stands in the ledger.
        known: fields of :class:`Request` that other entries attest; the rest is read from the record. Without
            ``action``, the one that explains the record best is taken.
    """
    found = {**_recorded(record), **known}
    actions = [found.pop("action")] if "action" in found else list(COMPUTED)
    outcomes = [decide(record.agreement, policy, _request(found, action)) for action in actions]
    covered = [again for again in outcomes if (again.rule == "action") == (record.rule == "action")]
    return min((_differences(record, again) for again in covered or outcomes), key=len)


def _request(found: Mapping[str, Any], action: str) -> Request:
    fields = ("purpose", "requester", "code", "tier", "participants", "columns", "protection", "now", "uses_taken")
    return Request(**{**dict.fromkeys(fields), **found, "action": action})


def _recorded(record: DecisionRecord) -> dict[str, Any]:
    """What the record itself says about the request; an operand it could not judge stays unknown."""
    found: dict[str, Any] = {}
    for judged in record.constraints:
        if judged.operand == "odrl:assignee":
            found["requester"] = judged.left.removeprefix(MEMBER_PREFIX) or None
            found["entity"] = judged.note or None
        elif judged.operand == "duty" and judged.right == CONSENT:
            found.setdefault("consent", judged.left or None)
        elif judged.operand == "duty" and judged.right == REVIEW:
            found.setdefault("reviewed", bool(judged.left))
        elif judged.operand == "duty" and judged.right == ANONYMIZE and judged.left:
            found.setdefault("rules", judged.left)
        elif judged.operand == "duty" and judged.left:
            found.setdefault("duties", {})[judged.right] = judged.left
        elif judged.operand in FIELDS and judged.left:
            found.setdefault(FIELDS[judged.operand], _read(judged))
    if "count" in found:
        # As much as is known of a count that other entries do not attest: the use in question was the last of them.
        found["uses_taken"], found["continuing"] = found.pop("count"), True
    return found


def _read(judged: Judged) -> Any:
    kind = OPERANDS[judged.operand].kind
    try:
        if kind == "duration":
            return recorded_duration(judged.left)
        if kind == "amount":
            return Decimal(judged.left)
        if kind == "event" and judged.left == NO_EVENT:
            return ()
        if kind in SETS:
            return tuple(name.removeprefix(MEMBER_PREFIX) for name in judged.left.split(" "))
        if kind == "integer":
            return int(judged.left)
        if kind == "rho":
            return parse_rho(judged.left)
        if kind == "instant":
            return datetime.fromisoformat(judged.left)
    except (ValueError, UnreadableValueError, InvalidOperation):
        return None
    return judged.left


def _differences(record: DecisionRecord, again: DecisionRecord) -> tuple[Difference, ...]:
    found = []
    if record.permit != again.permit:
        found.append(Difference("permit", _verdict(record), _verdict(again)))
    if record.rule != again.rule:
        found.append(Difference("rule", record.rule, again.rule))
    for ours, theirs in zip(record.constraints, again.constraints, strict=False):
        if _essence(ours) != _essence(theirs):
            found.append(Difference(ours.operand, _line(ours), _line(theirs)))
    missing = len(again.constraints) - len(record.constraints)
    if missing:
        found.append(Difference("constraints", str(len(record.constraints)), str(len(again.constraints))))
    return tuple(found)


def _verdict(record: DecisionRecord) -> str:
    return "permit" if record.permit else "deny"


def _essence(judged: Judged) -> tuple[str, str, str, str, bool]:
    return judged.operand, judged.operator, judged.right, judged.left, judged.satisfied


def _line(judged: Judged) -> str:
    return f"{judged.left} {judged.operator} {judged.right}: {'holds' if judged.satisfied else 'does not hold'}"
