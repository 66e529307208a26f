"""Writing policies, and reading from one which columns it shows and what isolation it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from federation.policy.clauses import further_terms
from federation.policy.model import Policy, demanded, every, terms_of
from federation.policy.registration import parse_policy
from federation.policy.values import dataset_iri, member_iri, parse_instant
from federation.policy.vocabulary import CONSENT, INFORM, MASKED, PROFILE, REVIEW, UNBOUNDED, UNPROTECTED, includes
from federation.statements import instant_text


def agreement_policy(
    *,
    provider: str,
    consumer: str,
    dataset: str,
    actions: Sequence[str],
    purposes: Sequence[str],
    count: int | None,
    expires: datetime | None,
    agreement_id: str,
    now: datetime,
    code: str | Sequence[str] | None = None,
    protection: str = MASKED,
    min_tier: str | None = None,
    min_participants: int | None = None,
    columns: Sequence[str] | None = None,
    approval: bool = False,
    review: bool = False,
    max_leak_bits: int | None = None,
    release_slot: int | None = None,
    rules: str | None = None,
    rho: str | None = None,
    further: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The JSON of a policy between two members; it has passed :func:`federation.policy.parse_policy`.

    Each action becomes a permission with all the constraints, the duty to inform, and a ban on passing the data on. The
    count is one budget: uses under any of the actions are taken from it together.

    Args:
        provider: member id of the dataset's owner.
        consumer: member id of whoever may use it.
        dataset: the provider's name for the dataset.
        actions: ``fed:train``, ``fed:evaluate``.
        purposes: each permits itself and what lies below it in the hierarchy; empty for any purpose.
        count: job plans in all; None for no limit.
        expires: uses end before this moment; None leaves it to the agreement's own expiry.
        agreement_id: ``urn:uuid:...`` of the statement that will carry the policy.
        now: the moment of writing.
        code: digest of the only code that may run, or of several; None for any code the owner approves.
        protection: ``fed:masked``; ``fed:none`` permits unprotected updates *as well*, in words that both parties sign.
        min_tier: weakest isolation, ``T1`` to ``T3``; None leaves it to the node's floor.
        min_participants: companies besides the consumer (and the coordinator) that must take part.
        columns: the columns that may be seen; None for all.
        approval: each version of the code waits for the owner's approval (``odrl:obtainConsent``).
        review: each output waits for the owner's release (``fed:review``).
        max_leak_bits: bits that may leave in all, over all jobs; None for no bound.
        release_slot: least width in seconds of the time slots at whose ends answers leave; None for no slots.
        rho: privacy budget of the agreement, over all jobs and queries, as a decimal of rho; ``unbounded`` permits answers
            without noise, in words that both parties sign; None leaves it to the node's budgets.
        further: clauses in short form (:data:`federation.policy.CLAUSE_KEYS`).
        rules: digest of the desensitisation rules that the data must have passed; None for whichever are in force.

    Raises:
        PolicyError: a value that a policy cannot hold.
    """
    constraints: list[dict[str, Any]] = []
    if purposes:
        wanted = [_constraint("odrl:purpose", "isA", {"@id": purpose}) for purpose in purposes]
        constraints.append(wanted[0] if len(wanted) == 1 else {"or": wanted})
    if count is not None:
        constraints.append(_constraint("odrl:count", "lteq", _integer(count)))
    if expires is not None:
        constraints.append(_constraint("odrl:dateTime", "lt", _typed(instant_text(expires), "xsd:dateTime")))
    if code is not None:
        digests = [code] if isinstance(code, str) else list(code)
        constraints.append(_constraint("fed:codeDigest", "isAnyOf", [_typed(text, "xsd:string") for text in digests]))
    if min_tier is not None:
        constraints.append(_constraint("fed:minTier", "gteq", _typed(min_tier, "xsd:string")))
    if min_participants is not None:
        constraints.append(_constraint("fed:minParticipants", "gteq", _integer(min_participants)))
    if columns is not None:
        constraints.append(_constraint("fed:column", "isAnyOf", [_typed(name, "xsd:string") for name in columns]))
    if rho is not None:
        bound = {"@id": UNBOUNDED} if rho == "unbounded" else _typed(rho, "xsd:decimal")
        constraints.append(_constraint("fed:rho", "lteq", bound))
    if max_leak_bits is not None:
        constraints.append(_constraint("fed:maxLeakBits", "lteq", _integer(max_leak_bits)))
    if release_slot is not None:
        constraints.append(_constraint("fed:releaseSlot", "gteq", _integer(release_slot)))
    if rules is not None:
        constraints.append(_constraint("fed:rules", "eq", _typed(rules, "xsd:string")))
    more, owed = further_terms(dict(further))
    constraints += [*more, _protection(protection)]
    duties = [INFORM, *([CONSENT] if approval else []), *([REVIEW] if review else [])]
    duty: list[dict[str, Any]] = [*({"action": action} for action in duties), *owed]
    policy: dict[str, Any] = {
        "@type": "Agreement",
        "@id": agreement_id,
        "profile": PROFILE,
        "target": dataset_iri(provider, dataset),
        "assigner": member_iri(provider),
        "assignee": member_iri(consumer),
        "timestamp": instant_text(now),
        "permission": [{"action": action, "constraint": constraints, "duty": duty} for action in actions],
        "prohibition": [{"action": "odrl:distribute"}],
    }
    parse_policy(policy)
    return policy


