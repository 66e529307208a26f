"""The decision on one request: permit or deny, with the value every constraint was judged by.

The rules, in order. A request is denied

1. unless the policy is an Agreement of the known profile, and the requester its assignee;
2. where a prohibition covers the action, or a part of it, and none of its constraints is false;
3. unless one permission includes the action and *all* of it holds: each constraint is true, each duty is fulfilled by
   this system or not violated by the consumer, and, where the permission does not itself speak of ``fed:protection``, the
   request is ``fed:masked``.

Anything unknown or unreadable is not true (invariant 1). The record replays without the node: it holds both sides of
every comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from federation.policy.duties import duty_text, holds
from federation.policy.evaluation import Finding, Truth, all_of, judge
from federation.policy.model import AnyConstraint, Constraint, Duty, Permission, Policy, demanded
from federation.policy.request import Request
from federation.policy.values import member_iri
from federation.policy.vocabulary import (
    ANONYMIZE,
    CONSENT,
    INFORM,
    MASKED,
    PROFILE,
    PROHIBITED_ACTIONS,
    REVIEW,
    TRACKED_DUTIES,
    includes,
)
from federation.statements import DecisionRecord, Judged

MAX_JUDGED = 200
"""Most entries a decision record holds; registration refuses policies that could need more."""

DEFAULT_PROTECTION = Constraint.model_validate(
    {"leftOperand": "fed:protection", "operator": "eq", "rightOperand": {"@id": MASKED}}
)
"""What a permission demands that says nothing about protection."""


@dataclass(frozen=True)
class _Rule:
    """A rule as judged; each part is one constraint or duty of its own, with the findings of all it holds."""

    place: str
    parts: tuple[tuple[Truth, tuple[Finding, ...]], ...]
    truth: Truth

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for _, findings in self.parts for finding in findings)

    @property
    def failing(self) -> tuple[str, ...]:
        """Codes of the parts that do not hold. A part's own finding is its last; the others are inside it."""
        return tuple(findings[-1].code for truth, findings in self.parts if truth is not Truth.TRUE)


def decide(agreement: str, policy: Policy, request: Request) -> DecisionRecord:
    """Judge ``request`` by ``policy``, permitting only what is proven; never raises on what either of them may hold.

    Args:
        agreement: digest of the agreement that carries the policy, for the record.
        policy: as :func:`federation.policy.parse_policy` read it; a policy that did not pass it is judged all the same,
            and whatever it holds that is unknown denies.
        request: what is asked, as far as it is known here.
    """
    findings = list(_preliminaries(policy, request))
    for finding in findings:
        if finding.truth is not Truth.TRUE:
            return _record(agreement, False, finding.code, findings)
    for rule in _prohibitions(policy, request):
        findings.extend(rule.findings)
        if rule.truth is not Truth.FALSE:
            return _record(agreement, False, rule.place, findings)
    permissions = list(_permissions(policy, request))
    for rule in permissions:
        if rule.truth is Truth.TRUE:
            return _record(agreement, True, rule.place, [*findings, *rule.findings])
    if not permissions:
        return _record(agreement, False, "action", findings)
    # The permission that came closest is the one worth explaining: its findings come first, and it names the refusal.
    permissions.sort(key=lambda rule: len(rule.failing))
    for rule in permissions:
        findings.extend(rule.findings)
    return _record(agreement, False, permissions[0].failing[0], findings)


def _record(agreement: str, permit: bool, rule: str, findings: list[Finding]) -> DecisionRecord:
    if len(findings) > MAX_JUDGED:
        permit, rule = False, "too-many-constraints"
    judged = tuple(finding.judged for finding in findings[:MAX_JUDGED])
    return DecisionRecord(permit=permit, agreement=agreement, rule=rule, constraints=judged)


def _preliminaries(policy: Policy, request: Request) -> Iterator[Finding]:
    yield _equal("@type", policy.type, "Agreement", "offer")
    yield _equal("profile", policy.profile, PROFILE, "profile")
    party = member_iri(request.requester) if isinstance(request.requester, str) else ""
    yield _equal("odrl:assignee", party, policy.assignee, "assignee", request.entity or "")


