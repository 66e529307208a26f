"""What a policy must be before a node takes it in: every term one that this release can judge.

Registration and evaluation check independently: a policy that slips past this module still denies when it is judged.
Each refusal names the place in the policy, as ``permission/0/constraint/2``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from federation.errors import UsageError
from federation.policy.contradiction import contradiction
from federation.policy.decision import MAX_JUDGED
from federation.policy.model import AnyConstraint, Constraint, Duty, LogicalConstraint, Policy, place_of
from federation.policy.tariff import tariff_of
from federation.policy.values import (
    EXAMPLES,
    UnreadableValueError,
    dataset_iri,
    member_iri,
    parse_instant,
    read_right,
)
from federation.policy.vocabulary import (
    COMPENSATE,
    DUTIES,
    DUTY_OPERANDS,
    LATER_ACTIONS,
    OPERANDS,
    PERMITTED_ACTIONS,
    PROFILE,
    PROHIBITED_ACTIONS,
    TRACKED_DUTIES,
)
from federation.statements import CLOCK_SKEW, Agreement, instant_text

MAX_DEPTH = 5
"""How deep logical constraints may nest."""


_MOST_KNOWN = 512
_KNOWN: dict[str, Policy] = {}
"""Policies that were read and found good, by their text: an agreement's is asked for with every step, and never changes."""


class PolicyError(UsageError):
    """A policy cannot be registered; ``place`` says where in it the reason lies."""

    code = "policy"

    def __init__(self, template: str, *, place: str, hint: str = "", **params: object) -> None:
        self.place = place
        super().__init__(template, hint=hint, code=None, place=place, **params)


def parse_policy(value: Mapping[str, Any]) -> Policy:
    """Read a policy and make sure that every term in it can be judged here.

    Args:
        value: JSON of an ODRL Agreement or Offer in the shape of the Dataspace Protocol (``Agreement.policy``).

    Raises:
        PolicyError: an unknown key, term, operator or datatype, a bare number, a term without prefix, or something
            that is known but not supported by this release.
    """
    try:
        text = json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return _read(value)  # no JSON, which it will say
    known = _KNOWN.get(text)
    if known is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        known = _KNOWN[text] = _read(value)
    return known


def _read(value: Mapping[str, Any]) -> Policy:
    try:
        policy = Policy.model_validate(dict(value))
    except ValidationError as error:
        raise _shape_error(error) from None
    if policy.profile != PROFILE:
        raise PolicyError(
            "{place}: the profile {profile} is not known here",
            place="profile",
            hint="use {known}",
            known=PROFILE,
            profile=policy.profile,
        )
    _check_timestamp(policy)
    for index, permission in enumerate(policy.permission):
        place = f"permission/{index}"
        _check_action(permission.action, PERMITTED_ACTIONS, f"{place}/action")
        _check_constraints(permission.constraint, place)
        for number, duty in enumerate(permission.duty):
            _check_duty(duty, f"{place}/duty/{number}")
    for index, prohibition in enumerate(policy.prohibition):
        _check_action(prohibition.action, PROHIBITED_ACTIONS, f"prohibition/{index}/action")
        _check_constraints(prohibition.constraint, f"prohibition/{index}")
    _check_size(policy)
    _check_sense(policy)
    return policy


def check_parties(agreement: Agreement, policy: Policy) -> None:
    """Raise :class:`PolicyError` unless the policy is about what the signed statement around it is about."""
    expected = {
        "@type": (policy.type, "Agreement"),
        "@id": (policy.id, agreement.id),
        "assigner": (policy.assigner, member_iri(agreement.provider)),
        "assignee": (policy.assignee, member_iri(agreement.consumer)),
        "target": (policy.target, dataset_iri(agreement.provider, agreement.dataset)),
    }
    for place, (got, wanted) in expected.items():
        if got != wanted:
            raise PolicyError("{place} is {got}, but the agreement says {wanted}", place=place, got=got, wanted=wanted)
    tariff_of(agreement)
    moment = _check_timestamp(policy)
    if moment > agreement.issued + CLOCK_SKEW or moment >= agreement.expires:
        raise PolicyError(
            "{place} is {got}, which does not lie before the agreement was issued ({issued})",
            place="timestamp",
            got=policy.timestamp,
            issued=instant_text(agreement.issued),
        )


def _shape_error(error: ValidationError) -> PolicyError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = place_of(first["loc"]) or "policy"
    if first["type"] == "extra_forbidden":
        if first["loc"][-1] in ("obligation", "remedy", "consequence", "refinement"):
            return PolicyError("{place} is not supported by this release", place=place, hint="leave it out")
        return PolicyError("{place} is not a key that a policy has here", place=place, hint="leave it out")
    if first["type"] == "missing":
        return PolicyError("{place} is missing", place=place)
    return PolicyError("{place} is malformed: {what}", place=place, what=first["msg"])


