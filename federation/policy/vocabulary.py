"""The terms a policy may use: actions and what includes them, operands and how they compare, purposes.

One closed table for registration, evaluation and description, so that none of them can know a term the others do not.
Terms of ODRL 2.2 carry the prefix ``odrl:``; ours, ``fed:``, are the profile :data:`PROFILE`. Actions that the profile
reserves but this release does not carry out are listed apart: they are refused with that reason, never skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

PROFILE = "https://w3id.org/keyong/fed/1"

TRAIN = "fed:train"
EVALUATE = "fed:evaluate"
QUERY = "fed:aggregateQuery"
SCORE = "fed:score"
INTERSECT = "fed:psi"
BILATERAL_ACTIONS = (SCORE, INTERSECT)
"""Asked of one company by one other: what comes back says something of that company by its nature."""
MASKED = "fed:masked"
UNPROTECTED = "fed:none"
BILATERAL = "fed:bilateral"
"""One company's own figures leave, under noise that is charged, sealed for the consumer alone."""
UNBOUNDED = "fed:unbounded"
"""The value of ``fed:rho`` that permits answers without noise."""
PROTECTIONS = (MASKED, UNPROTECTED, BILATERAL)
OUTPUT_KINDS = ("fed:ModelUpdate", "fed:Arrays", "fed:Metrics")
TIERS = ("T0", "T1", "T2", "T3")
"""Weakest to strongest isolation; the order in which ``fed:minTier`` compares."""

INCLUDED_IN: dict[str, str] = {
    "odrl:read": "odrl:use",
    "odrl:derive": "odrl:use",
    "odrl:execute": "odrl:use",
    "odrl:index": "odrl:use",
    "odrl:modify": "odrl:use",
    "odrl:distribute": "odrl:use",
    "odrl:reproduce": "odrl:use",
    "odrl:extract": "odrl:reproduce",
    "odrl:grantUse": "odrl:use",
    "odrl:sell": "odrl:transfer",
    TRAIN: "odrl:use",
    EVALUATE: "odrl:use",
    QUERY: "odrl:use",
    INTERSECT: "odrl:use",
    SCORE: "odrl:use",
    "fed:assessQuality": "odrl:use",
}
"""``odrl:includedIn`` (ODRL Vocabulary 2.2, section 3.1, and our profile), one step each."""

SAME_AS = {"odrl:write": "odrl:modify"}
"""``skos:exactMatch`` of deprecated actions."""

KNOWN_ACTIONS = frozenset((*INCLUDED_IN, *INCLUDED_IN.values()))

PERMITTED_ACTIONS = (
    "odrl:use",
    "odrl:read",
    "odrl:derive",
    "odrl:execute",
    "odrl:index",
    TRAIN,
    EVALUATE,
    QUERY,
    SCORE,
    INTERSECT,
)
LATER_ACTIONS = ("fed:assessQuality",)
"""Known to the profile; nothing here carries them out yet, so they may be prohibited but not permitted."""
PROHIBITED_ACTIONS = (
    *PERMITTED_ACTIONS,
    *LATER_ACTIONS,
    "odrl:distribute",
    "odrl:reproduce",
    "odrl:extract",
    "odrl:grantUse",
)

INFORM, CONSENT, REVIEW = "odrl:inform", "odrl:obtainConsent", "fed:review"
COMPENSATE, DELETE, ANONYMIZE, ATTRIBUTE = "odrl:compensate", "odrl:delete", "odrl:anonymize", "odrl:attribute"
TRACKED_DUTIES = (COMPENSATE, DELETE, ATTRIBUTE)
"""The consumer's to fulfil after a use began: an obligation per job, pending until its deadline, then violated."""
DUTIES = (INFORM, CONSENT, REVIEW, ANONYMIZE, *TRACKED_DUTIES)
"""Every use is a receipt in the ledger, and the provider holds that ledger: this is how ``inform`` is fulfilled;
``obtainConsent`` by the owner's approval of the code on record, ``fed:review`` by holding each output for the owner,
``anonymize`` by the owner's desensitisation rules that the snapshot is made by."""
DUTY_OPERANDS: dict[str, tuple[str, ...]] = {
    "odrl:elapsedTime": ("lteq", "lt"),
    "odrl:dateTime": ("lteq", "lt"),
    "odrl:payAmount": ("eq", "gteq"),
}
"""What a tracked duty may be bound by: a time after the use began, a moment, and (``compensate`` alone) an amount."""

Kind = Literal[
    "integer", "rho", "instant", "duration", "amount", "tier", "digest", "name", "purpose", "protection", "output", "party",
    "place", "industry", "event",
]  # fmt: skip