@lru_cache(maxsize=4096)
def _equal(operand: str, left: str, right: str, code: str, note: str = "") -> Finding:
    truth = Truth.of(left == right)
    judged = Judged(
        operand=operand, operator="eq", right=right, left=left[:400], satisfied=truth is Truth.TRUE, note=note[:400]
    )
    return Finding(truth, judged, code)


def _prohibitions(policy: Policy, request: Request) -> Iterator[_Rule]:
    for index, prohibition in enumerate(policy.prohibition):
        place = f"prohibition/{index}"
        parts = _judge_each(prohibition.constraint, request, place)
        if prohibition.action not in PROHIBITED_ACTIONS:
            # What is banned here cannot be told, so it may be this.
            yield _Rule(place, parts, Truth.UNKNOWN)
        # A ban on a part of what is asked bans what is asked.
        elif includes(prohibition.action, request.action) or includes(request.action, prohibition.action):
            yield _Rule(place, parts, all_of(truth for truth, _ in parts))


def _permissions(policy: Policy, request: Request) -> Iterator[_Rule]:
    for index, permission in enumerate(policy.permission):
        if not includes(permission.action, request.action):
            continue
        place = f"permission/{index}"
        parts = list(_judge_each(permission.constraint, request, place))
        for number, duty in enumerate(permission.duty):
            finding = _duty(f"{place}/duty/{number}", duty, request)
            parts.append((finding.truth, (finding,)))
        if not speaks_of_protection(permission):
            parts.append(judge(DEFAULT_PROTECTION, request, f"{place}/default"))
        yield _Rule(place, tuple(parts), all_of(truth for truth, _ in parts))


def _judge_each(
    constraints: tuple[AnyConstraint, ...], request: Request, place: str
) -> tuple[tuple[Truth, tuple[Finding, ...]], ...]:
    return tuple(
        judge(constraint, request, f"{place}/constraint/{index}") for index, constraint in enumerate(constraints)
    )


def _duty(place: str, duty: Duty, request: Request) -> Finding:
    """A duty, with what fulfils it on the left."""
    left, code, missing, satisfied = "", "duty", "not known here", None
    if duty.action in TRACKED_DUTIES:
        left = request.duties.get(duty_text(duty), "")
        satisfied, code = holds(left), duty.action.removeprefix("odrl:")
    elif not duty.constraint:
        if duty.action == INFORM:
            left = "receipt"
        elif duty.action == CONSENT:
            left, code, missing = request.consent or "", "approval", request.consent_missing or "not approved"
        elif duty.action == ANONYMIZE:
            left, code = request.rules or "", "anonymize"
            missing = "the dataset is under no desensitisation rules"
        elif duty.action == REVIEW:
            left, code, missing = "held for the owner" if request.reviewed else "", "review", "cannot be held here"
    kept = duty.kept.get("finding")
    key = (left, satisfied, code, missing, place)
    if isinstance(kept, tuple) and kept[0] == key and isinstance(kept[1], Finding):
        return kept[1]
    judged = Judged(
        operand="duty",
        operator="eq",
        right=duty_text(duty),
        left=left[:400],
        satisfied=bool(left) if satisfied is None else satisfied,
        note=place if left else f"{place}; {missing}"[:400],
    )
    finding = Finding(Truth.TRUE if judged.satisfied else Truth.UNKNOWN, judged, code)
    duty.kept["finding"] = (key, finding)
    return finding


def speaks_of_protection(permission: Permission) -> bool:
    """Whether ``fed:protection`` is among the constraints that *must* hold, alone or under ``and``.

    Under ``or`` and ``xone`` it can go unmet while the permission holds, so there it does not lift the default.
    """
    if "protection" not in permission.kept:
        permission.kept["protection"] = any(
            constraint.left == "fed:protection" for constraint in demanded(permission.constraint)
        )
    return bool(permission.kept["protection"])
