"""Policies that no request could ever satisfy: refused when they are registered, with the two places that disagree.

Found are the contradictions that people make: a permission under a prohibition without conditions, bounds that leave
nothing between them, two demands for different single values, a time that was over when the policy was written. A policy
that passes may still permit nothing for a deeper reason; then every request is denied, with the clause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from federation.policy.model import AnyConstraint, Constraint, LogicalConstraint, Policy
from federation.policy.values import Scalar, part_of, read_right
from federation.policy.vocabulary import OPERANDS, TIERS, includes, purpose_is_a


@dataclass(frozen=True)
class Contradiction:
    """Two places of a policy that cannot both hold."""

    place: str
    other: str


def contradiction(policy: Policy) -> Contradiction | None:
    """The first contradiction in a policy whose terms are all known; None where none is found."""
    for index, permission in enumerate(policy.permission):
        place = f"permission/{index}"
        for number, prohibition in enumerate(policy.prohibition):
            if not prohibition.constraint and includes(prohibition.action, permission.action):
                return Contradiction(place, f"prohibition/{number}")
        found = _among(list(_located(permission.constraint, place)))
        if found is not None:
            return found
    return None


def _located(constraints: Sequence[AnyConstraint], place: str) -> Iterator[tuple[str, Constraint]]:
    """The comparisons that must all hold, with where each stands."""
    for index, constraint in enumerate(constraints):
        at = f"{place}/constraint/{index}"
        if isinstance(constraint, Constraint):
            yield at, constraint
        elif constraint.operator in ("and", "andSequence"):
            yield from _joined(constraint, at)


def _joined(constraint: LogicalConstraint, place: str) -> Iterator[tuple[str, Constraint]]:
    for index, part in enumerate(constraint.parts):
        at = f"{place}/{constraint.operator}/{index}"
        if isinstance(part, Constraint):
            yield at, part
        elif part.operator in ("and", "andSequence"):
            yield from _joined(part, at)


def _among(located: list[tuple[str, Constraint]]) -> Contradiction | None:
    for index, (place, one) in enumerate(located):
        for other, two in located[:index]:
            if one.left == two.left and _disjoint(one, two):
                return Contradiction(place, other)
    return None


def _disjoint(one: Constraint, two: Constraint) -> bool:
    kind = OPERANDS[one.left].kind
    mine, theirs = read_right(kind, one), read_right(kind, two)
    if one.operator in ("eq", "isAnyOf") and two.operator in ("eq", "isAnyOf"):
        return kind != "event" and not set(mine) & set(theirs)
    if {one.operator, two.operator} <= {"isA", "isPartOf"}:
        return not (_below(kind, mine[0], theirs[0]) or _below(kind, theirs[0], mine[0]))
    if {one.operator, two.operator} in ({"eq", "neq"}, {"eq", "isNoneOf"}):
        banned, wanted = (theirs, mine) if one.operator == "eq" else (mine, theirs)
        return wanted[0] in banned
    return kind in ("integer", "instant", "duration", "amount", "tier") and _no_room(one, two, mine[0], theirs[0])


def _below(kind: str, part: Scalar, whole: Scalar) -> bool:
    holds = purpose_is_a if kind == "purpose" else part_of
    return holds(str(part), str(whole))


_UPPER, _LOWER = ("lt", "lteq", "eq"), ("gt", "gteq", "eq")


def _no_room(one: Constraint, two: Constraint, mine: Scalar, theirs: Scalar) -> bool:
    """Whether an upper and a lower bound leave nothing between them."""
    if one.operator in _UPPER and two.operator in _LOWER:
        upper, lower, strict = mine, theirs, one.operator == "lt" or two.operator == "gt"
    elif two.operator in _UPPER and one.operator in _LOWER:
        upper, lower, strict = theirs, mine, two.operator == "lt" or one.operator == "gt"
    else:
        return False
    if isinstance(upper, str) and isinstance(lower, str):
        upper, lower = TIERS.index(upper), TIERS.index(lower)
    return upper < lower or (strict and upper == lower)  # type: ignore[operator]  # both are of one kind