def _check_timestamp(policy: Policy) -> datetime:
    try:
        return parse_instant(policy.timestamp)
    except UnreadableValueError:
        raise PolicyError(
            "{place} is {got}, which is not a time with its zone",
            place="timestamp",
            got=policy.timestamp,
            hint="write it like 2026-01-01T00:00:00Z",
        ) from None


def _check_action(action: str, known: tuple[str, ...], place: str) -> None:
    if action in known:
        return
    if action in LATER_ACTIONS:
        raise PolicyError("{place}: {action} is not supported by this release", place=place, action=action)
    raise PolicyError(
        "{place}: the action {action} is not known here",
        place=place,
        action=action,
        hint="use one of: {known}",
        known=", ".join(known),
    )


def _check_duty(duty: Duty, place: str) -> None:
    if duty.action not in DUTIES:
        raise PolicyError(
            "{place}: the duty {duty} is not known here",
            place=place,
            duty=duty.action,
            hint="use one of: {known}",
            known=", ".join(DUTIES),
        )
    for index, constraint in enumerate(duty.constraint):
        _check_duty_bound(duty, constraint, f"{place}/constraint/{index}")


def _check_duty_bound(duty: Duty, constraint: AnyConstraint, place: str) -> None:
    if duty.action not in TRACKED_DUTIES:
        raise PolicyError(
            "{place}: the duty {duty} takes no constraint: it is fulfilled with every use",
            place=place,
            duty=duty.action,
        )
    if isinstance(constraint, LogicalConstraint):
        raise PolicyError("{place}: a duty's constraints are joined by nothing: each of them holds", place=place)
    known = tuple(name for name in DUTY_OPERANDS if name != "odrl:payAmount" or duty.action == COMPENSATE)
    if constraint.left not in known or constraint.operator not in DUTY_OPERANDS[constraint.left]:
        raise PolicyError(
            "{place}: the duty {duty} does not take {operand} {operator}",
            place=place,
            duty=duty.action,
            operand=constraint.left,
            operator=constraint.operator,
            hint="use one of: {known}",
            known=", ".join(f"{name} {'|'.join(DUTY_OPERANDS[name])}" for name in known),
        )
    _check_comparison(constraint, place, DUTY_OPERANDS[constraint.left])


def _check_constraints(constraints: tuple[AnyConstraint, ...], place: str) -> None:
    for index, constraint in enumerate(constraints):
        _check_constraint(constraint, f"{place}/constraint/{index}", 1)


def _check_constraint(constraint: AnyConstraint, place: str, depth: int) -> None:
    if isinstance(constraint, LogicalConstraint):
        if depth >= MAX_DEPTH:
            raise PolicyError("{place}: constraints nest deeper than {limit}", place=place, limit=MAX_DEPTH)
        for index, part in enumerate(constraint.parts):
            _check_constraint(part, f"{place}/{constraint.operator}/{index}", depth + 1)
        return
    _check_comparison(constraint, place)


def _check_comparison(constraint: Constraint, place: str, operators: tuple[str, ...] = ()) -> None:
    operand = OPERANDS.get(constraint.left)
    if operand is None:
        raise PolicyError(
            "{place}: the operand {operand} is not known here",
            place=place,
            operand=constraint.left,
            hint="use one of: {known}",
            known=", ".join(OPERANDS),
        )
    operators = operators or operand.operators
    if constraint.operator not in operators:
        raise PolicyError(
            "{place}: {operand} does not take the operator {operator}",
            place=place,
            operand=constraint.left,
            operator=constraint.operator,
            hint="use one of: {known}",
            known=", ".join(operators),
        )
    try:
        read_right(operand.kind, constraint)
    except UnreadableValueError:
        raise PolicyError(
            "{place}: the right operand is not a value of {operand}",
            place=place,
            operand=constraint.left,
            hint="write it like {example}; isAnyOf, isAllOf and isNoneOf take a list of them",
            example=EXAMPLES[operand.kind],
        ) from None


def _check_sense(policy: Policy) -> None:
    """Refuse what could never permit anything: whoever signs it believes otherwise."""
    found = contradiction(policy)
    if found is not None:
        raise PolicyError(
            "{place} and {other} cannot both hold, so nothing would ever be permitted",
            place=found.place,
            other=found.other,
            hint="take out one of them",
        )


def _check_size(policy: Policy) -> None:
    """A decision must fit its record, so that nothing judged is ever left out of it."""
    constraints = [constraint for rule in policy.permission for constraint in rule.constraint]
    constraints += [constraint for rule in policy.prohibition for constraint in rule.constraint]
    fixed = 3 + sum(len(permission.duty) + 1 for permission in policy.permission)
    needed = fixed + sum(_entries(constraint) for constraint in constraints)
    if needed > MAX_JUDGED:
        raise PolicyError(
            "{place} holds more constraints than a decision can record ({needed} of at most {limit})",
            place="policy",
            needed=needed,
            limit=MAX_JUDGED,
        )


def _entries(constraint: AnyConstraint) -> int:
    if isinstance(constraint, Constraint):
        return 1
    return 1 + sum(_entries(part) for part in constraint.parts)