def demanded_tier(policy: Policy) -> str:
    """The strongest isolation that a permission names with ``fed:minTier``; empty where none does.

    One that is only among several to choose from counts, too: whoever asks errs on the strong side.
    """
    constraints = (one for permission in policy.permission for one in every(permission.constraint))
    return max((tier for one in constraints if one.left == "fed:minTier" for tier in terms_of(one)), default="")


def demanded_participants(policy: Policy, action: str) -> int:
    """How many companies the permissions of an action demand, the strictest of them; 0 where none does."""
    found = [
        int(term)
        for permission in policy.permission
        if includes(permission.action, action)
        for constraint in demanded(permission.constraint)
        if constraint.left == "fed:minParticipants"
        for term in terms_of(constraint)
        if term.isdecimal()
    ]
    return max(found, default=0)


def last_end(policy: Policy) -> datetime | None:
    """When the last of the permissions ends by its own ``odrl:dateTime``; None where one of them never does."""
    ends = []
    for permission in policy.permission:
        bounds = [
            parse_instant(term)
            for constraint in demanded(permission.constraint)
            if constraint.left == "odrl:dateTime" and constraint.operator in ("lt", "lteq")
            for term in terms_of(constraint)
        ]
        if not bounds:
            return None
        ends.append(min(bounds))
    return max(ends)


def uses_counted(policy: Policy, action: str) -> bool:
    """Whether every permission of an action, if there is any, limits how often it may be used."""
    permissions = [permission for permission in policy.permission if includes(permission.action, action)]
    return all(
        any(one.left == "odrl:count" and one.operator in ("lt", "lteq", "eq") for one in demanded(each.constraint))
        for each in permissions
    )


def granted_columns(policy: Policy, action: str) -> tuple[str, ...] | None:
    """The columns a policy shows to this action, in the order it lists them; None where it does not restrict them.

    Where several permissions or constraints list columns, what *all* of them list: whichever of them a decision comes
    to rest on, no column outside it is shown. Columns that a prohibition names are out, whatever else it demands.
    """
    named = [
        constraint
        for permission in policy.permission
        if includes(permission.action, action)
        for constraint in every(permission.constraint)
        if constraint.left == "fed:column"
    ]
    lists = [terms_of(constraint) for constraint in named if constraint.operator in ("isAnyOf", "eq")]
    if not lists:
        return None
    banned = {
        name
        for prohibition in policy.prohibition
        if includes(prohibition.action, action)
        for constraint in every(prohibition.constraint)
        if constraint.left == "fed:column"
        for name in terms_of(constraint)
    }
    banned.update(name for one in named if one.operator in ("isNoneOf", "neq") for name in terms_of(one))
    shown = set(lists[0]).intersection(*lists[1:]) - banned
    return tuple(dict.fromkeys(name for name in lists[0] if name in shown))


def shown_columns(policy: Policy, action: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Of a dataset's columns, in its order, those that this action may see: all where the policy names none."""
    granted = granted_columns(policy, action)
    return tuple(columns) if granted is None else tuple(name for name in columns if name in granted)


@dataclass(frozen=True)
class Demands:
    """What a policy wants done around an action, beyond what is compared.

    Attributes:
        approval: the owner's approval of the code.
        review: the owner's release of each output.
        slot_seconds: width of the slots at whose ends answers leave; 0 for none.
        leak_bounded: the bits that leave are limited.
        rho_bounded: the privacy budget is limited.
        group: fewest subjects behind any figure that leaves, the most that a permission demands; 0 where none does.
        group_bounded: something is said of them.
        unbounded: answers without noise are permitted in words: each permission must satisfy a ``fed:rho``, and one of
            those is ``fed:unbounded``, so that no other permission lets such answers through unsaid.
    """

    approval: bool = False
    review: bool = False
    slot_seconds: int = 0
    leak_bounded: bool = False
    rho_bounded: bool = False
    group: int = 0
    group_bounded: bool = False
    unbounded: bool = False


def demands(policy: Policy, action: str) -> Demands:
    """What a policy demands around an action: whatever any of its permissions for it demands, the strictest of each."""
    permissions = [permission for permission in policy.permission if includes(permission.action, action)]
    duties = {duty.action for permission in permissions for duty in permission.duty}
    constraints = [one for permission in permissions for one in every(permission.constraint)]
    banned = [one for prohibition in policy.prohibition for one in every(prohibition.constraint)]
    slots = [int(term) for one in constraints if one.left == "fed:releaseSlot" for term in terms_of(one)]
    groups = [int(term) for one in constraints if one.left == "fed:minGroupSize" for term in terms_of(one)]
    return Demands(
        approval=CONSENT in duties,
        review=REVIEW in duties,
        slot_seconds=max(slots, default=0),
        leak_bounded=any(one.left == "fed:maxLeakBits" for one in constraints),
        rho_bounded=any(one.left == "fed:rho" for one in [*constraints, *banned]),
        group=max(groups, default=0),
        group_bounded=any(one.left == "fed:minGroupSize" for one in [*constraints, *banned]),
        unbounded=any(UNBOUNDED in terms_of(one) for one in constraints if one.left == "fed:rho")
        and all(any(one.left == "fed:rho" for one in demanded(each.constraint)) for each in permissions),
    )


def _constraint(left: str, operator: str, right: Any) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def _typed(text: str, datatype: str) -> dict[str, str]:
    return {"@value": text, "@type": datatype}


def _integer(value: int) -> dict[str, str]:
    return _typed(str(value), "xsd:integer")


def _protection(protection: str) -> dict[str, Any]:
    if protection == UNPROTECTED:
        return _constraint("fed:protection", "isAnyOf", [{"@id": MASKED}, {"@id": UNPROTECTED}])
    return _constraint("fed:protection", "eq", {"@id": protection})
