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

from federation.policy._denied import PolicyDeniedError
from federation.policy.clauses import CLAUSE_KEYS, ClauseError, span
from federation.policy.composition import (
    Demands,
    agreement_policy,
    demanded_participants,
    demanded_tier,
    demands,
    granted_columns,
    last_end,
    shown_columns,
    uses_counted,
)
from federation.policy.decision import decide
from federation.policy.description import describe, describe_clause, name_of
from federation.policy.duties import Tally, amount_due, deadline, duty_text, tracked_duties
from federation.policy.measures import Measures, Usage, measures
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
from federation.policy.refusal import refusal
from federation.policy.registration import PolicyError, check_parties, parse_policy
from federation.policy.replaying import Difference, decide_again
from federation.policy.request import Request, output_kinds
from federation.policy.tariff import Tariff, TariffError, tariff_of
from federation.policy.values import NEVER, dataset_iri, member_iri
from federation.policy.vocabulary import PROFILE, PURPOSES

__all__ = [
    "CLAUSE_KEYS",
    "NEVER",
    "PROFILE",
    "PURPOSES",
    "ClauseError",
    "Constraint",
    "Demands",
    "Difference",
    "Duty",
    "LogicalConstraint",
    "Measures",
    "Permission",
    "Policy",
    "PolicyDeniedError",
    "PolicyError",
    "Prohibition",
    "Request",
    "Tally",
    "Tariff",
    "TariffError",
    "Term",
    "TypedValue",
    "Usage",
    "agreement_policy",
    "amount_due",
    "check_parties",
    "dataset_iri",
    "deadline",
    "decide",
    "decide_again",
    "demanded_participants",
    "demanded_tier",
    "demands",
    "describe",
    "describe_clause",
    "duty_text",
    "granted_columns",
    "last_end",
    "measures",
    "member_iri",
    "name_of",
    "output_kinds",
    "parse_policy",
    "refusal",
    "shown_columns",
    "span",
    "tariff_of",
    "tracked_duties",
    "uses_counted",
]
