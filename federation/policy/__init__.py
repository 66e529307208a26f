"""Usage control: agreements as ODRL policies, and the decision on every request, fail-closed.

Pure: no file, network or clock. Whoever calls brings the request with its time and the uses already reserved; the
decision comes back as a record in which every constraint stands beside the value it was judged by.

>>> from datetime import UTC, datetime
>>> now = datetime(2026, 1, 1, tzinfo=UTC)
>>> policy = parse_policy(agreement_policy(
...     provider="mill-a", consumer="mill-b", dataset="plates", actions=["fed:train"],
...     purposes=["fed:ProcessOptimization"], count=2, expires=None, now=now,
...     agreement_id="urn:uuid:00000000-0000-4000-8000-000000000001"))
>>> request = Request(
...     action="fed:train", purpose="fed:Marketing", requester="mill-b", code=None, tier="T2", participants=3,
...     columns=("force",), protection="fed:masked", now=now, uses_taken=0)
>>> record = decide("", policy, request)
>>> record.permit, record.rule
(False, 'purpose')
>>> print(refusal(record))
the agreement does not permit the purpose fed:Marketing, only fed:ProcessOptimization
"""

from federation.policy.composition import (
    Demands,
    agreement_policy,
    demanded_participants,
    demanded_tier,
    demands,
    granted_columns,
    shown_columns,
)
from federation.policy.decision import decide
from federation.policy.description import describe
from federation.policy.model import (
    Constraint,
    Duty,
    LogicalConstraint,
    Permission,
    Policy,
    Prohibition,
    Term,
    TypedValue,
)
from federation.policy.refusal import PolicyDeniedError, refusal
from federation.policy.registration import PolicyError, check_parties, parse_policy
from federation.policy.replaying import Difference, decide_again
from federation.policy.request import Request, output_kinds
from federation.policy.values import dataset_iri, member_iri
from federation.policy.vocabulary import PROFILE, PURPOSES

__all__ = [
    "PROFILE",
    "PURPOSES",
    "Constraint",
    "Demands",
    "Difference",
    "Duty",
    "LogicalConstraint",
    "Permission",
    "Policy",
    "PolicyDeniedError",
    "PolicyError",
    "Prohibition",
    "Request",
    "Term",
    "TypedValue",
    "agreement_policy",
    "check_parties",
    "dataset_iri",
    "decide",
    "decide_again",
    "demanded_participants",
    "demanded_tier",
    "demands",
    "describe",
    "granted_columns",
    "member_iri",
    "output_kinds",
    "parse_policy",
    "refusal",
    "shown_columns",
]