ORDER = ("lt", "lteq", "gt", "gteq", "eq", "neq")
ONE_OF = ("eq", "neq", "isAnyOf", "isNoneOf")
SET_OPERATORS = ("isAnyOf", "isAllOf", "isNoneOf", "eq", "neq", "hasPart")
PART_OPERATORS = ("isPartOf", "hasPart", "isA", *ONE_OF)
LIST_OPERATORS = ("isAnyOf", "isAllOf", "isNoneOf")
"""Operators whose right side is a list; no other operator takes one."""


@dataclass(frozen=True)
class Operand:
    """How one left operand is judged.

    Attributes:
        code: stable name of the refusal when it does not hold (fits ``Receipt.code``).
        kind: what its values are; decides datatype and comparison.
        operators: the ones it takes; any other is refused.
    """

    code: str
    kind: Kind
    operators: tuple[str, ...]


OPERANDS: dict[str, Operand] = {
    "odrl:purpose": Operand("purpose", "purpose", ("isA", "isPartOf", *ONE_OF)),
    "odrl:count": Operand("count", "integer", ORDER),
    "odrl:dateTime": Operand("date-time", "instant", ORDER),
    "odrl:elapsedTime": Operand("elapsed-time", "duration", ORDER),
    "odrl:meteredTime": Operand("metered-time", "duration", ORDER),
    "odrl:timeInterval": Operand("time-interval", "duration", ORDER),
    "odrl:payAmount": Operand("pay-amount", "amount", ORDER),
    "odrl:recipient": Operand("recipient", "party", SET_OPERATORS),
    "odrl:spatial": Operand("spatial", "place", PART_OPERATORS),
    "odrl:industry": Operand("industry", "industry", PART_OPERATORS),
    "odrl:systemDevice": Operand("system-device", "digest", ONE_OF),
    "odrl:version": Operand("version", "digest", ONE_OF),
    "odrl:event": Operand("event", "event", SET_OPERATORS),
    "fed:codeDigest": Operand("code-digest", "digest", ONE_OF),
    "fed:minTier": Operand("min-tier", "tier", ("gteq",)),
    "fed:minParticipants": Operand("min-participants", "integer", ("gteq",)),
    "fed:minGroupSize": Operand("min-group-size", "integer", ("gteq",)),
    "fed:protection": Operand("protection", "protection", ("eq", "isAnyOf")),
    "fed:column": Operand("column", "name", SET_OPERATORS),
    "fed:rules": Operand("rules", "digest", ONE_OF),
    "fed:outputKind": Operand("output-kind", "output", SET_OPERATORS),
    "fed:maxOutputBytes": Operand("max-output-bytes", "integer", ("lteq",)),
    "fed:totalOutputBytes": Operand("total-output-bytes", "integer", ORDER),
    "fed:maxLeakBits": Operand("leak-budget", "integer", ("lteq",)),
    "fed:releaseSlot": Operand("release-slot", "integer", ("gteq",)),
    "fed:rho": Operand("rho", "rho", ("lteq",)),
}

PURPOSE_PARENTS: dict[str, str] = {
    "fed:ProcessOptimization": "fed:ProductionImprovement",
    "fed:RollingForceModel": "fed:ProcessOptimization",
    "fed:QualityControl": "fed:ProductionImprovement",
    "fed:DefectDetection": "fed:QualityControl",
    "fed:QualityPrediction": "fed:QualityControl",
    "fed:PredictiveMaintenance": "fed:ProductionImprovement",
    "fed:FaultDiagnosis": "fed:PredictiveMaintenance",
    "fed:RemainingLife": "fed:PredictiveMaintenance",
    "fed:EnergyManagement": "fed:ProductionImprovement",
    "fed:LoadForecast": "fed:EnergyManagement",
    "fed:DemandForecast": "fed:SupplyChainPlanning",
}
"""The declared hierarchy of purposes that ``isA`` climbs."""

PURPOSES = frozenset(
    (
        *PURPOSE_PARENTS,
        *PURPOSE_PARENTS.values(),
        "fed:Benchmarking",
        "fed:Research",
        "fed:SafetyMonitoring",
        "fed:Marketing",
    )
)
"""Every purpose of the profile. A consortium's own purposes carry another prefix and equal only themselves."""


def _upwards(term: str, parents: dict[str, str]) -> Iterator[str]:
    """The term, then whatever includes it, nearest first."""
    current: str | None = term
    while current is not None:
        yield current
        current = parents.get(current)


@lru_cache(maxsize=4096)
def includes(broad: str, narrow: str) -> bool:
    """Whether permitting ``broad`` permits ``narrow``: the same known action, or transitively ``includedIn`` it."""
    if SAME_AS.get(broad, broad) not in KNOWN_ACTIONS:
        return False
    return SAME_AS.get(broad, broad) in _upwards(SAME_AS.get(narrow, narrow), INCLUDED_IN)


def purpose_is_a(purpose: str, ancestor: str) -> bool:
    """Whether ``purpose`` is ``ancestor``, or below it in the declared hierarchy."""
    return ancestor in _upwards(purpose, PURPOSE_PARENTS)
